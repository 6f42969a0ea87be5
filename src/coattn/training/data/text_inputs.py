"""The text side of training: vocabularies, word vectors, token embeddings or a text encoder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from coattn._internal.files import read_json
from coattn._internal.hub_cache import local_folder
from coattn.datasets.records import Record
from coattn.features.store.reader import FeatureStore
from coattn.serialization.config import read_config
from coattn.serialization.directory import read_question_vocabulary
from coattn.serialization.files import ANSWERS
from coattn.text.answer_words import AnswerWords, answers_from_json
from coattn.text.answers import answer_form
from coattn.text.encoders import encoder_record
from coattn.text.pretrained_tokenizer import FILES, KIND, PretrainedTokenizer
from coattn.text.vocabulary import AnswerVocabulary, Vocabulary
from coattn.text.word_vectors import WordVectors, read_word_vectors
from coattn.training.checkpoints import read_checkpoint
from coattn.training.data.settings import DataSettings


class Vocabularies(NamedTuple):
    """The two vocabularies of a model.

    Attributes:
        words: of the questions, the tokenizer of a text encoder, or None with given embeddings.
        answers: whole answers, or words of answers.
    """

    words: Vocabulary | PretrainedTokenizer | None
    answers: AnswerVocabulary | AnswerWords

    def to_json(self) -> dict[str, Any]:
        """The vocabularies as JSON values."""
        return {"words": None if self.words is None else self.words.to_json(), "answers": self.answers.to_json()}

    @classmethod
    def from_json(cls, value: dict[str, Any], source: str) -> Vocabularies:
        """Vocabularies from the value that `to_json` returned; messages name it `source`."""
        words = value["words"]
        if isinstance(words, dict) and "files" in words:
            words = PretrainedTokenizer.from_json(words, source)
        elif words is not None:
            words = Vocabulary.from_json(words)
        return cls(words, answers_from_json(value["answers"]))


def _without_longest(vocabularies: Mapping[str, Any]) -> dict[str, Any]:
    """Vocabularies as JSON values without the length of the longest question, which earlier checkpoints do not have."""
    words = vocabularies["words"]
    if isinstance(words, list):
        words = Vocabulary(words).to_json()
    return {**vocabularies, "words": words if words is None else {**words, "longest": None}}


def read_vocabularies(path: str | os.PathLike[str]) -> Vocabularies:
    """The vocabularies of a checkpoint (`.ckpt`) or a model directory.

    Raises:
        ValueError: it holds none.
        OSError: it cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        return Vocabularies(
            read_question_vocabulary(path, read_config(path)),
            answers_from_json(read_json(path / ANSWERS)),
        )
    state = read_checkpoint(path).get("VQADataModule")
    if state is None:
        raise ValueError(f"{path}: this checkpoint was saved without a VQADataModule and has no vocabularies")
    return Vocabularies.from_json(state["vocabularies"], str(path))


def make_vocabularies(
    records: Sequence[Record], settings: DataSettings, *, form: str, tokenizer: PretrainedTokenizer | None
) -> Vocabularies:
    """Build the vocabularies of training questions.

    Args:
        records: the training questions.
        settings: those of the data module.
        form: how answers are compared, see `coattn.text.answers.answer_form`.
        tokenizer: the tokenizer of a text encoder that is trained with the model; None builds a vocabulary of words.
    """
    words: Vocabulary | PretrainedTokenizer | None = tokenizer
    if tokenizer is None and settings.text.embeddings is None:
        words = Vocabulary.build(
            (record.question for record in records),
            min_count=settings.text.min_word_count,
            tokenizer=settings.text.tokenizer,
        )
    given, least = [record.answer for record in records], settings.answers.min_count
    if settings.answers.kind == "words":
        return Vocabularies(words, AnswerWords.build(given, form=form, min_count=least))
    answers = AnswerVocabulary.build(
        ([answer] for answer in given), form=form, size=settings.answers.max_count, min_count=least
    )
    return Vocabularies(words, answers)


def check_vocabularies(found: Vocabularies, settings: DataSettings) -> None:
    """Check that the vocabularies of a saved model suit the settings.

    Raises:
        ValueError: the message names the setting.
    """
    source, text = settings.vocabulary_from, settings.text
    wanted = {
        "embeddings": found.words is None,
        "encoder": isinstance(found.words, PretrainedTokenizer),
    }
    reads = next((f"what data.text.{name} provides" for name, expected in wanted.items() if expected), "words")
    for name, expected in wanted.items():
        value = getattr(text, name)
        if (value is not None) != expected:
            raise ValueError(
                f"{source}: this model reads {reads}, but data.text.{name} is {value}; "
                "use the setting it was trained with"
            )
    kind = "words" if isinstance(found.answers, AnswerWords) else "choices"
    if settings.answers.kind != kind:
        raise ValueError(
            f"{source}: this model answers in {kind}; set data.answers.kind to {kind}, not {settings.answers.kind}"
        )


