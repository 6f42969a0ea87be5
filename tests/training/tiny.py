"""A tiny data set with everything ragged: images of 2 to 6 regions, questions of 2 to 6 words."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import numpy as np
import torch
import yaml

from coattn.datasets.records import Record
from coattn.datasets.vqa_json import write_vqa
from coattn.features.store.reader import StoreWriter
from coattn.models import PRESETS
from coattn.training.data.module import VQADataModule
from coattn.training.settings import regroup

COLORS = ("red", "green", "blue")
RECORD = {"name": "test", "settings": {"size": 8}, "weights": None, "versions": {}}
SIZES = {"train": 44, "val": 13, "test": 11}

SMALL = {
    "embedding_dim": 8,
    "dim": 16,
    "image_dim": 16,
    "recurrent_dim": 8,
    "num_layers": 1,
    "num_heads": 2,
    "relation_heads": 2,
    "ffn_dim": 16,
    "pooling_dim": 8,
    "joint_dim": 16,
    "hidden_dim": 16,
    "classifier_dim": 16,
}


def small_sizes(preset: str) -> dict:
    """Small values for those of the common sizes that a preset has."""
    known = inspect.signature(PRESETS[preset]).parameters
    return {name: size for name, size in SMALL.items() if name in known}


def write_store(path: Path, image_ids: list[str], *, dim: int = 8, record: dict = RECORD, flips: bool = False) -> Path:
    """A store whose first features tell the color of the image."""
    random = np.random.default_rng(0)
    with StoreWriter(path, dim=dim, record=record) as writer:
        for number, image_id in enumerate(image_ids):
            features = random.normal(size=(2 + number % 5, dim)).astype(np.float32)
            features[:, : len(COLORS)] = 3 * np.eye(len(COLORS))[number % len(COLORS)]
            boxes = np.sort(random.random((len(features), 2, 2)), axis=1).reshape(-1, 4).astype(np.float32)
            writer.add(image_id, features, boxes, (40, 30))
            if flips:
                writer.add(f"{image_id}#flip", -features, boxes, (40, 30))
    return path


def records(split: str, image_ids: list[str], *, answers_each: int = 1) -> list[Record]:
    """Questions whose answer is the color of the image, or whether it is red."""
    found = []
    for number in range(SIZES[split]):
        image = number % len(image_ids)
        color = COLORS[image % len(COLORS)]
        padding = "please " * (number % 4)
        question, answer, kind = f"{padding}what colour?", color, "colour"
        if number % 2:
            question, answer, kind = f"{padding}is it red?", "yes" if color == "red" else "no", "yes/no"
        answers = (
            tuple(answer if voter else "other" for voter in range(answers_each)) if answers_each > 1 else (answer,)
        )
        found.append(
            Record(
                number + 1000 * len(split), image_ids[image], question, answers, answer_type=kind, question_type=kind
            )
        )
    return found


def write_data(folder: Path, *, flips: bool = False, answers_each: int = 1) -> Path:
    """Questions and annotations of three splits, and one feature store for all."""
    metric = "exact_match" if answers_each == 1 else "vqa_accuracy"
    images = {split: [f"{split}/{number}" for number in range(9)] for split in SIZES}
    for split, ids in images.items():
        write_vqa(folder, split, records(split, ids, answers_each=answers_each), info={"metric": metric})
    write_store(folder / "features.h5", [image for ids in images.values() for image in ids], flips=flips)
    return folder


def settings(data: Path, root: Path) -> dict:
    """A run of a few seconds, with dropout so that random numbers matter."""
    files = {
        f"{split}_{kind}": str(data / f"{split}_{kind}.json")
        for split in SIZES
        for kind in ("questions", "annotations")
    }
    return {
        "seed_everything": 3,
        "trainer": {
            "accelerator": "cpu",
            "max_epochs": 3,
            "gradient_clip_val": 1.0,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "log_every_n_steps": 1,
            "default_root_dir": str(root),
        },
        "data": {"features": str(data / "features.h5"), "files": files, "batches": {"size": 8, "pool": 2}},
        "model": {
            "preset": "modular",
            "sizes": {"num_layers": 1, "dim": 16, "num_heads": 2, "embedding_dim": 8, "dropout": 0.2},
            "optimizer": {"lr": 5e-3},
            "schedule": {"name": "one_cycle", "warmup_epochs": 0.5},
        },
    }


def merge(old: object, new: object) -> object:
    """Settings with some of them changed, at any depth."""
    if isinstance(old, dict) and isinstance(new, dict):
        return old | {key: merge(old.get(key), value) for key, value in new.items()}
    return new


def set_batch_size(data: VQADataModule, size: int) -> None:
    """Change the size of training batches."""
    data.settings = dataclasses.replace(data.settings, batches=dataclasses.replace(data.settings.batches, size=size))


def change(config: Path, path: Path, sections: dict) -> Path:
    """Write the configuration with some settings changed to `path`."""
    sections = {
        name: regroup(name, section)[0] if name in ("data", "model") else section for name, section in sections.items()
    }
    path.write_text(yaml.safe_dump(merge(yaml.safe_load(config.read_text()), sections)))
    return path


def plain_descent(parameters: object, lr: float, **_: object) -> torch.optim.SGD:
    """Keeps rounding small, where Adam divides gradients that are nothing but rounding by their own size."""
    return torch.optim.SGD(parameters, lr=lr)  # type: ignore[arg-type]
