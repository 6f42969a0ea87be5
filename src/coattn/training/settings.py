"""The settings of a run in groups, as written under `model` in a YAML file, and the earlier names of all settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from coattn._internal.hints import did_you_mean
from coattn.serialization.versions import rename_arguments

Loss = Literal["bce", "cross_entropy", "kl"]
Reduction = Literal["mean", "sum"]
Schedule = Literal["constant", "step", "exponential", "cosine", "one_cycle"]
Warmup = Literal["linear", "stairs"]


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
        value = rename_arguments(value) if key == "sizes" else value
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
