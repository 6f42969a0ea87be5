"""Extractors and their records: one is built from the other, and unknown records are refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from coattn.features.extract.extractors.base import Reading, reading_of
from coattn.features.extract.extractors.build import WEIGHTS, build_extractor
from coattn.features.extract.extractors.descriptor import Descriptor
from coattn.features.extract.extractors.torchvision_grid import TorchvisionGrid
from coattn.features.extract.run import extract
from coattn.features.store.reader import FeatureStore


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "magic"}, "unknown extractor 'magic'"),
        ({"settings": {"cells": 3}}, "settings that this coattn does not know"),
        ({"name": "torchvision", "settings": {"model": "resnet18"}}, "needs its weights"),
    ],
)
def test_a_record_of_something_unknown_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        build_extractor({**Descriptor().record, **change})


def test_the_window_of_deep_images_is_part_of_the_record(tmp_path, capsys):
    ramp = np.tile(np.linspace(0, 4095, 256).astype(np.uint16), (64, 1))
    for name in "ab":
        Image.fromarray(ramp).save(tmp_path / f"{name}.png")
    images = {name: tmp_path / f"{name}.png" for name in "ab"}
    assert extract(images, tmp_path / "dark", Descriptor(), progress=False).dark == 2
    assert capsys.readouterr().err.count("uses a small part of its 16-bit range") == 1
    report = extract(images, tmp_path / "out", Reading(Descriptor(), window=(0, 4095)), progress=False)
    assert report.dark == 0
    store = FeatureStore(tmp_path / "out")
    assert store.record["settings"]["window"] == [0, 4095]
    assert store.read(0).features.max() > FeatureStore(tmp_path / "dark").read(0).features[:, :12].max()
    rebuilt = build_extractor(store.record)
    assert rebuilt.record == store.record
    assert reading_of(rebuilt) == {"window": (0, 4095)}
    with pytest.raises(ValueError, match="window 9-9: must be two different values"):
        Reading(Descriptor(), window=(9, 9))


def test_reduced_decoding_is_part_of_the_record(tmp_path):
    pytest.importorskip("torchvision")
    smooth = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8))
    smooth.resize((320, 240), Image.Resampling.BICUBIC).save(tmp_path / "a.jpg", quality=95)
    images = {"a": tmp_path / "a.jpg"}
    plain = TorchvisionGrid("squeezenet1_1", weights="none", size=(64, 64))
    report = extract(images, tmp_path / "out", Reading(plain, reduced_decoding=True), dtype="float32", progress=False)
    assert report.done == 1
    store = FeatureStore(tmp_path / "out")
    assert store.record["settings"]["reduced_decoding"] is True
    assert store.read(0).size.tolist() == [320, 240]

    # The features are those of the file decoded at a third of its height or more, that is at a half.
    rebuilt = build_extractor(store.record, weights=tmp_path / "out" / WEIGHTS)
    assert reading_of(rebuilt) == {"at_least": (64, 64)}
    with Image.open(tmp_path / "a.jpg") as image:
        image.draft(None, (160, 120))
        image.load()
        assert image.size == (160, 120)
        np.testing.assert_allclose(store.read(0).features, plain([image])[0].features, rtol=1e-5, atol=1e-6)
    whole, reduced = plain([Image.open(tmp_path / "a.jpg")])[0].features, store.read(0).features
    assert not np.array_equal(whole, reduced)
    cosine = (whole * reduced).sum(1) / np.linalg.norm(whole, axis=1) / np.linalg.norm(reduced, axis=1)
    assert cosine.min() > 0.99

    with pytest.raises(ValueError, match="reduced_decoding"):
        extract(images, tmp_path / "out", plain, dtype="float32", progress=False)
    with pytest.raises(ValueError, match="descriptor cannot decode images at a reduced size"):
        Reading(Descriptor(), reduced_decoding=True)


def test_sizes_that_nobody_needs_are_refused():
    with pytest.raises(ValueError, match="size 60000x60000 is too large; the limit is 8192 on a side"):
        build_extractor({**Descriptor().record, "settings": {"grid": [4, 4], "size": [60000, 60000]}})
