"""Options of the training commands: help, earlier names, safety, a new preset, and mistakes."""

from __future__ import annotations

import inspect
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, get_args

import torch
from jsonargparse import get_loader
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from coattn._internal.hints import did_you_mean, wrong_setting
from coattn.models import GENERATORS, PRESETS
from coattn.nn import CoAttentionStack
from coattn.training.settings import MOVED, regroup

EXAMPLES = {
    "fit": "coattn fit --config configs/easy_vqa.yaml --model.sizes.dim 128 --model.optimizer.lr 1e-3",
    "validate": "coattn validate --config configs/easy_vqa.yaml",
    "test": "coattn test --config configs/easy_vqa.yaml --ckpt_path last",
    "predict": "coattn predict --config configs/easy_vqa.yaml --ckpt_path runs/easy_vqa/model --output results.json",
}
DESCRIPTIONS = {
    "fit": "Train a model. Every setting of the YAML file can be given on the command line too.",
    "validate": "Score a trained model on the validation questions.",
    "test": "Score a trained model on the test questions.",
    "predict": "Write the answers of a trained model to a result file.",
}

# Trainer options that the training commands do not support, and the reason.
REFUSED = {
    "barebones": "it switches off the logs and checkpoints that a run consists of",
    "reload_dataloaders_every_n_epochs": "each epoch has its own order of batches already",
}
_STRATEGIES = ("fsdp", "deepspeed", "modelparallel")  # their checkpoints are split between devices, and ours are whole
_CLASSES = ("callbacks", "logger", "strategy", "plugins", "profiler", "accelerator", "class_path")
_SAFE = ("coattn", "lightning")

_load_yaml = get_loader("yaml")
_noted: set[str] = set()


def read_yaml(stream: str) -> Any:
    """The value of a YAML text, in which settings of a run may have earlier names."""
    value = _load_yaml(stream)
    if isinstance(value, dict):
        for section in ("data", "model"):
            if isinstance(value.get(section), dict):
                value[section], moved = regroup(section, value[section])  # type: ignore[arg-type]
                _note_moved(moved)
    return value


def renamed(argument: str, following: str | None) -> str:
    """An argument of the command line, with the present name of a setting that was given by an earlier one."""
    name, equals, value = argument.partition("=")
    if not name.startswith("--"):
        return argument
    for old in (name[2:], ".".join(name[2:].split(".")[:2])):  # the setting, or an entry of a mapping
        new, rest = MOVED.get(old), name[2:].removeprefix(old)
        names_group = new is not None and new.rpartition(".")[0] == old
        if new is None or (names_group and (rest or (value if equals else following or "").startswith("{"))):
            continue
        _note_moved({old: new})
        return f"--{new}{rest}{equals}{value}"
    return argument


def _note_moved(moved: Mapping[str, str]) -> None:
    """Say once how settings that were given by an earlier name are called now."""
    if new := {old: name for old, name in moved.items() if old not in _noted}:
        _noted.update(new)
        names = ", ".join(f"{old} is now {name}" for old, name in new.items())
        rank_zero_info(f"settings given by earlier names still work: {names}")


def refuse_foreign_classes(value: Any, where: str) -> None:
    """Refuse settings that name a class of another package than coattn and Lightning.

    Raises:
        ValueError: the message has the setting and the class.
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key in _CLASSES:
                _refuse_foreign(inner, f"{where}.{key}".lstrip("."))
            refuse_foreign_classes(inner, f"{where}.{key}".lstrip("."))
    elif isinstance(value, list):
        for inner in value:
            refuse_foreign_classes(inner, where)


def _refuse_foreign(value: Any, where: str) -> None:
    for name in value if isinstance(value, list) else [value]:
        if isinstance(name, str) and re.fullmatch(r"\w+(\.\w+)+", name) and name.split(".")[0] not in _SAFE:
            raise ValueError(f"{where} names the class {name}; --safe allows only classes of coattn and lightning")


def check_safe(arguments: Sequence[str]) -> None:
    """Check what `--safe` promises, in the files and on the command line.

    Raises:
        ValueError: a class of another package is named.
    """
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        value = value if equals else "".join(arguments[place + 1 : place + 2])
        if name in ("--config", "-c") or re.fullmatch(r"--(trainer|model|data|checkpoints)", name):
            text = Path(value).read_text(encoding="utf-8") if Path(value).is_file() else value
        else:
            text = value
        last = name.rstrip("+").split(".")[-1]
        if last in _CLASSES or name.startswith("--trainer."):
            _refuse_foreign(value, name.removeprefix("--"))
        try:
            refuse_foreign_classes(_load_yaml(text), name.removeprefix("--") if "." in name else "")
        except ValueError:
            raise
        except Exception:  # not YAML, so it names no class; the parser reports it
            continue


def try_whole_numbers_first(function: Callable[..., Any]) -> None:
    """Change the annotations of a function, so that its parser tries int before float.

    The parser takes the first type that fits. `typing` may return Optional[Union[int, float]] in the order of an equal
    type that another module made before; "1" for `limit_val_batches` would then be 1.0, which means all batches (Python
    3.11, jsonargparse 4.53, lightning 2.6; see findings/lightning_one_batch_is_all.sh).
    """
    for name, hint in function.__annotations__.items():
        kinds = get_args(hint)
        if int in kinds and float in kinds:
            function.__annotations__[name] = reduce(operator.or_, sorted(kinds, key=lambda kind: kind is not int))


def check_trainer(trainer: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse options of the Trainer that do not mean here what they say.

    Raises:
        ValueError: the message has the option and the reason.
    """
    for name, reason in REFUSED.items():
        if trainer[name] != defaults[name]:
            raise ValueError(f"trainer.{name} is not supported, because {reason}; remove it")
    strategy = trainer["strategy"]
    name = strategy if isinstance(strategy, str) else str(getattr(strategy, "class_path", ""))
    if any(part in name.lower() for part in _STRATEGIES):
        raise ValueError(
            f"trainer.strategy {name!r} is not supported; use ddp, which keeps the whole model on each device, and "
            "--model.execution.checkpoint_activations true if memory is short"
        )


