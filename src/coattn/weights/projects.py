"""The projects whose checkpoint files can be converted to model directories: one row of `PROJECTS` each.

Layouts are taken from the projects' source; their released files have not been tried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from coattn.nn import VQAModel

from .dcn import from_dcn
from .hengyuan import from_hengyuan
from .mcan_vqa import from_mcan_vqa
from .openvqa import from_openvqa

Load = Callable[..., VQAModel]


class Task(NamedTuple):
    """The settings of a project for one data set.

    Attributes:
        extractor: name of the extractor of the region features.
        metric: the metric of the answers.
        num_tokens: number of words to which questions are padded or cut; None for that of the longest question.
        num_regions: number of regions to which images are padded or cut; None for a grid.
        softmax: answers exclude each other.
    """

    extractor: str = "bottom-up"
    metric: str = "vqa_accuracy"
    num_tokens: int | None = 14
    num_regions: int | None = 100
    softmax: bool = False


VQA = Task()
GQA = Task("gqa-objects", "exact_match", None, 100, softmax=True)
CLEVR = Task("clevr-grid", "exact_match", None, None, softmax=True)


class Project(NamedTuple):
    """A project whose checkpoints can be converted.

    Attributes:
        source: the repository and commit whose source the layouts are taken from.
        load: `(weights, settings, *, repaired, num_tokens, num_regions) -> VQAModel`.
        specials: the tokens before the words of its dictionary (padding, unknown words, ...); empty if the dictionary
            has words only.
        tokenizer: its tokenizer of questions, a name of `coattn.text.tokenizer.TOKENIZERS`.
        models: its names of models, and the settings that each name implies.
        tasks: its tasks, by data set.
        settings: the place of the settings that the weights do not imply: a "file", the "checkpoint" (or a file), or
            "none" if there are no such settings.
        own_vectors: its word vectors are in its checkpoint; otherwise frozen ones are read from a file.
    """

    source: str
    load: Load
    specials: tuple[str, ...] = ()
    tokenizer: str = "plain"
    models: Mapping[str, Mapping[str, Any]] = {}
    tasks: Mapping[str, Task] = {"vqa": VQA}
    settings: Literal["file", "checkpoint", "none"] = "file"
    own_vectors: bool = True


# By the names of openvqa's YAML files; their sizes are not repeated here.
OPENVQA_MODELS: dict[str, dict[str, Any]] = {
    **{f"mcan{size}": {"MODEL_USE": "mcan"} for size in ("", "_small", "_large")},
    "butd": {"MODEL_USE": "butd"},
    **{f"ban{size}": {"MODEL_USE": "ban"} for size in ("", "_4", "_8")},
    "mfb": {"MODEL_USE": "mfb", "HIGH_ORDER": False},
    "mfh": {"MODEL_USE": "mfb", "HIGH_ORDER": True},
    **{f"mmnasnet{size}": {"MODEL_USE": "mmnasnet"} for size in ("", "_small", "_large")},
}


def _load_hengyuan(weights: Mapping[str, Tensor], settings: Mapping[str, Any], **padding: Any) -> VQAModel:
    """Convert hengyuan-hu's model to our ids: padding (its last row) comes first, then zeros for unknown words."""
    name = "w_emb.emb.weight"
    if (rows := weights.get(name)) is not None and rows.dim() == 2:
        weights = {**weights, name: torch.cat((rows[-1:], torch.zeros_like(rows[:1]), rows[:-1]))}
    return from_hengyuan(weights, padding_id=0, **padding)


PROJECTS: dict[str, Project] = {
    "openvqa": Project(
        source="MILVLG/openvqa, commit f8f9966",
        load=from_openvqa,
        specials=("PAD", "UNK", "CLS"),
        models=OPENVQA_MODELS,
        tasks={"vqa": VQA, "gqa": GQA, "clevr": CLEVR},
    ),
    "mcan-vqa": Project(
        source="MILVLG/mcan-vqa, commit 6b165e9",
        load=from_mcan_vqa,
        specials=("PAD", "UNK"),
    ),
    "hengyuan": Project(
        source="hengyuan-hu/bottom-up-attention-vqa, commit 3925206",
        load=_load_hengyuan,
        tokenizer="possessives",
        tasks={"vqa": Task(num_regions=36)},
        settings="none",
    ),
    "dcn": Project(
        source="cvlab-tohoku/Dense-CoAttention-Network, commit 0bc2c2b",
        load=from_dcn,
        tokenizer="treebank",
        settings="checkpoint",
        own_vectors=False,
    ),
}
