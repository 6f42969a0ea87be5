from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from coattn.features.extract.extractors.build import build_extractor
from coattn.features.extract.run import extract
from coattn.features.store.provenance import require_same_extractor, same_extractor
from coattn.features.store.reader import FeatureStore

transformers = pytest.importorskip("transformers")

from coattn.features.extract.extractors.transformers_grid import TransformersGrid, read_vision_model  # noqa: E402


def photo(seed: int, width: int = 70, height: int = 50) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def grid_of(folder, **options) -> TransformersGrid:
    return TransformersGrid(**(read_vision_model(folder) | options))


def tokens_of(folder, image: Image.Image, size=(32, 32), **options) -> torch.Tensor:
    """The output of `transformers` itself for an image, by the model in a folder."""
    height, width = size
    shrunk = np.array(image.resize((width, height), Image.Resampling.BICUBIC))
    mean, std = (torch.tensor(value)[:, None, None] for value in ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4]))
    pixels = (torch.tensor(shrunk).permute(2, 0, 1) / 255 - mean) / std
    model = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
    with torch.inference_mode():
        return getattr(model, "vision_model", model)(pixel_values=pixels[None], **options).last_hidden_state[0]


# The number of tokens before the patches.
KINDS = {"vit": 1, "deit": 2, "dinov2": 1, "dinov2_with_registers": 5, "dinov3_vit": 5, "clip": 1, "siglip": 0}


@pytest.mark.parametrize("kind", KINDS)
def test_the_regions_are_the_last_hidden_states_of_the_patches(tmp_path, make_vision_model, kind):
    settings = {"num_register_tokens": 4} if KINDS[kind] == 5 else {}
    folder = make_vision_model(tmp_path / kind, kind, **settings)
    grid = grid_of(folder, global_region=True)
    tokens = tokens_of(folder, photo(0))
    assert len(tokens) == KINDS[kind] + 16
    (regions,) = grid([photo(0)])
    np.testing.assert_allclose(regions.features[:16], tokens[KINDS[kind] :], rtol=1e-4, atol=1e-5)
    whole = tokens[0] if KINDS[kind] else tokens.mean(dim=0)
    np.testing.assert_allclose(regions.features[16], whole, rtol=1e-4, atol=1e-5)
    assert regions.boxes[5].tolist() == [0.25, 0.25, 0.5, 0.5]
    assert regions.boxes[16].tolist() == [0, 0, 1, 1]
    assert grid.record["weights"]["id"] == kind
    assert not any("text" in name for name in grid.weights)

    save_file(grid.weights, tmp_path / "extractor.safetensors")
    again = build_extractor(json.loads(json.dumps(grid.record)), weights=tmp_path / "extractor.safetensors")
    assert again.record == grid.record
    np.testing.assert_array_equal(again([photo(0)])[0].features, regions.features)


@pytest.mark.parametrize(("kind", "before"), [("vit", 1), ("dinov2", 1), ("clip", 1), ("siglip", 0)])
def test_other_sizes_interpolate_the_position_embedding(tmp_path, make_vision_model, kind, before):
    folder = make_vision_model(tmp_path / kind, kind)
    grid = grid_of(folder, size=(40, 64))
    (regions,) = grid([photo(1)])
    options = {} if kind == "dinov2" else {"interpolate_pos_encoding": True}
    np.testing.assert_allclose(
        regions.features, tokens_of(folder, photo(1), (40, 64), **options)[before:], rtol=1e-4, atol=1e-5
    )
    assert len(regions.boxes) == 5 * 8
    assert regions.boxes[9].tolist() == pytest.approx([1 / 8, 1 / 5, 2 / 8, 2 / 5])


def test_what_the_patches_do_not_reach_is_in_no_box(tmp_path, make_vision_model):
    grid = grid_of(make_vision_model(tmp_path / "m"), size=(36, 40))
    assert grid.num_regions == 4 * 5
    assert grid([photo(0)])[0].boxes[-1].tolist() == pytest.approx([0.8, 24 / 36, 1, 32 / 36])