class TextInputs:
    """The text inputs of a training run, each read at its first use.

    Args:
        settings: those of the data module.
        training_questions: returns the training questions and their metric.

    Attributes:
        word_vectors_record: record of the word vectors that training began with, plain values; None if none were read.
    """

    def __init__(self, settings: DataSettings, training_questions: Callable[[], tuple[Sequence[Record], str]]) -> None:
        self.settings = settings
        self.word_vectors_record: dict[str, Any] | None = None
        self._training_questions = training_questions
        self._encoder_record: dict[str, Any] | None = None

    @cached_property
    def embeddings(self) -> FeatureStore | None:
        """The store of question token embeddings, if there is one."""
        path = self.settings.text.embeddings
        return FeatureStore(path) if path is not None else None

    @cached_property
    def encoder_folder(self) -> Path | None:
        """Folder of the text encoder that training begins with, if there is one."""
        name = self.settings.text.encoder
        if name is None:
            return None
        if self.settings.text.embeddings is not None:
            raise ValueError("set either data.text.encoder, to train it, or data.text.embeddings, which one made")
        return local_folder(
            name,
            self.settings.text.allow_download,
            kind=KIND,
            files=FILES,
            permission="set data.text.allow_download",
        )

    @cached_property
    def vocabularies(self) -> Vocabularies:
        """The vocabularies of `vocabulary_from` if it is set, else of the training questions."""
        settings = self.settings
        if settings.vocabulary_from is not None:
            found = read_vocabularies(settings.vocabulary_from)
            check_vocabularies(found, settings)
            return found
        reader = None if self.encoder_folder is None else PretrainedTokenizer.load(self.encoder_folder)
        records, metric = self._training_questions()
        return make_vocabularies(records, settings, form=answer_form(metric), tokenizer=reader)

    @cached_property
    def word_vectors(self) -> WordVectors | None:
        """The vectors of the vocabulary's words, if there is such a file. Their number is reported."""
        path = self.settings.text.word_vectors
        if path is None:
            return None
        words = self.vocabularies.words
        if not isinstance(words, Vocabulary):
            raise ValueError(
                "data.text.word_vectors needs words; remove it, or data.text.embeddings and data.text.encoder"
            )
        found = read_word_vectors(path, words)
        known = found.coverage(words, [record.question for record in self._training_questions()[0]])
        self.word_vectors_record = known
        rank_zero_info(
            f"{path}: vectors of {found.dim} numbers for {known['words_found']} of the {known['words']} words, "
            f"{100 * known['share_of_question_words']:.1f} % of the words in the training questions"
        )
        return found

    @property
    def max_tokens(self) -> int | None:
        """Largest number of tokens of a question; longer questions are cut."""
        words, limit = self.vocabularies.words, self.settings.text.max_tokens
        return words.limit(limit) if isinstance(words, PretrainedTokenizer) else limit

    @property
    def encoder_record(self) -> dict[str, Any] | None:
        """The record of the text encoder at the start of training; plain values."""
        if self.embeddings is not None:
            return dict(self.embeddings.record)
        words = self.vocabularies.words
        if self._encoder_record is None and isinstance(words, PretrainedTokenizer):
            folder, name = self.encoder_folder, self.settings.text.encoder
            assert folder is not None, "vocabularies checks it"
            assert name is not None
            kind, limit = json.loads(words.config)["model_type"], words.limit(self.settings.text.max_tokens)
            self._encoder_record = encoder_record(name, folder, kind=kind, max_tokens=limit)
        return self._encoder_record

    def state_dict(self) -> dict[str, Any]:
        """The text's part of a checkpoint; plain values."""
        return {
            "vocabularies": self.vocabularies.to_json(),
            "text_encoder": self.encoder_record,
            "max_tokens": self.max_tokens,
            "word_vectors": self.word_vectors_record,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Check that the vocabularies are those of a checkpoint, and take over its records of encoder and vectors.

        Raises:
            ValueError: the vocabularies differ.
        """
        if _without_longest(state["vocabularies"]) != _without_longest(self.vocabularies.to_json()):
            raise ValueError("the vocabularies differ from the checkpoint's; set vocabulary_from to the checkpoint")
        self.word_vectors_record = state.get("word_vectors")
        if self.embeddings is None:
            self._encoder_record = state["text_encoder"]
