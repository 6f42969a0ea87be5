from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from coattn.features.extract.extractors.build import build_extractor
from coattn.features.extract.extractors.convolutions import pad_like_tensorflow
from coattn.features.extract.extractors.network import IMAGENET_MEAN, IMAGENET_STD
from coattn.features.extract.extractors.weights import hash_tensors, read_state_dict
from coattn.features.extract.images import load_image
from coattn.features.extract.run import extract
from coattn.features.store.provenance import same_extractor
from coattn.features.store.reader import FeatureStore

models = pytest.importorskip("torchvision").models
transforms = pytest.importorskip("torchvision").transforms

from coattn.features.extract.extractors.torchvision_grid import TorchvisionGrid  # noqa: E402


def photo(seed: int, width: int = 70, height: int = 50) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def small() -> TorchvisionGrid:
    return TorchvisionGrid("shufflenet_v2_x0_5", weights="none", size=(96, 64))


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return models.get_model("shufflenet_v2_x0_5", weights=None).eval()


# How each family makes its last feature map, written out by hand.
FAMILIES = {
    "resnet18": lambda net, x: torch.nn.Sequential(*list(net.children())[:-2])(x),
    "mobilenet_v3_small": lambda net, x: net.features(x),  # pools inside its blocks, too
    "densenet121": lambda net, x: F.relu(net.features(x)),
    "squeezenet1_1": lambda net, x: net.features(x),  # classifies before it pools
    "efficientnet_b0": lambda net, x: net.features(x),
    "regnet_y_400mf": lambda net, x: net.trunk_output(net.stem(x)),
    "shufflenet_v2_x0_5": lambda net, x: net.conv5(net.stage4(net.stage3(net.stage2(net.maxpool(net.conv1(x)))))),
    "swin_t": lambda net, x: net.permute(net.norm(net.features(x))),
}


@pytest.mark.parametrize("model", FAMILIES)
def test_the_regions_are_the_cells_of_the_last_feature_map(model):
    grid = TorchvisionGrid(model, weights="none", size=(64, 96))
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(0)
        net = models.get_model(model, weights=None).eval()
        image = torch.tensor(grid.prepare(photo(0))).float().permute(2, 0, 1) / 255
        mean, std = (torch.tensor(value)[:, None, None] for value in (grid.mean, grid.std))
        expected = FAMILIES[model](net, ((image - mean) / std)[None])
    (regions,) = grid([photo(0)])
    assert regions.features.shape == (grid.num_regions, grid.dim)
    np.testing.assert_allclose(regions.features, expected[0].flatten(1).T, rtol=1e-4, atol=1e-5)
    rows, columns = expected.shape[2:]
    assert regions.boxes[columns].tolist() == pytest.approx([0, 1 / rows, 1 / columns, 2 / rows])
    assert not any("classifier" in name or name.startswith(("fc.", "head.")) for name in grid.weights)


def patches_of(net, image, mean, std):
    """Tokens of a vision transformer, written out by hand: the class token first."""
    x = net._process_input(((image - mean) / std)[None])
    return net.encoder(torch.cat([net.class_token, x], dim=1))[0]


def test_the_patches_of_a_vision_transformer(tmp_path):
    side = 96  # the position embedding is for 224
    with torch.random.fork_rng():
        torch.manual_seed(1)
        native = models.get_model("vit_b_32", weights=None)
        torch.nn.init.normal_(native.encoder.pos_embedding)
    torch.save(native.state_dict(), tmp_path / "vit.pth")
    grid = TorchvisionGrid("vit_b_32", weights=tmp_path / "vit.pth", size=(side, side), global_region=True)
    net = models.get_model("vit_b_32", weights=None, image_size=side).eval()
    net.load_state_dict(models.vision_transformer.interpolate_embeddings(side, 32, native.state_dict()))
    mean, std = (torch.tensor(value)[:, None, None] for value in (grid.mean, grid.std))
    with torch.inference_mode():
        tokens = patches_of(net, torch.tensor(grid.prepare(photo(0))).float().permute(2, 0, 1) / 255, mean, std)
    (regions,) = grid([photo(0)])
    np.testing.assert_allclose(regions.features[:-1], tokens[1:], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(regions.features[-1], tokens[0], rtol=1e-4, atol=1e-4)
    assert regions.boxes[1].tolist() == pytest.approx([32 / side, 0, 64 / side, 32 / side])
    assert not any(name.startswith("heads") for name in grid.weights)

    save_file(grid.weights, tmp_path / "extractor.safetensors")
    again = build_extractor(json.loads(json.dumps(grid.record)), weights=tmp_path / "extractor.safetensors")
    np.testing.assert_array_equal(again([photo(0)])[0].features, regions.features)
    assert again.record == grid.record


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (64, 96)}, "takes square images, not 64x96; --extractor transformers"),
        ({"size": (65, 65)}, "cannot work on 65x65 images"),
        ({"size": (64, 64), "scales": (1.0, 0.5)}, "made for one size of images"),
    ],
)
def test_sizes_that_a_vision_transformer_cannot_have(options, message):
    with pytest.raises(ValueError, match=message):
        TorchvisionGrid("vit_b_32", weights="none", **options)


