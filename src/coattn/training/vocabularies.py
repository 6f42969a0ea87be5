"""The vocabularies of a training run, and where they come from when it is not the training questions."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from coattn._internal.files import read_json
from coattn.datasets.records import Record
from coattn.serialization.directory import ANSWERS, CONFIG, read_question_vocabulary
from coattn.text.answer_words import AnswerWords, answers_from_json
from coattn.text.pretrained_tokenizer import PretrainedTokenizer
from coattn.text.vocabulary import AnswerVocabulary, Vocabulary
from coattn.training.callbacks import read_checkpoint


class Vocabularies(NamedTuple):
    """Words of the questions (a text encoder's tokenizer, None for given embeddings), and answers or their words."""

    words: Vocabulary | PretrainedTokenizer | None
    answers: AnswerVocabulary | AnswerWords

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"words": None if self.words is None else self.words.to_json(), "answers": self.answers.to_json()}

    @classmethod
    def from_json(cls, value: dict[str, Any], source: str) -> Vocabularies:
        """What `to_json` gave; `source` is what messages call it."""
        words = value["words"]
        if isinstance(words, dict) and "files" in words:
            words = PretrainedTokenizer.from_json(words, source)
        elif words is not None:
            words = Vocabulary.from_json(words)
        return cls(words, answers_from_json(value["answers"]))


def read_vocabularies(path: str | os.PathLike[str]) -> Vocabularies:
    """The vocabularies of a checkpoint (`.ckpt`) or a model directory.

    Raises:
        ValueError: it holds none.
        OSError: it cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / CONFIG).is_file():
            raise FileNotFoundError(f"{path}: not a model directory (it has no {CONFIG})")
        return Vocabularies(
            read_question_vocabulary(path, read_json(path / CONFIG)),
            answers_from_json(read_json(path / ANSWERS)),
        )
    state = read_checkpoint(path).get("VQADataModule")
    if state is None:
        raise ValueError(f"{path}: this checkpoint was saved without a VQADataModule and has no vocabularies")
    return Vocabularies.from_json(state["vocabularies"], str(path))


def make_vocabularies(
    records: Sequence[Record], options: Mapping[str, Any], *, tokenizer: PretrainedTokenizer | None
) -> Vocabularies:
    """The words and answers of training questions, by the settings of a `VQADataModule`.

    Args:
        records: the training questions.
        options: the settings.
        tokenizer: that of a text encoder which is trained with the model, in place of a vocabulary of words.
    """
    words: Vocabulary | PretrainedTokenizer | None = tokenizer
    if tokenizer is None and options["question_embeddings"] is None:
        words = Vocabulary.build(
            (record.question for record in records),
            min_count=options["min_word_count"],
            tokenizer=options["tokenizer"],
        )
    given, least = [record.answer for record in records], options["min_answer_count"]
    if options["answers"] == "words":
        return Vocabularies(words, AnswerWords.build(given, min_count=least))
    answers = AnswerVocabulary.build(([answer] for answer in given), size=options["max_answers"], min_count=least)
    return Vocabularies(words, answers)


def check_vocabularies(found: Vocabularies, options: Mapping[str, Any]) -> None:
    """Refuse vocabularies of a saved model that reads or answers otherwise than the settings say.

    Raises:
        ValueError: the message names the setting.
    """
    source = options["vocabulary_from"]
    wanted = {
        "question_embeddings": found.words is None,
        "text_encoder": isinstance(found.words, PretrainedTokenizer),
    }
    reads = next((f"what data.{name} gives" for name, expected in wanted.items() if expected), "words")
    for name, expected in wanted.items():
        if (options[name] is not None) != expected:
            raise ValueError(
                f"{source}: this model reads {reads}, but data.{name} is {options[name]}; "
                "use the setting it was trained with"
            )
    kind = "words" if isinstance(found.answers, AnswerWords) else "choices"
    if options["answers"] != kind:
        raise ValueError(
            f"{source}: this model answers in {kind}; set data.answers to {kind}, not {options['answers']}"
        )