@pytest.mark.parametrize(
    ("kind", "settings", "cells", "width"),
    [
        ("swin", {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4, "patch_size": 4}, 8, 16),
        ("convnext", {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2}, 8, 16),
        ("resnet", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}, 8, 16),
    ],
)
def test_models_that_make_maps(tmp_path, kind, settings, cells, width):
    config = {"model_type": kind, "image_size": 64, **settings}
    grid = TransformersGrid(config=config, weights="none", size=(64, 64), mean=[0.5] * 3, std=[0.5] * 3)
    assert (grid.num_regions, grid.dim) == (cells**2, width)
    image = torch.tensor(np.array(photo(0).resize((64, 64), Image.Resampling.BILINEAR)))
    with torch.inference_mode():
        hidden = grid._network(pixel_values=(image.permute(2, 0, 1)[None] / 255 - 0.5) / 0.5).last_hidden_state
    expected = hidden[0] if hidden.dim() == 3 else hidden[0].flatten(1).T
    np.testing.assert_allclose(grid([photo(0)])[0].features, expected, rtol=1e-4, atol=1e-5)


def test_scales_grids_and_batches(tmp_path, make_vision_model):
    folder = make_vision_model(tmp_path / "m")
    grid = grid_of(folder, scales=(1.0, 0.45), grid=(2, 2), global_region=True)
    assert grid.num_regions == 4 + 4 + 1
    images = [photo(seed, 40 + 9 * seed) for seed in range(5)]
    together = grid(images)
    for image, regions in zip(images, together, strict=True):
        np.testing.assert_allclose(grid([image])[0].features, regions.features, rtol=1e-4, atol=1e-5)
    cells = grid_of(folder)([images[0]])[0].features.reshape(2, 2, 2, 2, 16)
    np.testing.assert_allclose(together[0].features[:4], cells.mean(axis=(1, 3)).reshape(4, 16), rtol=1e-4, atol=1e-5)
    half = torch.tensor(grid.prepare(images[0]))[None]
    small = grid.feature_map(half, (16, 16)).cells  # 0.45 of 32, rounded to whole patches
    assert small.shape == (1, 16, 2, 2)
    np.testing.assert_allclose(together[0].features[4:8], small[0].flatten(1).T, rtol=1e-4, atol=1e-5)
    assert grid.record["settings"]["scales"] == [1.0, 0.45]


def test_a_store_carries_all_to_extract_more(tmp_path, make_vision_model):
    path = tmp_path / "a.png"
    photo(3).save(path)
    folder = make_vision_model(tmp_path / "tower", "clip")
    extract({"a": path}, tmp_path / "out", grid_of(folder), dtype="float32", progress=False)
    store = FeatureStore(tmp_path / "out")
    for file in folder.iterdir():
        file.unlink()
    again = build_extractor(store.record, weights=store.asset("extractor.safetensors"))
    np.testing.assert_array_equal(again([photo(3)])[0].features, store.read(0).features)


@pytest.mark.parametrize(
    ("preparation", "size", "resample"),
    [
        (
            {"size": {"shortest_edge": 40}, "crop_size": {"height": 24, "width": 32}, "resample": 2},
            [24, 32],
            "bilinear",
        ),
        ({"size": {"shortest_edge": 40}, "do_center_crop": False, "crop_size": 24}, [40, 40], "bicubic"),
        ({"size": 48}, [48, 48], "bicubic"),
    ],
)
def test_the_preparation_is_read_as_data(tmp_path, make_vision_model, preparation, size, resample):
    found = read_vision_model(make_vision_model(tmp_path / "m", preparation=preparation))
    assert (found["size"], found["resample"]) == (size, resample)
    assert (found["mean"], found["std"]) == ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4])


def test_the_image_processor_of_a_processor(tmp_path, make_vision_model):
    folder = make_vision_model(tmp_path / "m")
    (folder / "preprocessor_config.json").rename(folder / "old.json")
    inner = json.loads((folder / "old.json").read_text())
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": inner, "processor_class": "X"}))
    assert read_vision_model(folder)["mean"] == [0.5, 0.4, 0.3]


