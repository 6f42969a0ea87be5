from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from coattn.features.extract.extractors.build import build_extractor
from coattn.features.extract.extractors.patches import Patches


def photo(width: int = 9, height: int = 6) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_a_row_is_the_pixels_of_its_cell():
    patches = Patches(grid=(2, 3), size=(6, 9))
    (regions,) = patches([photo()])
    pixels = np.asarray(photo()).astype(np.float32) / 127.5 - 1
    assert (patches.num_regions, patches.dim) == (6, 27)
    for row in range(2):
        for column in range(3):
            cell = pixels[3 * row : 3 * row + 3, 3 * column : 3 * column + 3]
            np.testing.assert_array_equal(regions.features[3 * row + column], cell.ravel())
    assert regions.boxes[4].tolist() == pytest.approx([1 / 3, 1 / 2, 2 / 3, 1])
    assert regions.labels is None


def test_images_of_any_size_are_stretched():
    patches = Patches()
    wide, whole = patches([photo(300, 20), Image.new("RGB", (5, 5), "white")])
    assert wide.features.shape == whole.features.shape == (64, 192)
    assert (whole.features == 1).all()
    assert patches([]) == []


def test_a_record_rebuilds_it():
    patches = Patches(grid=(2, 3))
    assert patches.size == (16, 24)
    assert patches.weights is None
    again = build_extractor(json.loads(json.dumps(patches.record)))
    assert again.record == patches.record
    np.testing.assert_array_equal(again([photo()])[0].features, patches([photo()])[0].features)


def test_a_size_that_is_no_multiple_of_the_grid():
    with pytest.raises(ValueError, match="size 64x64 is not a multiple of grid 3x3; for example --size 24x24"):
        Patches((3, 3), (64, 64))