def explain_mistake(message: str, arguments: Sequence[str], known: Sequence[str]) -> str:
    """A parser's message, with what the user should do.

    Args:
        message: of the parser.
        arguments: the command line.
        known: names of all settings.
    """
    if link := re.search(r"data\.\w+ --> (model\.\w+)", message):
        return f"{link[1]} follows from the data; remove it"
    if message.startswith("Problems parsing config"):
        files = " ".join(argument for argument in arguments if argument.endswith((".yaml", ".yml", ".json")))
        return f"{files}: not valid YAML: {' '.join(message.split())}"
    if message.startswith("Unexpected config"):
        return "the file after --config is not a YAML mapping of settings; `coattn configs` lists good ones"
    unknown = re.search(r"unrecognized arguments: --([\w.-]+)|does not accept option '([\w.-]+)'", message)
    if unknown is None:
        return wrong_setting(message)
    name = unknown[1] or unknown[2]
    return f"there is no setting {name!r}{did_you_mean(name, known)}"


def adapt_to_preset(config: Any, arguments: Sequence[str], files: Sequence[str]) -> list[str]:
    """Leave out settings that do not suit a preset which the command line puts in place of the YAML file's.

    Args:
        config: the parsed settings, which are changed.
        arguments: the command line.
        files: YAML files of the configuration.

    Returns:
        Names of the settings that were left out or changed, for a note.
    """
    chosen = [name for argument in arguments if (name := argument.partition("=")[0]).startswith("--model.")]
    written = [((read_yaml(Path(file).read_text(encoding="utf-8")) or {}).get("model") or {}) for file in files]
    before = [model["preset"] for model in written if model.get("preset")]
    preset = config.model.preset
    builder: Any = (PRESETS | GENERATORS).get(preset)
    if "--model.preset" not in chosen or builder is None or not before or before[-1] == preset:
        return []
    notes = []
    known = inspect.signature(builder).parameters
    sizes = dict(config.model.sizes or {})
    if "--model.sizes" not in chosen:
        dropped = [name for name in sizes if name not in known and f"--model.sizes.{name}" not in chosen]
        sizes = {name: value for name, value in sizes.items() if name not in dropped}
        config.model.sizes = sizes
        notes += [f"model.sizes.{name}" for name in dropped]
    kind = "words" if preset in GENERATORS else "choices"
    if config.data.answers.kind != kind:
        config.data.answers.kind = kind
        config.data.answers.max_count = None
        config.model.loss.label_smoothing = 0.0
        config.model.loss.name = "cross_entropy"
        notes.append(f"data.answers.kind (now {kind})")
    execution, scales = config.model.execution, dict(config.model.optimizer.lr_scale or {})
    if execution.checkpoint_activations or scales:
        count = {"num_answer_words" if kind == "words" else "num_answers": 8}
        with torch.device("meta"):
            model = builder(**sizes, num_words=8, region_dim=8, **count)
        if execution.checkpoint_activations and not isinstance(model.coattention, CoAttentionStack):
            execution.checkpoint_activations = False
            notes.append("model.execution.checkpoint_activations")
        parts = {name for name, _ in [*model.named_modules(), *model.named_parameters()]}
        lost = [name for name in scales if name not in parts and not name.startswith("question_encoder.transformer")]
        config.model.optimizer.lr_scale = {name: value for name, value in scales.items() if name not in lost} or None
        notes += [f"model.optimizer.lr_scale.{name}" for name in lost]
    return notes