def test_only_settings_of_the_architecture_are_kept(tmp_path, make_vision_model):
    folder = make_vision_model(tmp_path / "m", "clip")
    values = json.loads((folder / "config.json").read_text())
    values["vision_config"] |= {"top_k": 50, "torch_dtype": "float16", "auto_map": {"AutoModel": "evil.Model"}}
    (folder / "config.json").write_text(json.dumps(values))
    config = read_vision_model(folder)["config"]
    assert config["model_type"] == "clip_vision_model"
    assert config["patch_size"] == 8
    assert not {"top_k", "torch_dtype", "auto_map", "transformers_version"} & config.keys()


def test_weights_in_pieces_and_pickled_ones_mean_the_same(tmp_path, make_vision_model):
    folder = make_vision_model(tmp_path / "m")
    whole = grid_of(folder).record["weights"]["sha256"]
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    for number, part in enumerate((names[:5], names[5:]), start=1):
        save_file({name: tensors[name] for name in part}, folder / f"model-0000{number}-of-00002.safetensors")
    assert grid_of(folder).record["weights"]["sha256"] == whole
    for file in folder.glob("*.safetensors"):
        file.unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    assert grid_of(folder).record["weights"]["sha256"] == whole


def test_weights_of_a_classifier_fit_without_its_head(tmp_path, make_vision_model):
    values = json.loads((make_vision_model(tmp_path / "m") / "config.json").read_text())
    config = transformers.ViTConfig(**{key: value for key, value in values.items() if key != "architectures"})
    classifier = transformers.ViTForImageClassification(config).eval()
    classifier.save_pretrained(tmp_path / "m")
    grid = grid_of(tmp_path / "m")
    assert not any("classifier" in name for name in grid.weights)
    pixels = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        expected = classifier.vit(pixels).last_hidden_state
        np.testing.assert_allclose(grid._network(pixels).last_hidden_state, expected, atol=1e-6)


def test_random_weights_and_lower_precision(tmp_path, make_vision_model):
    folder = make_vision_model(tmp_path / "m")
    random = grid_of(folder, weights="none", weights_id=None)
    state = torch.random.get_rng_state()
    assert grid_of(folder, weights="none", weights_id=None).record == random.record
    assert torch.equal(torch.random.get_rng_state(), state)
    assert random.record["weights"]["id"] == "random"
    plain, low = grid_of(folder), grid_of(folder, precision="bf16")
    expected, found = plain([photo(0)])[0].features, low([photo(0)])[0].features
    assert 0 < np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
    assert not same_extractor(low.record, plain.record)


def test_records_that_differ_name_the_setting(tmp_path, make_vision_model):
    one = grid_of(make_vision_model(tmp_path / "m")).record
    other = {**one, "settings": {**one["settings"], "config": {**one["settings"]["config"], "layer_norm_eps": 1e-5}}}
    with pytest.raises(ValueError, match=r"\(settings\.config\.layer_norm_eps 1e-12 there, 1e-05 here\)"):
        require_same_extractor(one, other, wanted_by="a model", found_in="a store")


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("vit", {"model_type": "bert"}, "bert is not a plain vision model"),
        ("vit", {"model_type": "nonsense"}, "knows no vision model of the type 'nonsense'"),
        ("vit", {"backbone": "resnet50"}, "vit is not a plain vision model"),
        ("vit", {"hidden_size": 1 << 40}, "a vision model of this size is refused"),
        ("vit", {"image_size": [32, 1 << 40]}, "a vision model of this size is refused"),
        ("vit", {"vision_config": None}, "cannot load this vision model"),
        ("vit", {"hidden_size": 8}, "weights .* do not fit vit: .* have another shape"),
        ("vit", {"num_hidden_layers": 3}, "weights .* do not fit vit: .* tensors are missing"),
        ("vit", {"patch_size": "x"}, "cannot load this vision model"),
        ("vit_mae", {}, "vit_mae cannot work on 32x32 images .*tokens for 4x4 patches"),
    ],
)
def test_models_that_cannot_be_used(tmp_path, make_vision_model, kind, change, message):
    folder = make_vision_model(tmp_path / "m", kind)
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | change))
    with pytest.raises(ValueError, match=message) as error:
        grid_of(folder)
    assert "\n" not in str(error.value)


