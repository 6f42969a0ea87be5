"""The vocabularies of a training run, and where they come from when it is not the training questions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from coattn.checkpoint import ANSWERS, CONFIG, read_question_vocabulary
from coattn.files import read_json
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
