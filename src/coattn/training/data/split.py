"""The questions of a split: read from files, and encoded as arrays."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from coattn.datasets.records import Record
from coattn.datasets.vqa_json import read_vqa
from coattn.features.residency.features import Features
from coattn.features.store.joined import JoinedStore
from coattn.features.store.reader import FeatureStore, require_same_extractor
from coattn.text.answer_words import PAD, AnswerWords
from coattn.text.answers import answer_shares, soft_scores
from coattn.text.pretrained_tokenizer import PretrainedTokenizer
from coattn.text.vocabulary import AnswerVocabulary, Vocabulary
from coattn.training.data.batches import Batch, Draw, QuestionDataset, QuestionEmbeddings, Ragged, make_batch
from coattn.training.data.settings import DataSettings, Targets
from coattn.training.data.text_inputs import Vocabularies

_SCORING: dict[Targets, Callable[[Sequence[str], AnswerVocabulary], tuple[list[int], list[float]]]] = {
    "soft": soft_scores,
    "typed": partial(soft_scores, as_typed=True),
    "share": answer_shares,
    "single": soft_scores,
}


class Questions(NamedTuple):
    """The records of a split in the order of its files, and the metric that judges the answers."""

    records: list[Record]
    metric: str


@dataclass(frozen=True)
class Split:
    """The questions of a split as arrays.

    Attributes:
        records: in the order of the files.
        metric: name of the metric that judges the answers.
        images: (N,) int64, position in the feature store of each question's image.
        dataset: reads the texts of its batches.
        features: the store that has the images.
    """

    records: list[Record]
    metric: str
    images: np.ndarray
    dataset: QuestionDataset
    features: FeatureStore | JoinedStore

    @property
    def num_regions(self) -> np.ndarray:
        """(N,) int64, regions of each question's image."""
        return self.features.lengths[self.images]

    @property
    def num_tokens(self) -> np.ndarray:
        """(N,) int64, tokens of each question."""
        return self.dataset.questions.lengths

    def batch(self, positions: np.ndarray) -> Batch:
        """Read some of the questions, by their positions (B,)."""
        draw = Draw(positions, self.images[positions], float(len(positions)))
        return make_batch(draw, self.dataset[draw], Features(self.features))


def read_questions(name: str, questions: Sequence[str], annotations: Sequence[str]) -> Questions:
    """Read the files of a split as one.

    Args:
        name: of the split.
        questions: files of questions.
        annotations: their answers, one file for each; empty if they are unknown.

    Raises:
        ValueError: the files are invalid or do not belong together.
        OSError: a file cannot be read.
    """
    files = [read_vqa(path, answers, split=name) for path, answers in itertools.zip_longest(questions, annotations)]
    records = [record for file in files for record in file.records]
    if not records:
        raise ValueError(f"{', '.join(questions)}: no questions")
    if len(metrics := sorted({file.metric for file in files})) > 1:
        raise ValueError(f"{', '.join(annotations)}: judged by different metrics, {' and '.join(metrics)}")
    if len(files) > 1:
        seen: set[str] = set()
        for record in records:
            if str(record.question_id) in seen:
                raise ValueError(f"{', '.join(questions)}: question_id {record.question_id!r} is in more than one file")
            seen.add(str(record.question_id))
    return Questions(records, metrics[0])


def read_files(name: str, settings: DataSettings) -> Questions:
    """The questions of a split from the files that the settings name.

    Raises:
        ValueError: files are missing, or `read_questions` refuses them.
    """
    source = "test" if name == "predict" and settings.files.predict_questions is None else name
    questions = as_list(getattr(settings.files, f"{source}_questions"))
    annotations = [] if name == "predict" else as_list(getattr(settings.files, f"{name}_annotations"))
    if not questions:
        where = "" if settings.folder is None else f"{settings.folder} has no {source}_questions.json: "
        raise ValueError(f"{where}there are no {name} questions; set data.files.{source}_questions")
    if name != "predict" and len(annotations) != len(questions):
        raise ValueError(
            f"{len(questions)} files in data.files.{name}_questions, but {len(annotations)} in "
            f"data.files.{name}_annotations; give one for each"
        )
    return read_questions(name, questions, annotations)


def make_split(
    name: str,
    questions: Questions,
    vocabularies: Vocabularies,
    features: FeatureStore | JoinedStore,
    settings: DataSettings,
    *,
    embeddings: FeatureStore | None,
    max_tokens: int | None,
) -> Split:
    """Encode the questions of a split, and find their images.

    Args:
        name: of the split; only "train" uses `answers.targets` and `answers.known_only`.
        questions: its records.
        vocabularies: words and answers.
        features: the store of the images.
        settings: those of the data module.
        embeddings: the store of question embeddings, if there is no vocabulary of words.
        max_tokens: longer questions are cut.

    Raises:
        ValueError: an image has no features, a question no embeddings, or no training question a known answer.
    """
    words, answers = vocabularies
    targets: Targets = settings.answers.targets if name == "train" else "soft"
    if name == "train" and settings.answers.known_only:
        questions = with_known_answers(questions, answers, targets)
    if settings.skip_missing_images:
        questions = with_features(name, questions, features)
    images = image_positions(
        features,
        [str(record.image_id) for record in questions.records],
        what=f"data.files.{name}_questions",
        fix="extract them, or leave their questions out with data.skip_missing_images",
    )
    if words is not None:
        tokens: Ragged | QuestionEmbeddings = encode_questions(questions.records, words, max_tokens)
    else:
        assert embeddings is not None, "there is one or the other"
        tokens = find_embeddings(questions.records, embeddings)
    dataset = QuestionDataset(tokens, *encode_answers(questions, answers, targets))
    return Split(*questions, images, dataset, features)