def test_folders_that_lack_something(tmp_path, make_vision_model):
    with pytest.raises(
        ValueError, match="vision model 'no/such' is neither a folder nor on this machine; give its fol"
    ):
        read_vision_model("no/such")
    with pytest.raises(ValueError, match=r"there is no config\.json; a vision model is a folder"):
        read_vision_model(tmp_path)
    folder = make_vision_model(tmp_path / "m")
    preparation = folder / "preprocessor_config.json"
    text = preparation.read_text()
    for wrong in ("[]", "{}", text.replace("image_mean", "mean"), text.replace("height", "tall")):
        preparation.write_text(wrong)
        with pytest.raises(ValueError, match=r"preprocessor_config\.json: does not say size, image_mean and image_std"):
            read_vision_model(folder)
    preparation.write_text(json.dumps({**json.loads(text), "rescale_factor": 1.0}))
    with pytest.raises(ValueError, match="only images of three colors whose pixels are divided by 255"):
        read_vision_model(folder)
    preparation.unlink()
    with pytest.raises(ValueError, match=r"there is no preprocessor_config\.json"):
        read_vision_model(folder)
    preparation.write_text(text)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        grid_of(folder)


def test_wrong_weights(tmp_path, make_vision_model):
    grid = grid_of(make_vision_model(tmp_path / "m"))
    name = sorted(grid.weights)[0]
    save_file({**grid.weights, name: grid.weights[name] + 1}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors: other weights than the recorded ones"):
        build_extractor(grid.record, weights=tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"the extractor transformers needs its weights"):
        build_extractor(grid.record)


@pytest.mark.parametrize(("height", "width"), [(56, 56), (50, 62)])
def test_swin_pads_its_input_and_each_token_lies_in_its_box(tmp_path, height, width):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 7, "image_size": 56}
    network = transformers.SwinModel(transformers.SwinConfig(**sizes)).eval()
    network.save_pretrained(tmp_path)
    extractor = TransformersGrid(
        config=network.config.to_dict(), weights=tmp_path, size=(height, width), mean=(0.5,) * 3, std=(0.5,) * 3
    )
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))
    (regions,) = extractor([image])
    pixels = (torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255 - 0.5) / 0.5
    with torch.no_grad():
        tokens = network(pixel_values=pixels).last_hidden_state[0].numpy()
    # Patches of 4 pixels, padded, merged by 2, padded again.
    down, across = ((side + 7) // 8 for side in (height, width))
    assert len(tokens) == down * across == len(regions.features)
    x, y = regions.boxes[:, ::2].mean(1) * width / 8, regions.boxes[:, 1::2].mean(1) * height / 8
    np.testing.assert_allclose(regions.features, tokens[y.astype(int) * across + x.astype(int)], atol=1e-4)
    assert regions.boxes.max() <= 1


def test_a_model_that_shuffles_the_patches_is_refused(tmp_path, make_vision_model):
    """Without masking, ViTMAE of transformers 5.24.0 returns all patches, in a random order.

    See issues 20328 and 20431 of transformers.
    """
    folder = make_vision_model(tmp_path / "mae", "vit_mae", mask_ratio=0.0)
    with pytest.raises(ValueError, match="vit_mae computes other features for the same image each time"):
        grid_of(folder)


def test_tokens_that_are_no_patches_are_refused(tmp_path):
    transformers = pytest.importorskip("transformers")
    plain = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    network = transformers.YolosModel(transformers.YolosConfig(**plain, image_size=[32, 32], num_detection_tokens=5))
    network.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="its 10 tokens for 2x2 patches cannot be assigned to places"):
        TransformersGrid(
            config=network.config.to_dict(), weights=tmp_path, size=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3
        )
