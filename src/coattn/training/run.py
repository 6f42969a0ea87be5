"""One of the models of `coattn.train`: its configuration, its folder, and how it resumes."""

from __future__ import annotations

import copy
import hashlib
import inspect
import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from coattn._internal.configs import find_config
from coattn._internal.files import read_json, require_regular, write_json, write_text
from coattn.datasets.prepared import Dataset
from coattn.models import GENERATORS, question_only
from coattn.training.cli.commands import run as run_command
from coattn.training.settings import regroup

# Settings of the data that say where files are. `coattn.train` sets them.
_FILES = ("folder", "features", "files")
# In this order a finished model is moved away: train.json last, so that an interrupted move is completed later.
_MADE = (
    "checkpoints",
    "logs",
    "model",
    "predictions",
    "config.yaml",
    "report.md",
    "report.html",
    "scores.json",
    "train.json",
)


def read_config(config: str | os.PathLike[str]) -> dict[str, Any]:
    """A configuration, by its file or by its name in `coattn configs`, without its file names.

    Raises:
        ValueError: There is no such configuration, it is not valid YAML, or its model writes answers word by word.
        OSError: The file cannot be read.
    """
    path = Path(config)
    if not path.exists() and path.suffix not in (".yaml", ".yml"):
        path = find_config(str(config))
    require_regular(path)
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    parts = ("trainer", "data", "model")
    if not isinstance(value, dict) or not all(isinstance(value.get(name, {}), dict) for name in parts):
        raise ValueError(f"{path}: a configuration has the parts trainer, data and model; see coattn configs")
    preset = value.get("model", {}).get("preset")
    if preset in GENERATORS:
        raise ValueError(f"{path}: the preset {preset!r} writes answers; coattn train takes models that choose them")
    data, model = (regroup(name, value.get(name, {}))[0] for name in ("data", "model"))
    data = {name: setting for name, setting in data.items() if name not in _FILES}
    data.get("text", {}).pop("embeddings", None)
    return {**value, "trainer": dict(value.get("trainer", {})), "data": data, "model": model}