def test_several_scales_are_concatenated(small):
    both = TorchvisionGrid("shufflenet_v2_x0_5", weights="none", size=(96, 64), scales=(1.0, 2.0), global_region=True)
    assert both.num_regions == 3 * 2 + 6 * 4 + 1
    pixels = torch.tensor(both.prepare(photo(2)))[None]
    assert pixels.shape == (1, 192, 128, 3)
    (regions,) = both([photo(2)])
    half = small.feature_map(pixels, (96, 64))
    np.testing.assert_allclose(regions.features[:6], half.cells[0].flatten(1).T, rtol=1e-4, atol=1e-5)
    full = both.feature_map(pixels).cells[0].flatten(1).T
    np.testing.assert_allclose(regions.features[6:-1], full, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(regions.features[-1], half.whole[0], rtol=1e-4, atol=1e-5)
    assert regions.boxes[6].tolist() == [0, 0, 0.25, pytest.approx(1 / 6)]
    assert both.record["settings"]["scales"] == [1.0, 2.0]
    assert "scales" not in small.record["settings"]  # as in stores of before
    for wrong in ((), (1.0, 1.0), (0.0,)):
        with pytest.raises(ValueError, match="must be different positive numbers"):
            TorchvisionGrid("shufflenet_v2_x0_5", weights="none", scales=wrong)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_is_near_and_recorded(small, precision):
    low = TorchvisionGrid("shufflenet_v2_x0_5", weights="none", size=(96, 64), precision=precision)
    expected, found = small([photo(4)])[0].features, low([photo(4)])[0].features
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < 0.03 * np.abs(expected).max()
    assert low.record["settings"] == {**small.record["settings"], "precision": precision}
    assert not same_extractor(low.record, small.record)
    with pytest.raises(ValueError, match="precision 'int4': a network runs in float32, bf16, fp16"):
        TorchvisionGrid("shufflenet_v2_x0_5", weights="none", precision="int4")


def test_pooled_grid_and_global_region(small):
    pooled = TorchvisionGrid("shufflenet_v2_x0_5", weights="none", size=(96, 64), grid=(3, 1), global_region=True)
    (plain,), (regions,) = small([photo(1)]), pooled([photo(1)])
    cells = plain.features.reshape(3, 2, -1)
    np.testing.assert_allclose(regions.features[:3], cells.mean(axis=1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(regions.features[3], plain.features.mean(axis=0), rtol=1e-5, atol=1e-6)
    assert regions.boxes[3].tolist() == [0, 0, 1, 1]
    assert pooled.num_regions == 4


def test_a_grid_finer_than_the_map_is_refused():
    with pytest.raises(ValueError, match="makes a 3x2 map of a 96x64 image, grid 4x4 is finer"):
        TorchvisionGrid("shufflenet_v2_x0_5", weights="none", size=(96, 64), grid=(4, 4))


def test_the_batch_changes_nothing(small):
    images = [photo(seed, 40 + 9 * seed) for seed in range(5)]
    for image, together in zip(images, small(images), strict=True):
        np.testing.assert_allclose(small([image])[0].features, together.features, rtol=1e-4, atol=1e-5)
    assert small([]) == []


def test_random_weights_are_always_the_same(small):
    state = torch.random.get_rng_state()
    again = TorchvisionGrid("shufflenet_v2_x0_5", weights="none", size=(96, 64))
    assert again.record == small.record
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_weights_file_means_the_same_in_either_format(tmp_path, network, small):
    state = network.state_dict()
    torch.save(state, tmp_path / "full.pth")
    torch.save({name: value.half() for name, value in state.items()}, tmp_path / "half.pth")
    save_file({name: value.half() for name, value in state.items()}, tmp_path / "half.safetensors")
    hashes = {
        name: TorchvisionGrid("shufflenet_v2_x0_5", weights=tmp_path / name, size=(64, 64)).record["weights"]["sha256"]
        for name in ("full.pth", "half.pth", "half.safetensors")
    }
    assert hashes["half.pth"] == hashes["half.safetensors"] != hashes["full.pth"]
    assert hashes["full.pth"] != small.record["weights"]["sha256"]


def test_hash_depends_on_names_shapes_and_values_only():
    one = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    assert hash_tensors(one) == hash_tensors(dict(reversed(one.items())))
    for other in ({**one, "a": torch.zeros(3, 2)}, {**one, "b": torch.zeros(1)}, {"a": one["a"], "c": one["b"]}):
        assert hash_tensors(other) != hash_tensors(one)


def test_weights_that_do_not_fit_are_counted(tmp_path, network):
    state = {f"{name}": value for name, value in network.state_dict().items() if name != "conv5.0.weight"}
    state["conv1.0.weight"] = torch.zeros(24, 3, 5, 5)
    torch.save({**state, "extra": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="do not fit") as error:
        TorchvisionGrid("shufflenet_v2_x0_5", weights=tmp_path / "x.pth")
    for part in (
        "x.pth",
        "1 are missing ['conv5.0.weight']",
        "1 have another shape",
        "[24, 3, 5, 5], needed [24, 3, 3, 3]",
    ):
        assert part in str(error.value)
    assert "1 are unknown ['extra']" in str(error.value)


def test_another_classifier_does_not_matter(tmp_path, network):
    state = {**network.state_dict(), "fc.weight": torch.zeros(10, 1024), "fc.bias": torch.zeros(10)}
    torch.save(state, tmp_path / "ten.pth")
    torch.save(network.state_dict(), tmp_path / "thousand.pth")
    ten, thousand = (
        TorchvisionGrid("shufflenet_v2_x0_5", weights=tmp_path / f"{name}.pth", size=(64, 64))
        for name in ("ten", "thousand")
    )
    assert ten.record["weights"]["sha256"] == thousand.record["weights"]["sha256"]
    pixels = torch.rand(1, 64, 64, 3).mul(255).byte()
    torch.testing.assert_close(ten.feature_map(pixels).cells, thousand.feature_map(pixels).cells)


@pytest.mark.parametrize(
    ("name", "content"), [("a.pth", b"junk"), ("a.safetensors", b"junk"), ("b.pth", None), ("empty.pth", b"")]
)
def test_files_that_are_no_weights(tmp_path, name, content):
    path = tmp_path / name
    if content is None:
        torch.save({"epoch": 3, "state_dict": {}}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=name):
        read_state_dict(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match=f"{name}: is a named pipe"):
        read_state_dict(path)


def test_a_weights_file_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("ran",))

    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match=r"evil\.pth"):
        read_state_dict(tmp_path / "evil.pth")


def test_unknown_models_and_missing_files(tmp_path):
    with pytest.raises(ValueError, match=r"no classification model 'resnet5'; did you mean 'resnet"):
        TorchvisionGrid("resnet5", weights="none")
    with pytest.raises(FileNotFoundError):
        TorchvisionGrid("resnet18", weights=tmp_path / "none.pth")
    with pytest.raises(ValueError, match=r"'IMAGENET_V1': no file, and torchvision has only IMAGENET1K_V1, DEFAULT"):
        TorchvisionGrid("resnet18", weights=Path("IMAGENET_V1"))


def test_weights_by_their_name(monkeypatch, network):
    own = models.ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1
    monkeypatch.setattr(type(own), "get_state_dict", lambda member, **options: network.state_dict())  # no download
    named = TorchvisionGrid("shufflenet_v2_x0_5", weights=Path("IMAGENET1K_V1"), size=(64, 64))
    assert named.record["weights"]["id"] == "ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1"
    default = TorchvisionGrid("shufflenet_v2_x0_5", weights="default", size=(64, 64))
    assert named.record == default.record
    assert (named.mean, named.std) == (IMAGENET_MEAN, IMAGENET_STD)


@pytest.mark.parametrize("scales", [(float("inf"),), (float("nan"),), (1.0, -1.0), (1e308,), (1e15,)])
def test_impossible_scales_are_refused(scales):
    with pytest.raises(ValueError, match=r"scales .* must be different positive|cannot work on|is too large"):
        TorchvisionGrid("shufflenet_v2_x0_5", weights="none", scales=scales)


def test_a_size_that_fits_no_memory_is_refused():
    with pytest.raises(ValueError, match="size 1000000000x1000000000 is too large; the limit is 8192"):
        TorchvisionGrid("shufflenet_v2_x0_5", weights="none", size=(10**9, 10**9))


def test_a_store_carries_the_weights_to_extract_more(tmp_path, small):
    path = tmp_path / "a.png"
    photo(3).save(path)
    extract({"a": path}, tmp_path / "out", small, dtype="float32", progress=False)
    store = FeatureStore(tmp_path / "out")
    again = build_extractor(store.record, weights=store.asset("extractor.safetensors"))
    np.testing.assert_array_equal(again([photo(3)])[0].features, store.read(0).features)
    assert again.record["settings"] == small.record["settings"]

    tensors = read_state_dict(store.asset("extractor.safetensors"))
    save_file({**tensors, "conv1.0.weight": tensors["conv1.0.weight"] + 1e-3}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors: other weights than the recorded ones"):
        build_extractor(store.record, weights=tmp_path / "other.safetensors")


@pytest.mark.parametrize("size", [(64, 64), (65, 70), (63, 97)])
def test_tensorflow_padding(size):
    """Against the definition: output ceil(n / s), and the odd pixel of padding on the right and at the bottom."""
    grid = TorchvisionGrid("mobilenet_v2", weights="none", size=size, tf_same_padding=True)
    stem = grid._network.get_submodule("features.0.0")
    image = torch.randn(1, 3, *size)
    out = stem(image)
    assert out.shape[2:] == tuple(-(-n // 2) for n in size)
    for row, column in ((0, 0), (out.shape[2] - 1, out.shape[3] - 1)):
        before = [(-(-n // 2) * 2 + 1 - n) // 2 for n in size]  # pixels of padding above and to the left
        top, left = 2 * row - before[0], 2 * column - before[1]
        window = torch.zeros(3, 3, 3)
        for y in range(3):
            for x in range(3):
                if 0 <= top + y < size[0] and 0 <= left + x < size[1]:
                    window[:, y, x] = image[0, :, top + y, left + x]
        np.testing.assert_allclose(
            out[0, :, row, column].detach(), (stem.weight * window).sum(dim=(1, 2, 3)).detach(), atol=1e-5
        )


@pytest.mark.parametrize("padding", [False, True])
def test_norms_inside_convolutions_change_nothing(padding: bool, tmp_path: Path) -> None:
    separate = models.get_model("resnet18").eval()
    for module in separate.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.uniform_(0.5, 1.5)
    file = tmp_path / "resnet18.safetensors"
    save_file(separate.state_dict(), file)
    grid = TorchvisionGrid("resnet18", weights=file, size=(64, 96), tf_same_padding=padding)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in grid._network.modules())
    assert torch.equal(grid.weights["layer1.0.bn1.running_mean"], separate.layer1[0].bn1.running_mean)
    if padding:
        pad_like_tensorflow(separate)
    pixels = torch.randint(256, (2, 64, 96, 3), dtype=torch.uint8)
    images = (pixels / 255 - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    with torch.inference_mode():
        expected = nn.Sequential(*list(separate.children())[:-2])(images.permute(0, 3, 1, 2))
    torch.testing.assert_close(grid.feature_map(pixels).cells, expected, rtol=1e-4, atol=1e-5 * float(expected.max()))


def test_real_weights_recognise_real_photos(shared_data):
    """With TensorFlow's padding MobileNetV2 gives the published probabilities of 14 photos; without it, others."""
    file = shared_data / "weights" / "mobilenet_v2" / "mobilenet_v2_imagenet_tfsame_fp16.pth"
    expected = json.loads((shared_data / "weights" / "photos" / "expected_top3.json").read_text())
    names = json.loads((shared_data / "weights" / "imagenet_labels_1000.json").read_text())
    head = {name: value.float() for name, value in read_state_dict(file).items() if name.startswith("classifier")}
    usual = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
    photos = [usual(load_image(shared_data / "weights" / "photos" / name)) for name in expected]
    pixels = torch.from_numpy(np.stack([np.asarray(photo) for photo in photos]))
    errors = {}
    for padding in (True, False):
        grid = TorchvisionGrid("mobilenet_v2", weights=file, tf_same_padding=padding)
        with torch.inference_mode():
            pooled = grid.feature_map(pixels).cells.mean(dim=(2, 3))
            scores = (pooled @ head["classifier.1.weight"].T + head["classifier.1.bias"]).softmax(dim=1)
        top3 = [(names.index(label), value) for entry in expected.values() for label, value in entry["mobilenet_v2"]]
        at = torch.tensor([index for index, _ in top3]).reshape(-1, 3)
        errors[padding] = (scores.gather(1, at) - torch.tensor([value for _, value in top3]).reshape(-1, 3)).abs().max()
        if padding:
            assert scores.argmax(dim=1).tolist() == at[:, 0].tolist()
    assert errors[True] < 0.001  # the expected values are rounded to three digits
    assert errors[False] > 0.05


@pytest.mark.slow
def test_a_compiled_network_gives_the_same(small):
    compiled = TorchvisionGrid("shufflenet_v2_x0_5", weights="none", size=(96, 64), compile=True)
    assert compiled.record == small.record
    for number in (1, 3):  # batches of another size are compiled anew
        images = [photo(seed) for seed in range(number)]
        for found, expected in zip(compiled(images), small(images), strict=True):
            np.testing.assert_allclose(found.features, expected.features, rtol=1e-3, atol=1e-5)