def as_list(paths: str | list[str] | None) -> list[str]:
    """Paths of a setting that takes one, several or none."""
    return [] if paths is None else [paths] if isinstance(paths, str) else list(paths)


def image_positions(
    features: FeatureStore | JoinedStore, image_ids: Sequence[str], *, what: str, fix: str
) -> np.ndarray:
    """(N,) int64, the position in a store of the image of each question.

    Raises:
        ValueError: some are missing; the message counts them, and says `what` needs them and how to `fix` it.
    """
    numbers: dict[str, int] = {}
    uses = [numbers.setdefault(image_id, len(numbers)) for image_id in image_ids]
    distinct = list(numbers)
    found = features.positions(distinct)
    if missing := list(itertools.compress(distinct, found < 0)):
        first = f"; its first image is {features.image_id(0)!r}" if len(features) else ""
        raise ValueError(
            f"{features.path}: no features of {len(missing)} of the {len(distinct)} images of {what}, "
            f"for example {', '.join(map(repr, missing[:3]))}{first}; {fix}"
        )
    return found[uses]


def encode_questions(
    records: Sequence[Record], words: Vocabulary | PretrainedTokenizer, max_tokens: int | None
) -> Ragged:
    """The token ids of each question."""
    return Ragged.build(words.encode_all([record.question for record in records], max_tokens=max_tokens), np.int32)


def find_embeddings(records: Sequence[Record], store: FeatureStore) -> QuestionEmbeddings:
    """The token embeddings of each question.

    Raises:
        ValueError: some are missing in the store.
    """
    entries = store.positions([record.question for record in records])
    missing = list(dict.fromkeys(records[number].question for number in np.flatnonzero(entries < 0).tolist()))
    if missing:
        raise ValueError(
            f"{store.path}: no embeddings of {len(missing)} questions, for example {missing[0]!r}; "
            "embed the questions of all splits with `coattn embed`"
        )
    return QuestionEmbeddings(store, entries)


def encode_answers(
    questions: Questions, answers: AnswerVocabulary | AnswerWords, targets: Targets = "soft"
) -> tuple[Ragged, np.ndarray]:
    """The right answers to each question, and the soft score of each.

    An answer is its number in the vocabulary, or the ids of its words, padded to the longest answer.
    """
    ids, scores = [], []
    for record in questions.records:
        # Exact match uses one answer per question, the official metric all of them; a question to predict has none.
        alone = record.answers and (questions.metric == "exact_match" or targets == "single")
        given = [record.answer] if alone else record.answers
        numbers, worth = _worth(given, answers, targets) if given else ([], [])
        ids.append(numbers)
        scores.append(worth)
    if isinstance(answers, AnswerWords):
        longest = max((len(words) for row in ids for words in row), default=1)
        padded = (words + [PAD] * (longest - len(words)) for row in ids for words in row)
        words = np.fromiter(itertools.chain.from_iterable(padded), np.int32).reshape(-1, longest)
        packed = Ragged(words, Ragged.build(scores, np.float32).offsets)
    else:
        packed = Ragged.build(ids, np.int32)
    return packed, Ragged.build(scores, np.float32).values


def _worth(
    given: Sequence[str], answers: AnswerVocabulary | AnswerWords, targets: Targets
) -> tuple[list[Any], list[float]]:
    """The answers to one question that the model can express, as numbers or word ids, and the score of each."""
    if isinstance(answers, AnswerVocabulary):
        return _SCORING[targets](given, answers)
    typed = {answers.key(text): text for text in reversed(given)}
    keys = AnswerVocabulary(list(dict.fromkeys(map(answers.key, given))), form=answers.form)
    scored = zip(*_SCORING[targets](given, keys), strict=True)
    written = [(answers.encode(typed[keys.answers[number]]), worth) for number, worth in scored]
    return [ids for ids, _ in written if ids], [worth for ids, worth in written if ids]


def with_known_answers(questions: Questions, answers: AnswerVocabulary | AnswerWords, targets: Targets) -> Questions:
    """The questions with at least one answer that the model can express.

    Raises:
        ValueError: there are none.
    """
    known = encode_answers(questions, answers, targets)[0].lengths > 0
    if not known.any():
        raise ValueError(f"no training question has an answer among the {len(answers)} of the vocabulary")
    return questions._replace(records=list(itertools.compress(questions.records, known)))


def with_features(name: str, questions: Questions, features: FeatureStore | JoinedStore) -> Questions:
    """The questions of a split whose images have features; a warning counts and names the others.

    Raises:
        ValueError: there are none.
    """
    there = (features.positions([str(record.image_id) for record in questions.records]) >= 0).tolist()
    missing = dict.fromkeys(str(r.image_id) for r, known in zip(questions.records, there, strict=True) if not known)
    if not any(there):
        raise ValueError(f"{features.path}: no image of data.files.{name}_questions has features; extract them")
    if missing:
        rank_zero_warn(
            f"{there.count(False)} of {len(there)} questions of data.files.{name}_questions are left out: "
            f"{len(missing)} images have no features, for example {', '.join(map(repr, list(missing)[:3]))}"
        )
    return questions._replace(records=list(itertools.compress(questions.records, there)))


def check_sources(pairs: Iterable[tuple[dict[str, Any], FeatureStore | JoinedStore]], *, allow: bool) -> None:
    """Check that each store was made by the extractor of the record beside it; with `allow` only warn.

    Raises:
        ValueError: the message names the store and both extractors.
    """
    for wanted, store in pairs:
        try:
            require_same_extractor(wanted, store.record, wanted_by="the model", found_in=str(store.path))
        except ValueError as error:
            if not allow:
                raise ValueError(f"{error}, or let --allow-other-features only warn") from None
            rank_zero_warn(f"{error} (--allow-other-features lets it pass)")
