"""The settings of a run in groups, as they are written under `data` and `model` in a YAML file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from coattn._internal.hints import did_you_mean
from coattn.features.residency.placement import Residency

Paths = str | list[str]
Targets = Literal["soft", "typed", "share", "single"]
Loss = Literal["bce", "cross_entropy", "kl"]
Reduction = Literal["mean", "sum"]
Schedule = Literal["constant", "step", "exponential", "cosine", "one_cycle"]
Warmup = Literal["linear", "stairs"]


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


@dataclass(frozen=True)
class TextEncoderSettings:
    """How a text encoder (`data.text.encoder`) is trained with the model.

    Args:
        frozen_layers: Number of the lowest layers that are not trained. With 1 or more the embeddings are frozen too.
        dropout: Dropout of the text encoder. Its own configuration decides if this is not set.
    """

    frozen_layers: int = 0
    dropout: float | None = None


@dataclass(frozen=True)
class LossSettings:
    """The loss that training minimizes.

    Args:
        name: Loss of an answer, see `coattn.training.objectives.answer_losses`. A model that writes answers needs
            "cross_entropy".
        label_smoothing: Share of each target that is spread over all words, for a model that writes answers.
        reduction: Whether an optimizer step minimizes the mean or the sum of the losses of its questions.
    """

    name: Loss = "bce"
    label_smoothing: float = 0.0
    reduction: Reduction = "mean"


@dataclass(frozen=True)
class OptimizerSettings:
    """The optimizer.

    Args:
        name: Kind of optimizer.
        lr: Peak learning rate.
        lr_scale: Factors of the learning rate by module or parameter name, for example {question_encoder.embedding:
            0.1}. Of nested modules the innermost counts, and 0 freezes.
        betas: Decay rates of Adam's moving averages.
        eps: Constant added outside the square root.
        weight_decay: Weight decay, decoupled for "adamw" and otherwise added to the gradient.
        decay_norms_and_biases: Whether weight decay also applies to biases and to the parameters of norms.
    """

    name: Literal["adam", "adamw", "adamax", "rmsprop"] = "adamw"
    lr: float = 1e-3
    lr_scale: dict[str, float] | None = None
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-8
    weight_decay: float = 0.01
    decay_norms_and_biases: bool = True


@dataclass(frozen=True)
class ScheduleSettings:
    """The learning rate over time, see `coattn.training.optim.learning_rate_factor`.

    Args:
        name: Form of the schedule after the warm-up.
        warmup_epochs: Length of the warm-up in epochs, fractions allowed.
        warmup: Form of the warm-up.
        decay_epochs: Epochs at which the schedule "step" multiplies the learning rate by `decay_rate`.
        decay_rate: Factor of the schedules "step" and "exponential".
        decay_steps: Number of optimizer steps in which the schedule "exponential" decays once by `decay_rate`.
    """

    name: Schedule = "cosine"
    warmup_epochs: float = 0.0
    warmup: Warmup = "linear"
    decay_epochs: list[float] | None = None
    decay_rate: float = 0.2
    decay_steps: int | None = None


@dataclass(frozen=True)
class ExecutionSettings:
    """How the model is computed. These settings do not change what it computes.

    Args:
        compile: Whether to compile the model with `torch.compile`. It takes minutes to start and does not help on a
            CPU.
        checkpoint_activations: Whether to recompute activations in the backward pass, which saves memory and takes a
            third more computation. Only models that are stacks of layers support it.
    """

    compile: bool = False
    checkpoint_activations: bool = False


# Earlier names of settings. YAML files, command lines, keyword arguments and checkpoints may still use them.
MOVED = {
    **{
        f"data.{split}_{kind}": f"data.files.{split}_{kind}"
        for split in ("train", "val", "test")
        for kind in ("questions", "annotations")
    },
    "data.predict_questions": "data.files.predict_questions",
    "data.question_embeddings": "data.text.embeddings",
    "data.text_encoder": "data.text.encoder",
    "data.answers": "data.answers.kind",
    "data.max_answers": "data.answers.max_count",
    "data.min_answer_count": "data.answers.min_count",
    "data.targets": "data.answers.targets",
    "data.known_answers_only": "data.answers.known_only",
    "data.batch_size": "data.batches.size",
    "data.eval_batch_size": "data.batches.eval_size",
    "data.residency": "data.memory.residency",
    "data.residency_budget": "data.memory.budget",
    "model.frozen_layers": "model.text_encoder.frozen_layers",
    "model.text_dropout": "model.text_encoder.dropout",
    "model.loss": "model.loss.name",
    "model.optimizer": "model.optimizer.name",
    "model.schedule": "model.schedule.name",
    **{
        f"{group.partition('.')[0]}.{name}": f"{group}.{name}"
        for group, names in {
            "data.text": "allow_download word_vectors tokenizer max_tokens min_word_count",
            "data.batches": "pool group_by_image flips curriculum",
            "data.memory": "num_workers pin_memory start_method",
            "model.loss": "label_smoothing reduction",
            "model.optimizer": "lr lr_scale betas eps weight_decay",
            "model.schedule": "warmup_epochs warmup decay_epochs decay_rate decay_steps",
            "model.execution": "compile checkpoint_activations",
        }.items()
        for name in names.split()
    },
}


def regroup(section: Literal["data", "model"], settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Settings with those under an earlier name moved into their groups, and the new name of each that was moved.

    A plain value in place of a group (`optimizer: adam`) sets the name or kind of that group.

    Raises:
        ValueError: a setting is given under both names.
    """
    result: dict[str, Any] = {}
    moved: dict[str, str] = {}
    for key, value in settings.items():
        new = MOVED.get(f"{section}.{key}")
        names_group = new is not None and new.split(".")[1] == key
        if new is None or (names_group and not isinstance(value, str)):
            if isinstance(value, Mapping) and isinstance(result.get(key), dict):
                value = {**result[key], **value}
            result[key] = dict(value) if isinstance(value, Mapping) else value
            continue
        _, group, name = new.split(".")
        inside = settings.get(group)
        if isinstance(inside, Mapping) and name in inside:
            raise ValueError(f"{section}.{key} is now {new}, and both are set; remove {section}.{key}")
        result.setdefault(group, {})[name] = value
        moved[f"{section}.{key}"] = new
    return result, moved


