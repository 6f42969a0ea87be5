"""Networks on a GPU: the features of the CPU, to rounding, or to that of the precision asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coattn.features.extract.extractors.transformers_grid import TransformersGrid, read_vision_model

pytest.importorskip("torchvision")
pytest.importorskip("transformers")

from coattn.features.extract.extractors.detector import Detector
from coattn.features.extract.extractors.torchvision_grid import TorchvisionGrid

pytestmark = pytest.mark.gpu
TOLERANCE = {"float32": 5e-3, "bf16": 5e-2, "fp16": 1e-2}  # in parts of the largest; convolutions may run in TF32


def photo(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (10, 14, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((70, 50), Image.Resampling.BILINEAR)


@pytest.mark.parametrize("precision", TOLERANCE)
def test_grids(tmp_path: Path, make_vision_model: Callable[..., Path], precision: str) -> None:
    model = read_vision_model(make_vision_model(tmp_path / "m", "dinov2")) | {"size": (40, 64)}
    for make in (
        lambda **run: TorchvisionGrid("resnet18", weights="none", size=(64, 96), scales=(1.0, 0.5), **run),
        lambda **run: TransformersGrid(**model, global_region=True, **run),
    ):
        expected, found_all = (
            extractor([photo(0), photo(1)]) for extractor in (make(), make(device="cuda", precision=precision))
        )
        for found, wanted in zip(found_all, expected, strict=True):
            np.testing.assert_array_equal(found.boxes, wanted.boxes)
            largest = np.abs(wanted.features).max()
            np.testing.assert_allclose(found.features, wanted.features, atol=TOLERANCE[precision] * largest)


@pytest.mark.parametrize("precision", TOLERANCE)
def test_detectors(precision: str) -> None:
    sizes = {"weights": "none", "min_side": 64, "max_side": 96}
    (wanted,) = Detector("fasterrcnn_resnet50_fpn", **sizes)([photo(0)])
    (found,) = Detector("fasterrcnn_resnet50_fpn", **sizes, device="cuda", precision=precision)([photo(0)])
    assert found.features.shape == wanted.features.shape
    assert np.isfinite(found.features).all()
    distances = np.abs(found.boxes - wanted.boxes[int(wanted.scores.argmax())]).max(axis=1)
    assert distances.min() < 0.02  # the surest box is there; the order of the others may be another
