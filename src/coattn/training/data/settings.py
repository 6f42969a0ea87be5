"""The settings of the data in groups, as they are written under `data` in a YAML file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict, get_args

from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from coattn.features.residency.placement import Residency

Paths = str | list[str]
Targets = Literal["soft", "typed", "share", "single"]


class Curriculum(TypedDict):
    """Which questions come first, and for how long.

    Attributes:
        question_types: the `question_type` of the easy questions.
        epochs: number of epochs, fractions allowed, that show only these questions.
    """

    question_types: list[str]
    epochs: float


@dataclass(frozen=True)
class Files:
    """Question and annotation files in the official VQA v2 JSON.

    Args:
        train_questions: Questions to train on. Several files are read as one. An empty list means none.
        train_annotations: Answers to the training questions, one file for each file of questions.
        val_questions: Questions to validate on. An empty list trains without validation.
        val_annotations: Answers to the validation questions.
        test_questions: Questions to test on.
        test_annotations: Answers to the test questions. They are not needed by `predict`.
        predict_questions: Questions to predict. The test questions are used if this is not set.
    """

    train_questions: Paths | None = None
    train_annotations: Paths | None = None
    val_questions: Paths | None = None
    val_annotations: Paths | None = None
    test_questions: Paths | None = None
    test_annotations: Paths | None = None
    predict_questions: Paths | None = None


@dataclass(frozen=True)
class TextSettings:
    """How questions become tokens.

    Args:
        tokenizer: How questions are split into words, a name of `coattn.text.tokenizer.TOKENIZERS`.
        max_tokens: Longer questions are cut at the end. A text encoder has its own limit if this is not set.
        min_word_count: A word enters the vocabulary if it occurs at least this often in the training questions.
        embeddings: Store of token embeddings written by `coattn embed`, used instead of a vocabulary of words.
        encoder: Folder or name of a `transformers` text encoder that is trained with the model, instead of a
            vocabulary.
        allow_download: Whether a text encoder that is given by name may be downloaded from the Hub.
        word_vectors: File of word vectors (GloVe text, or JSON from word to numbers) that initialize the word
            embeddings. Their width must equal the model's `embedding_dim`.
    """

    tokenizer: str = "plain"
    max_tokens: int | None = None
    min_word_count: int = 1
    embeddings: str | None = None
    encoder: str | None = None
    allow_download: bool = False
    word_vectors: str | None = None


@dataclass(frozen=True)
class AnswerSettings:
    """Which answers a model can give, and what each is worth in training.

    Args:
        kind: "choices" for a model that chooses an answer of a vocabulary, "words" for one that writes it word by
            word.
        max_count: Size of the answer vocabulary, the most frequent answers. All answers are kept if this is not set.
        min_count: An answer (with "words": a word of an answer) needs at least this many occurrences in training.
        targets: Target of an answer in training. "soft" is the official accuracy of the answer, "typed" the same
            without bringing answers to their normal form, "share" the share of people who gave it, and "single" is 1
            for the one answer that the data set names. All other splits are scored by "soft".
        known_only: Whether to leave out training questions none of whose answers is in the vocabulary.
    """

    kind: Literal["choices", "words"] = "choices"
    max_count: int | None = None
    min_count: int = 1
    targets: Targets = "soft"
    known_only: bool = False


@dataclass(frozen=True)
class BatchSettings:
    """How questions are grouped into batches.

    Args:
        size: Maximum number of questions in a training batch, summed over all devices.
        eval_size: Maximum number of questions in a batch outside training. It is twice `size` if not set.
        pool: Number of optimizer steps that are filled together with questions of similar size, which saves padding.
            A pool of 1 mixes all sizes.
        group_by_image: Whether the questions of one image come together, so that it is read from disk only once per
            epoch.
        flips: Whether to mirror each training image with probability 1/2, except for questions that name left or
            right. The store must hold the mirrored images (`coattn extract --flips`).
        curriculum: Question types that are shown alone at first, as `{question_types: [...], epochs: 0.5}`.
    """

    size: int = 64
    eval_size: int | None = None
    pool: int = 16
    group_by_image: bool = False
    flips: bool = False
    curriculum: Curriculum | None = None


@dataclass(frozen=True)
class MemorySettings:
    """Where features are kept, and how texts are read.

    Args:
        residency: Where features are kept: "device", "pinned", "mmap", or "auto" to choose by the free memory.
        budget: Maximum gigabytes of features on the GPU, or in RAM on the CPU. It follows from the free memory if not
            set.
        num_workers: Number of processes that read texts ahead. Texts are small, so 0 is usually fastest.
        pin_memory: Whether texts are read into page-locked memory. The default is true on a GPU.
        start_method: How workers are started. The platform's default is used if this is not set.
    """

    residency: Residency = "auto"
    budget: float | None = None
    num_workers: int = 0
    pin_memory: bool | None = None
    start_method: Literal["fork", "spawn", "forkserver"] | None = None


@dataclass(frozen=True)
class DataSettings:
    """All settings of a `VQADataModule`, which documents them; paths that follow from `folder` are filled in."""

    folder: str | None
    features: Paths
    files: Files
    text: TextSettings
    answers: AnswerSettings
    batches: BatchSettings
    memory: MemorySettings
    vocabulary_from: str | None
    allow_other_features: bool
    skip_missing_images: bool
    seed: int | None

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other, and warn of settings without effect."""
        text, answers = self.text, self.answers
        for name, value, known in (
            ("answers.kind", answers.kind, ("choices", "words")),
            ("answers.targets", answers.targets, get_args(Targets)),
            ("memory.residency", self.memory.residency, get_args(Residency)),
        ):
            if value not in known:
                raise ValueError(f"data.{name} must be one of {', '.join(known)}, got {value!r}")
        if answers.kind == "words" and answers.max_count is not None:
            raise ValueError(
                f"data.answers.max_count is {answers.max_count}, but data.answers.kind 'words' "
                "has no answer vocabulary; remove it"
            )
        if (self.memory.budget or 0) < 0:
            raise ValueError(f"data.memory.budget is {self.memory.budget} GB, it must not be negative")
        split = (text.tokenizer, text.min_word_count)
        if text.embeddings is not None and (*split, text.max_tokens) != ("plain", 1, None):
            rank_zero_warn("data.text.tokenizer, min_word_count and max_tokens have no effect on data.text.embeddings")
        if text.encoder is not None and split != ("plain", 1):
            rank_zero_warn("data.text.tokenizer and min_word_count have no effect with data.text.encoder")


def files_of(folder: str | None, files: Files) -> Files:
    """The files of each split: those that are set, else those that `coattn prepare` wrote into `folder`, if any."""
    if folder is None:
        return files
    found: dict[str, Paths] = {}
    for split in ("train", "val", "test"):
        names = [f"{split}_questions", f"{split}_annotations"]
        if getattr(files, names[0]) is None:
            found |= {name: str(path) for name in names if (path := Path(folder, f"{name}.json")).exists()}
    given = {name: value for name, value in dataclasses.asdict(files).items() if value is not None}
    return Files(**found | given)
