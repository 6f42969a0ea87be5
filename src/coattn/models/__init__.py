"""Presets: named models as plain functions that spell out the numbers of each architecture.

Every preset takes, by keyword, `region_dim`, `num_answers`, and `num_words` (token ids) or `question_dim` (given token
embeddings), then its own sizes. A preset named after a layer is a modern stack of that layer (`stacks`). A preset named
after a paper is the model of that paper, one file per paper.

A paper's model is *repaired* by default: it masks all padding. With `faithful=True` it sees padding wherever the
authors' code did not mask it (`OriginalPadding`). `padded_tokens` and `padded_regions` are then the lengths to which
that code padded; None keeps the lengths of the batch.
"""

from __future__ import annotations

from collections.abc import Callable

from coattn.nn import VQAGenerator, VQAModel

from .ban import ban
from .butd import butd, butd_hengyuan
from .dcn import dcn
from .generator import generator
from .hiecoatt import hiecoatt_alternating, hiecoatt_parallel
from .mcan import mcan_large, mcan_small
from .mfb import mfb, mfh
from .mmnasnet import mmnasnet_large, mmnasnet_small
from .original_padding import OriginalPadding
from .question_only import question_only
from .stacks import (
    LAYERS,
    alternating,
    dense,
    make_layer,
    make_question_encoder,
    modular,
    parallel,
    stack,
)

PRESETS: dict[str, Callable[..., VQAModel]] = {
    "parallel": parallel,
    "alternating": alternating,
    "dense": dense,
    "modular": modular,
    "stack": stack,
    "hiecoatt_parallel": hiecoatt_parallel,
    "hiecoatt_alternating": hiecoatt_alternating,
    "dcn": dcn,
    "mcan_small": mcan_small,
    "mcan_large": mcan_large,
    "butd": butd,
    "butd_hengyuan": butd_hengyuan,
    "ban": ban,
    "mfb": mfb,
    "mfh": mfh,
    "mmnasnet_small": mmnasnet_small,
    "mmnasnet_large": mmnasnet_large,
    "question_only": question_only,
}

# Models that write their answers. They take `num_answer_words` instead of `num_answers`.
GENERATORS: dict[str, Callable[..., VQAGenerator]] = {"generator": generator}

# Arguments of presets that follow from the data. A configuration does not name them.
FROM_DATA = ("num_words", "question_dim", "region_dim", "num_answers", "num_answer_words")

__all__ = [
    "FROM_DATA",
    "GENERATORS",
    "LAYERS",
    "PRESETS",
    "OriginalPadding",
    "alternating",
    "ban",
    "butd",
    "butd_hengyuan",
    "dcn",
    "dense",
    "generator",
    "hiecoatt_alternating",
    "hiecoatt_parallel",
    "make_layer",
    "make_question_encoder",
    "mcan_large",
    "mcan_small",
    "mfb",
    "mfh",
    "mmnasnet_large",
    "mmnasnet_small",
    "modular",
    "parallel",
    "question_only",
    "stack",
]
