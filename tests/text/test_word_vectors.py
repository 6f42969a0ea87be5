"""Word vectors: text and JSON files, good and bad, and the real subset of GloVe."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coattn.datasets.daquar import read_daquar
from coattn.text import word_vectors
from coattn.text.vocabulary import Vocabulary
from coattn.text.word_vectors import read_word_vectors

VOCABULARY = Vocabulary(["cat", "dog", "paris", "zebra"])
LINES = "the 1 2\ncat 0.5 -1e-1\n. . . 7 7\nParis 3 4\nparis 5 6\ncat 9 9\ndog 2 2\nDOG 8 8\n"


def write(folder: Path, text: str | bytes, name: str = "vectors.txt") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    "text",
    [
        LINES,
        f"8 2\n{LINES}",
        "\ufeff" + LINES,
        LINES.replace("\n", " \r\n"),  # fastText ends its lines with a space
        LINES.removesuffix("\n"),
        LINES + "\n",
    ],
)
def test_text_files(text: str, tmp_path: Path) -> None:
    vectors = read_word_vectors(write(tmp_path, text), VOCABULARY)
    assert vectors.found.tolist() == [False, False, True, True, True, False]
    torch.testing.assert_close(vectors.values[2:], torch.tensor([[0.5, -0.1], [2, 2], [5, 6], [0, 0]]))
    assert (vectors.dim, vectors.num_read, vectors.num_duplicates, vectors.num_lower_case) == (2, 8, 1, 0)


def test_json_files_say_the_same(tmp_path: Path) -> None:
    text = '{"the": [1, 2], "cat": [0.5, -0.1], "Paris": [3, 4], "paris": [5, 6], "cat": [9, 9], "dog": [2, 2]}'
    vectors = read_word_vectors(write(tmp_path, text, "vectors.json"), VOCABULARY)
    expected = read_word_vectors(write(tmp_path, LINES), VOCABULARY)
    assert torch.equal(vectors.values, expected.values)
    assert (vectors.num_read, vectors.num_duplicates) == (6, 1)


def test_case_is_ignored_only_where_a_word_is_not_there_as_it_stands(tmp_path: Path) -> None:
    vectors = read_word_vectors(write(tmp_path, "CAT 1\nCat 2\nDog 3\ndog 4\n<unk> 5\nunk 6\n"), VOCABULARY)
    assert vectors.values[:, 0].tolist() == [0, 5, 1, 4, 0, 0]
    assert vectors.num_lower_case == 1


def test_spaces_belong_to_the_word(tmp_path: Path) -> None:
    # As in glove.840B: dots, addresses, and white space that is not the separator.
    text = "of 0 0\n. . . . . 1 2\nat name@domain.com 3 4\n\u00a0 5 6\n\u2028 5 5\nnew york 9 9\ncat 7 8\n"
    vectors = read_word_vectors(write(tmp_path, text), Vocabulary(["cat", "new york", "name@domain.com"]))
    assert vectors.values[2:].tolist() == [[7, 8], [9, 9], [0, 0]]
    assert vectors.num_read == 7


def test_the_table_is_like_the_vectors_found(tmp_path: Path) -> None:
    torch.manual_seed(0)
    words = [f"w{number}" for number in range(2000)]
    values = torch.tensor([3.0, -1.0]) + torch.tensor([0.5, 0.1]) * torch.randn(1000, 2)
    lines = [f"{word} {x:.4f} {y:.4f}" for word, (x, y) in zip(words, values.tolist(), strict=False)]
    vectors = read_word_vectors(write(tmp_path, "\n".join(lines)), Vocabulary(words))
    table = vectors.table(seed=1)
    torch.testing.assert_close(table[2:1002], values, rtol=0, atol=1e-4)
    torch.testing.assert_close(table[1002:].mean(0), values.mean(0), rtol=0, atol=0.06)
    torch.testing.assert_close(table[1002:].std(0), values.std(0), rtol=0.1, atol=0)
    torch.testing.assert_close(table[1], values.mean(0), rtol=0, atol=1e-4)
    assert table[0].tolist() == [0, 0]
    assert torch.equal(table, vectors.table(seed=1))
    assert not torch.equal(table, vectors.table(seed=2))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file has no word vectors"),
        ("3 2\n", "the file has no word vectors"),
        ("cat\n", "line 1: not a word and its numbers, separated by spaces; unpack a compressed file"),
        ("the 1 2\ncat 1\n", "line 2: 1 numbers after the word, but line 1 has 2"),
        ("the 1 2\ncat 1 2 3\n", "line 2: 3 numbers after the word, but line 1 has 2"),
        ("2 3\nthe 1 2\n", "line 2: 2 numbers after the word, but the header says 3"),
        ("the 1 2\ncat 1 x\n", "line 2: 'x' is not a number"),
        ("the 1 2\ncat 1 nan\n", "line 2: nan is not a finite number"),
        ("the 1 2\ncat -inf 1\n", "line 2: -inf is not a finite number"),
        ("the 1 2\ncat 1 1e99\n", "line 2: 1e99 is not a finite number"),
        (b"the 1 2\ncaf\xe9 1 2\n", r"line 2: not UTF-8 text \(b'caf\\xe9'\)"),
        ("the 1 2\nof 1 2\n", "none of the 4 words of the vocabulary is among its 2"),
    ],
)
def test_bad_text_files(text: str | bytes, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=message) as caught:
        read_word_vectors(path, VOCABULARY)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "the file has no word vectors"),
        ("[1, 2]", "expected an object from word to list of numbers, got a list"),
        ('{"cat": 1}', "word 'cat': expected a list of numbers, got '1'"),
        ('{"cat": {"a": 1}}', "word 'cat': expected a list of numbers"),
        ('{"the": [1, 2], "cat": [1]}', "word 'cat': 1 numbers, but the first word has 2"),
        ('{"cat": []}', "word 'cat': 0 numbers, but the first word has none"),
        ('{"cat": [1, "x"]}', "word 'cat': 'x' is not a number"),
        ('{"cat": [1, null]}', "word 'cat': 'None' is not a number"),
        ('{"cat": [1, NaN]}', "word 'cat': nan is not a finite number"),
        ('{"cat": [1', "not valid JSON"),
        (b'{"caf\xe9": [1]}', "not UTF-8 text"),
    ],
)
def test_bad_json_files(text: str | bytes, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, text, "vectors.json")
    with pytest.raises(ValueError, match=message) as caught:
        read_word_vectors(path, VOCABULARY)
    assert str(caught.value).startswith(str(path))


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.txt"):
        read_word_vectors(tmp_path / "nothing.txt", VOCABULARY)
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(ValueError, match=r"pipe\.txt: is a named pipe"):
        read_word_vectors(tmp_path / "pipe.txt", VOCABULARY)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    table=st.dictionaries(
        st.text(st.characters(exclude_characters="\n\r \ufeff", exclude_categories=["Cs"]), min_size=1, max_size=5),
        st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=3),
        min_size=1,
    ),
    as_json=st.booleans(),
)
def test_what_was_written_is_read(table: dict[str, list[float]], as_json: bool, tmp_path: Path) -> None:
    text = "".join(f"{word} {' '.join(map(repr, row))}\n" for word, row in table.items())
    path = write(tmp_path, json.dumps(table) if as_json else text, "v.json" if as_json else "v.txt")
    words = list(table)
    vectors = read_word_vectors(path, Vocabulary(words))
    assert vectors.found[2:].all()
    torch.testing.assert_close(vectors.values[2:], torch.tensor([table[word] for word in words]), rtol=1e-6, atol=0)


def test_a_large_file_shows_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(word_vectors, "_LARGE", 0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    path = write(tmp_path, LINES)
    read_word_vectors(path, VOCABULARY)
    size = path.stat().st_size
    assert f"{size:.0f}/{size:.0f}" in capsys.readouterr().err.replace(".0", "")


def test_glove_knows_nine_tenths_of_real_questions(shared_data: Path) -> None:
    path = shared_data / "glove_subset" / "glove-50d-5k.json"
    questions = [record.question for record in read_daquar(shared_data / "daquar").splits["test"]]
    vocabulary = Vocabulary.build(questions)
    vectors = read_word_vectors(path, vocabulary)
    known = vectors.coverage(vocabulary, questions)
    assert known["dim"] == 50
    assert known["share_of_question_words"] == pytest.approx(0.903, abs=0.01)
    assert known["words_found"] == vectors.found.sum()
    red, blue, table = (vectors.values[2 + vocabulary.words.index(word)] for word in ("red", "blue", "table"))
    assert torch.cosine_similarity(red, blue, dim=0) == pytest.approx(0.890, abs=0.001)
    assert torch.cosine_similarity(red, table, dim=0) < 0.6