def read_groups(
    section: Literal["data", "model"], kinds: Mapping[str, type], given: Mapping[str, Any], moved: Mapping[str, Any]
) -> dict[str, Any]:
    """The groups of a constructor's arguments as dataclasses.

    Args:
        section: which constructor, for messages.
        kinds: the dataclass of each group.
        given: a dataclass, a mapping (as in a checkpoint), None, or the plain name or kind, for each group.
        moved: settings under their earlier names (`MOVED`), which replace those in `given`.

    Raises:
        TypeError: there is no such argument.
        ValueError: a group has no such setting.
    """
    result: dict[str, dict[str, Any]] = {}
    for group, kind in kinds.items():
        value = given[group]
        if isinstance(value, str):
            value = {dataclasses.fields(kind)[0].name: value}
        result[group] = vars(value).copy() if isinstance(value, kind) else dict(value or {})
    for key, value in moved.items():
        if f"{section}.{key}" not in MOVED:
            raise TypeError(f"there is no setting {section}.{key}{did_you_mean(key, [*given, *kinds])}")
        _, group, name = MOVED[f"{section}.{key}"].split(".")
        result[group][name] = value
    for group, kind in kinds.items():
        known = [field.name for field in dataclasses.fields(kind)]
        if unknown := [name for name in result[group] if name not in known]:
            raise ValueError(f"there is no setting {section}.{group}.{unknown[0]}{did_you_mean(unknown[0], known)}")
    return {group: kind(**result[group]) for group, kind in kinds.items()}


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Grouped settings by dotted name; groups are the mappings that `MOVED` names as such."""
    groups = {new.split(".")[1] for new in MOVED.values()}
    result: dict[str, Any] = {}
    for key, value in settings.items():
        inside = value if key in groups and isinstance(value, Mapping) else None
        named = {key: value} if inside is None else {f"{key}.{name}": item for name, item in inside.items()}
        result |= {f"{prefix}{name}": item for name, item in named.items()}
    return result
