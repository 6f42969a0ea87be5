"""Networks that onnxruntime runs: equal to torch, in every size and any batch, and refused where they cannot run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from coattn.features.extract.extractors.efficientnet_lite import EfficientNetLite
from coattn.features.extract.extractors.onnx_network import OnnxNetwork
from coattn.features.extract.run import extract
from coattn.features.store.provenance import same_extractor
from coattn.features.store.reader import FeatureStore

pytest.importorskip("onnxscript", reason="the extra export is not installed")
pytest.importorskip("onnxruntime", reason="the extra export is not installed")


def test_a_network_computes_as_in_torch() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU6(), nn.Conv2d(8, 4, 1)).eval()
    sizes = [(32, 24), (16, 12)]
    exported = OnnxNetwork(network, sizes)
    with torch.inference_mode():
        for size in sizes:
            for count in (1, 3):
                # As an extractor passes images: the channels are last in memory.
                images = torch.rand(count, *size, 3).permute(0, 3, 1, 2)
                torch.testing.assert_close(exported(images), network(images), atol=1e-6, rtol=1e-5)


class Branching(nn.Module):
    """A network whose path depends on its input."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images if images.sum() > 0 else -images


def test_a_network_that_cannot_be_exported_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be exported for onnxruntime"):
        OnnxNetwork(Branching(), [(8, 8)])


@pytest.mark.parametrize("setting", [{"precision": "bf16"}, {"compile": True}, {"device": "meta"}])
def test_other_devices_and_precisions_are_refused(setting: dict) -> None:
    with pytest.raises(ValueError, match="onnxruntime runs networks on a CPU"):
        EfficientNetLite("lite0", weights="none", onnxruntime=True, **setting)


@pytest.mark.slow
def test_features_are_those_of_torch(tmp_path: Path) -> None:
    settings = {"weights": "none", "size": (64, 96), "scales": (1.0, 0.5)}
    torch_run, exported = (EfficientNetLite("lite0", onnxruntime=chosen, **settings) for chosen in (False, True))
    assert same_extractor(torch_run.record, exported.record)
    assert "onnxruntime" in exported.record["versions"]
    images = {}
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 256, (50, 70, 3), dtype=np.uint8)
        images[f"{number}"] = tmp_path / f"{number}.png"
        Image.fromarray(pixels).save(images[f"{number}"])
    for name, extractor in (("torch", torch_run), ("exported", exported)):
        extract(images, tmp_path / name, extractor, dtype="float32", images_per_unit=3, progress=False)
    one, other = FeatureStore(tmp_path / "torch"), FeatureStore(tmp_path / "exported")
    for number in range(5):
        expected = one.read(number).features
        np.testing.assert_allclose(other.read(number).features, expected, atol=1e-5 * np.abs(expected).max(), rtol=1e-4)
    # An extraction that began with one continues with the other.
    next((tmp_path / "torch").glob("shard-00001*")).unlink()
    report = extract(images, tmp_path / "torch", exported, dtype="float32", images_per_unit=3, progress=False)
    assert (report.done, report.found_done) == (5, 3)
