"""Word vectors from a file, GloVe's and their like, for the words of a vocabulary."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from coattn._internal.files import read_json, require_regular, sha256_of_file
from coattn._internal.progress import progress
from coattn.text.vocabulary import PAD, UNK, Vocabulary

UNKNOWN = "<unk>"  # the name of unknown words in files that have a vector for them
_REPORT_BYTES = 1 << 24
_LARGE = 1 << 27  # bytes; the reading of a larger file shows its progress


@dataclass(frozen=True, eq=False)
class WordVectors:
    """The vectors of a vocabulary's words.

    Attributes:
        path: the file.
        sha256: the hash of the file.
        values: (V, E) float32, a row for each id of the vocabulary; zeros where the file has none.
        found: (V,) bool, True = the file has a vector. Id 0 (padding) has none; id 1 has that of the word "<unk>".
        num_lower_case: the number of them that were found only when upper and lower case were ignored.
        num_read: the number of vectors in the file.
        num_duplicates: the number of lines left out because their word, one of the vocabulary, appeared before.
    """

    path: str
    sha256: str
    values: Tensor
    found: Tensor
    num_lower_case: int
    num_read: int
    num_duplicates: int

    @property
    def dim(self) -> int:
        """Width E."""
        return self.values.shape[1]

    def table(self, *, seed: int = 0) -> Tensor:
        """The rows (V, E) with which training of an embedding starts.

        Words without a vector are drawn from a normal distribution with the mean and standard deviation, per dimension,
        of the vectors found. So they have the same scale as other words, which they would not have with an embedding's
        usual N(0, 1), and training moves them like the others. Unknown words get the mean, because their row is hardly
        trained; padding is zeros.
        """
        known = self.values[self.found]
        mean, std = known.mean(0), known.std(0, correction=0)
        noise = torch.randn(self.values.shape, generator=torch.Generator().manual_seed(seed))
        rows = torch.where(self.found[:, None], self.values, mean + std * noise)
        if not self.found[UNK]:
            rows[UNK] = mean
        rows[PAD] = 0
        return rows

    def coverage(self, vocabulary: Vocabulary, questions: list[str]) -> dict[str, Any]:
        """How many words of the vocabulary, and of these questions, have a vector; plain values, for records."""
        ids = torch.tensor([number for question in questions for number in vocabulary.encode(question)])
        share = self.found[ids].float().mean().item() if len(ids) else 0.0
        return {
            "file": Path(self.path).name,
            "sha256": self.sha256,
            "dim": self.dim,
            "words": len(vocabulary.words),
            "words_found": int(self.found[UNK + 1 :].sum()),
            "words_found_in_lower_case": self.num_lower_case,
            "share_of_question_words": round(share, 4),
            "duplicates_left_out": self.num_duplicates,
        }


def read_word_vectors(path: str | os.PathLike[str], vocabulary: Vocabulary) -> WordVectors:
    """Read the vectors of a vocabulary's words.

    A text file has one word per line, followed by its numbers, separated by single spaces, with or without a first line
    of two counts (word2vec's text format). Spaces within a word (glove.840B has some) are part of the word. The file is
    read line by line; only the lines of needed words are kept and checked. A `.json` file is an object from word to
    list of numbers and is read whole.

    A word is looked up as it is, and then with upper and lower case ignored. Of several lines for one word the first
    counts, because files have frequent words first.

    Args:
        path: the file; a name ending in `.json` is JSON, any other text.
        vocabulary: the words.

    Raises:
        ValueError: the file has another form, or no word of the vocabulary; the message names file and line.
        OSError: it cannot be read.
    """
    path = Path(path)
    taken = _Taken(vocabulary)
    lines = _json_lines(path) if path.suffix == ".json" else _text_lines(path)
    dim, num_read = 0, 0
    for line in lines:
        dim, num_read = line.dim, num_read + 1
        for number in taken.wanting(line.word):
            taken.put(number, line.word, _vector(path, line))
    if num_read == 0:
        raise ValueError(f"{path}: the file has no word vectors")
    if not taken.vectors:
        raise ValueError(f"{path}: none of the {len(vocabulary.words)} words of the vocabulary is among its {num_read}")
    values = torch.zeros(len(vocabulary), dim)
    found = torch.zeros(len(vocabulary), dtype=torch.bool)
    for number, vector in taken.vectors.items():
        values[number], found[number] = vector, True
    return WordVectors(
        str(path), sha256_of_file(path), values, found, taken.num_lower_case, num_read, taken.num_duplicates
    )


class _Line(NamedTuple):
    """A word of a file, and its numbers as the file has them."""

    word: str
    numbers: bytes | Any
    dim: int
    place: str


class _Taken:
    """The vectors taken so far, by id of the vocabulary."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vectors: dict[int, Tensor] = {}
        self.num_duplicates = 0
        self._spelled = {UNK: UNKNOWN} | dict(enumerate(vocabulary.words, start=UNK + 1))
        self._taken: dict[int, str] = {}  # the file's spelling of the words whose vectors were taken
        self._numbers: dict[str, list[int]] = {}
        for number, word in self._spelled.items():
            self._numbers.setdefault(word.lower(), []).append(number)

    @property
    def num_lower_case(self) -> int:
        return sum(word != self._spelled[number] for number, word in self._taken.items())

    def wanting(self, word: str) -> Iterator[int]:
        """The ids without a vector so far, or with that of a word in another case, if this is their spelling."""
        for number in self._numbers.get(word.lower(), ()):
            if self._taken.get(number) == word:
                self.num_duplicates += 1
            elif number not in self._taken or self._spelled[number] == word:
                yield number

    def put(self, number: int, word: str, vector: Tensor) -> None:
        self.vectors[number], self._taken[number] = vector, word


def _text_lines(path: Path) -> Iterator[_Line]:
    require_regular(path)
    dim, measure, unreported, size = 0, "", 0, path.stat().st_size
    with path.open("rb") as file, progress(path.name, size, unit="B", shown=size >= _LARGE) as advance:
        for row, raw in enumerate(file, start=1):
            unreported += len(raw)
            if unreported > _REPORT_BYTES:
                advance(unreported)
                unreported = 0
            line = raw.rstrip(b" \r\n").removeprefix(b"\xef\xbb\xbf" if row == 1 else b"")
            num_spaces = line.count(b" ")
            if row == 1 and num_spaces == 1 and all(field.isdigit() for field in line.split()):
                dim, measure = int(line.split()[1]), "the header says"
                continue
            if not line:
                continue
            if dim == 0:
                dim, measure = num_spaces, f"line {row} has"
            if dim == 0:
                raise ValueError(
                    f"{path}: line {row}: not a word and its numbers, separated by spaces; unpack a compressed file, "
                    "and save a binary one as text"
                )
            if num_spaces < dim:
                raise ValueError(f"{path}: line {row}: {num_spaces} numbers after the word, but {measure} {dim}")
            word, numbers = line.split(b" ", 1) if num_spaces == dim else _split_behind_spaces(line, dim)
            try:
                text = word.decode("utf-8")
            except UnicodeDecodeError:
                raise ValueError(f"{path}: line {row}: not UTF-8 text ({word[:40]!r}); convert the file") from None
            if (rest := text.split(" ")[1:]) and all(map(_is_number, rest)):
                raise ValueError(f"{path}: line {row}: {num_spaces} numbers after the word, but {measure} {dim}")
            yield _Line(text, numbers, dim, f"line {row}")
        advance(unreported)


def _split_behind_spaces(line: bytes, dim: int) -> tuple[bytes, bytes]:
    """A word with spaces in it, and its numbers."""
    numbers = line.split(b" ")[-dim:]
    joined = b" ".join(numbers)
    return line[: -len(joined) - 1], joined


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _json_lines(path: Path) -> Iterator[_Line]:
    pairs = read_json(path, pairs_hook=tuple)
    dim = 0
    if not isinstance(pairs, tuple):
        raise ValueError(f"{path}: expected an object from word to list of numbers, got a {type(pairs).__name__}")
    for word, numbers in pairs:
        place = f"word {word!r}"
        if not isinstance(numbers, list):
            raise ValueError(f"{path}: {place}: expected a list of numbers, got {str(numbers)[:40]!r}")
        dim = dim or len(numbers)
        if len(numbers) != dim or dim == 0:
            raise ValueError(f"{path}: {place}: {len(numbers)} numbers, but the first word has {dim or 'none'}")
        yield _Line(word, numbers, dim, place)


def _vector(path: Path, line: _Line) -> Tensor:
    numbers = line.numbers.split(b" ") if isinstance(line.numbers, bytes) else line.numbers
    try:
        vector = torch.tensor([float(number) for number in numbers])
    except (ValueError, TypeError, OverflowError):
        wrong = next(number for number in numbers if not _is_number(_shown(number)))
        raise ValueError(f"{path}: {line.place}: {_shown(wrong)!r} is not a number") from None
    if not vector.isfinite().all():
        wrong = numbers[int((~vector.isfinite()).nonzero()[0])]
        raise ValueError(f"{path}: {line.place}: {_shown(wrong)} is not a finite number")
    return vector


def _shown(number: Any) -> str:
    return number.decode("utf-8", "replace") if isinstance(number, bytes) else str(number)
