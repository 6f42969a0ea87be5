"""The extractor `objects`: patches against a slow labeling, features against shapes whose numbers are known."""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from coattn.features.extract.extractors.build import build_extractor
from coattn.features.extract.extractors.objects import Objects, connect_runs, find_runs


def flood(colors: np.ndarray) -> np.ndarray:
    """Label patches by flooding, numbered as their first pixels come."""
    labels = np.full(colors.shape, -1)
    for start in np.ndindex(*colors.shape):
        if labels[start] >= 0:
            continue
        number, waiting = labels.max() + 1, [start]
        while waiting:
            y, x = waiting.pop()
            if labels[y, x] >= 0:
                continue
            labels[y, x] = number
            near = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            inside = [(v, u) for v, u in near if 0 <= v < colors.shape[0] and 0 <= u < colors.shape[1]]
            waiting += [place for place in inside if colors[place] == colors[y, x]]
    return labels


@pytest.mark.parametrize("num_colors", [1, 2, 3, 5])
def test_patches_are_those_of_flooding(num_colors: int) -> None:
    random = np.random.default_rng(num_colors)
    for height, width in ((1, 1), (1, 9), (9, 1), (13, 17), (40, 40)):
        colors = random.integers(0, num_colors, (height, width))
        runs = find_runs(colors)
        labels = connect_runs(runs)
        painted = np.repeat(labels, runs.stop - runs.start).reshape(height, width)
        assert np.array_equal(painted, flood(colors))


def test_a_long_winding_path_is_one_patch() -> None:
    path = np.zeros((201, 30), int)
    path[::2] = 1
    path[1::4, 0] = path[3::4, -1] = 1
    runs = find_runs(path)
    assert len(set(connect_runs(runs)[runs.colors == 1])) == 1


def scene(size: tuple[int, int] = (100, 50)) -> Image.Image:
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((10, 20, 29, 29), fill=(255, 0, 0))  # 20 x 10 pixels
    draw.ellipse((60, 10, 90, 40), fill=(0, 0, 255))  # 31 x 31
    return image


def test_numbers_of_a_rectangle_and_a_circle() -> None:
    features, boxes, *_ = Objects()([scene()])[0]
    circle, rectangle = features  # largest first
    np.testing.assert_allclose(boxes, [[0.60, 0.20, 0.91, 0.82], [0.10, 0.40, 0.30, 0.60]], atol=1e-6)
    np.testing.assert_allclose(rectangle[:3], [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(rectangle[3:9], [0.2, 0.5, 0.2, 0.2, 200 / 5000, 1], atol=1e-6)
    spread = [20 / math.sqrt(12) / 100, 10 / math.sqrt(12) / 50, 0, 3 / math.pi]
    np.testing.assert_allclose(rectangle[9:], spread, atol=1e-6)
    np.testing.assert_allclose(circle[:5], [0, 0, 1, 0.755, 0.51], atol=1e-6)
    np.testing.assert_allclose(circle[8], math.pi / 4, atol=0.02)
    np.testing.assert_allclose(circle[9:], [31 / 4 / 100, 31 / 4 / 50, 0, 1], atol=0.005)


def test_objects_are_those_of_one_color_that_touch() -> None:
    pixels = np.full((20, 20, 3), 200, np.uint8)
    pixels[2:6, 2:6] = (250, 10, 10)
    pixels[2:6, 6:10] = (10, 250, 10)  # touches, but in another color
    pixels[6:10, 10:14] = (10, 250, 10)  # touches by a corner only
    pixels[15:18, 2:6] = np.random.default_rng(0).integers(0, 20, (3, 4, 3))  # colors that are one when rounded
    pixels[19, 19] = 0  # too small
    features, boxes, *_ = Objects(min_area=0.01)([Image.fromarray(pixels)])[0]
    assert features.shape == (4, 13)
    assert features.dtype == boxes.dtype == np.float32
    assert sorted(np.rint(boxes[:, :2] * 20).astype(int).tolist()) == [[2, 2], [2, 15], [6, 2], [10, 6]]
    assert len(Objects(min_area=0)([Image.fromarray(pixels)])[0].features) == 5


def test_only_the_largest_are_kept() -> None:
    pixels = np.zeros((30, 60, 3), np.uint8)
    for number in range(8):
        pixels[3 : 5 + number, 7 * number : 7 * number + 5] = 255
    extractor = Objects(max_objects=3)
    assert extractor.num_regions == 3
    features, *_ = extractor([Image.fromarray(pixels)])[0]
    np.testing.assert_allclose(features[:, 7], [5 * height / 1800 for height in (9, 8, 7)], atol=1e-6)


@pytest.mark.parametrize("image", [Image.new("RGB", (7, 5), "teal"), Image.new("RGB", (1, 1)), scene((9, 9))])
def test_without_objects_the_whole_image_is_one_region(image: Image.Image) -> None:
    features, boxes, *_ = Objects()([image])[0]
    assert boxes.tolist() == [[0, 0, 1, 1]]
    np.testing.assert_allclose(features[0, :3], np.asarray(image).mean(axis=(0, 1)) / 255, atol=1e-6)
    np.testing.assert_allclose(features[0, 3:9], [0.5, 0.5, 1, 1, 1, 1], atol=1e-6)


def test_any_image_works_and_batches_change_nothing() -> None:
    random = np.random.default_rng(0)
    noise = [Image.fromarray(random.integers(0, 256, (h, w, 3), np.uint8)) for h, w in ((300, 700), (64, 3), (1, 50))]
    extractor = Objects(levels=2, min_area=0)
    together = extractor(noise)
    for image, regions in zip(noise, together, strict=True):
        assert 1 <= len(regions.features) <= 32
        assert np.isfinite(regions.features).all()
        assert (regions.boxes >= 0).all()
        assert (regions.boxes <= 1).all()
        assert np.array_equal(regions.features, extractor([image])[0].features)
    assert extractor.prepare(noise[0]).shape == (110, 256, 3)
    assert extractor([]) == []


def test_the_record_rebuilds_the_extractor() -> None:
    extractor = Objects(levels=4, min_area=0.01, max_objects=2, max_side=64)
    rebuilt = build_extractor(extractor.record)
    assert isinstance(rebuilt, Objects)
    assert rebuilt.record == extractor.record
    assert np.array_equal(rebuilt([scene()])[0].features, extractor([scene()])[0].features)


@pytest.mark.parametrize("settings", [{"levels": 1}, {"min_area": 1.0}, {"max_objects": 0}, {"max_side": 0}])
def test_settings_out_of_range_are_refused(settings: dict) -> None:
    with pytest.raises(ValueError, match="objects: levels must be 2 to 256"):
        Objects(**settings)


def test_finds_the_six_objects_of_sort_of_clevr(shared_data: Path) -> None:
    with zipfile.ZipFile(shared_data / "sort_of_clevr" / "sort_of_clevr_test_images.zip") as archive:
        images = [Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in archive.namelist()]
    assert {len(regions.features) for regions in Objects()(images)} == {6}