def fit_to_data(
    config: Mapping[str, Any], num_questions: int, *, epochs: int | None, seed: int, default: bool
) -> dict[str, Any]:
    """A configuration for this number of training questions.

    Args:
        config: From `read_config`.
        num_questions: The number of training questions.
        epochs: The number of epochs; None keeps that of the configuration, or chooses it for the default one.
        seed: Seeds training.
        default: Whether the user left the configuration to us. Few questions then get smaller batches and more epochs,
            so that about a thousand steps are taken.
    """
    chosen = copy.deepcopy(dict(config))
    chosen["seed_everything"] = seed
    if default:
        size = next(size for size in (8, 16, 32, 64) if size == 64 or num_questions <= 50 * size)
        chosen["data"]["batches"] = {**chosen["data"].get("batches", {}), "size": size}
        chosen["trainer"]["max_epochs"] = max(20, min(60, 1000 * size // num_questions))
    if epochs is not None:
        chosen["trainer"]["max_epochs"] = epochs
    return chosen


def question_only_twin(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same configuration for a model that sees no image: its sizes, as far as `question_only` has them."""
    twin = copy.deepcopy(dict(config))
    sizes = twin["model"].get("sizes") or {}
    known = inspect.signature(question_only).parameters
    kept = {name: value for name, value in sizes.items() if name in known}
    if "layers" in sizes:
        kept["num_layers"] = len(sizes["layers"]) * sizes.get("num_layers", 1)
    twin["model"] |= {"preset": "question_only", "sizes": kept}
    return twin


def with_paths(config: Mapping[str, Any], root: Path, paths: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration that writes into `root` and reads the data from `paths`."""
    trainer = {
        "enable_model_summary": False,
        "log_every_n_steps": 10,
        **config["trainer"],
        "default_root_dir": str(root),
    }
    data = {**config["data"], **paths}
    if "text" in paths:
        data["text"] = {**config["data"].get("text", {}), **paths["text"]}
    return {**config, "trainer": trainer, "data": data}


@dataclass(frozen=True)
class Run:
    """One of the two models: where it is, how it is configured, and which extractor described its images."""

    name: str
    root: Path
    file: Path
    config: dict[str, Any]
    extractor: Mapping[str, Any]

    def identity(self, dataset: Dataset, encoder: object) -> dict[str, Any]:
        """All that decides what the trained model is. It is kept as JSON and compared with a later call's."""
        records = {split: [asdict(record) for record in records] for split, records in dataset.splits.items()}
        text = json.dumps([dataset.metric, records], sort_keys=True, default=str)
        weights = self.extractor.get("weights") or {}
        value = {
            **self.config,
            "extractor": {"name": self.extractor.get("name"), "settings": self.extractor.get("settings"), **weights},
            "encoder": None if encoder is None else str(encoder),
            "questions": hashlib.sha256(text.encode()).hexdigest()[:16],
        }
        return json.loads(json.dumps(value))

    def refuse_interrupted(self, identity: Mapping[str, Any]) -> None:
        """Refuse a folder with unfinished work of other settings; settings that are not known yet are not compared.

        Raises:
            ValueError: An interrupted run of other settings, or a run of another command, is in the folder.
        """
        state, checkpoints = self._state(), self.root / "checkpoints"
        settings = {name: state.get("settings", {}).get(name) for name in identity}
        if not checkpoints.exists() or state.get("done") or settings == identity:
            return
        if not state:
            raise ValueError(f"{self.root} holds a run that coattn train did not begin; give another folder")
        then, now = dict(_flat(settings)), dict(_flat(identity))
        names = [name for name in then | now if then.get(name) != now.get(name)]
        changed = "; ".join(f"{name} {then.get(name)} then, {now.get(name)} now" for name in names[:3])
        raise ValueError(
            f"{self.root} holds an interrupted run with other settings ({changed}); finish it with those settings, "
            f"give another folder, or remove {checkpoints} to give it up"
        )

    def finish(self, identity: Mapping[str, Any], files: Mapping[str, Any], split: str) -> list[list[str]]:
        """Train and judge the model, resume, or keep a finished one that fits; returns the commands of that."""
        judge = {"test": "test", "val": "validate"}[split]
        fit = ["fit", "--config", str(self.file), "--resume"]
        test = [judge, "--config", str(self.file), "--ckpt_path", str(self.root / "model")]
        state, answers = self._state(), self.root / "predictions" / f"{split}.json"
        same = state.get("settings") == identity
        if same and state["done"] and (self.root / "model").exists() and answers.exists():
            tell("      the finished model fits these settings and is kept")
            return [fit, test]
        if not same and state.get("done"):
            tell(f"      the finished model of other settings is now in {self._put_aside()}")
        self.root.mkdir(parents=True, exist_ok=True)
        write_json(self.root / "train.json", {"settings": identity, "done": False}, indent=1)
        write_text(self.file, yaml.safe_dump(with_paths(self.config, self.root, files), sort_keys=False))
        run_command(fit, hints=False)
        with redirect_stdout(io.StringIO()):  # the comparison at the end shows these scores
            run_command(test)
        write_json(self.root / "train.json", {"settings": identity, "done": True}, indent=1)
        return [fit, test]

    def _state(self) -> dict[str, Any]:
        """The settings of the models that are there and whether they are finished; empty if nothing was begun."""
        path = self.root / "train.json"
        return read_json(path) if path.exists() else {}

    def _put_aside(self) -> Path:
        """Move a finished model out of the way."""
        folder = next(folder for n in count(1) if not (folder := self.root / "earlier" / str(n)).exists())
        folder.mkdir(parents=True)
        for name in _MADE:
            if (self.root / name).exists():
                (self.root / name).rename(folder / name)
        return folder


def tell(line: str) -> None:
    """Print a line at once, so that a log shows how far a killed run was."""
    print(line, flush=True)


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested settings by their dotted names."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else key)
    else:
        yield name, value
