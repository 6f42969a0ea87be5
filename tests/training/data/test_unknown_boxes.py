"""Batches of a feature store that knows no boxes and no image sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from stores import RECORD

from coattn.features.residency.features import Features
from coattn.features.store.reader import FeatureStore, StoreWriter
from coattn.training.data.batches import Draw, Texts, make_batch


def test_unknown_boxes_and_sizes_reach_no_model(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "a.h5", dim=2, record=RECORD) as writer:
        writer.add("x", np.ones((3, 2)))
    store = FeatureStore(tmp_path / "a.h5")
    one = torch.ones(1, dtype=torch.int64)
    texts = Texts(one[None], one[None] > 0, one, one, one.float(), one)
    draw = Draw(np.array([0]), np.array([0]), 1.0)
    batch = make_batch(draw, texts, Features(store))
    assert batch.boxes is None
    assert batch.image_sizes is None
    assert batch.regions.shape == (1, 3, 2)
