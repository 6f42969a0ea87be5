from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from coattn.features.extract.extractors.descriptor import Descriptor


def picture(seed: int = 0, width: int = 64, height: int = 64) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def ramp(angle: float) -> Image.Image:
    """Gray, growing brighter towards `angle` (0 right, 90 down)."""
    y, x = np.mgrid[:64, :64] - 31.5
    value = 127 + 2.5 * (x * np.cos(np.radians(angle)) + y * np.sin(np.radians(angle)))
    return Image.fromarray(np.repeat(value.round().clip(0, 255).astype(np.uint8)[..., None], 3, axis=2))


def directions(features: np.ndarray) -> np.ndarray:
    return features[:, 39:55]


def test_a_flat_image_has_its_colour_and_no_edges():
    (regions,) = Descriptor()([Image.new("RGB", (64, 64), (255, 0, 127))])
    assert regions.features.shape == (16, 56)
    expected = np.array([1, 0, 127 / 255, 0, 0, 0, 1, 0, 127 / 255, 1, 0, 127 / 255], np.float32)
    np.testing.assert_allclose(regions.features[:, :12], np.tile(expected, (16, 1)), atol=1e-6)
    histogram = regions.features[:, 12:39]
    assert (histogram.argmax(axis=1) == 2 * 9 + 0 * 3 + 1).all()
    assert (histogram.sum(axis=1) == 1).all()
    assert (directions(regions.features) == 0).all()
    np.testing.assert_allclose(regions.features[:, 55], np.log(1e-3), rtol=1e-6)


@pytest.mark.parametrize("angle", [0, 90, 180, 270, 45])
def test_the_direction_histogram_points_to_the_brighter_side(angle):
    (regions,) = Descriptor()([ramp(angle)])
    inner = directions(regions.features)[[5, 6, 9, 10]]  # at the border the repeated edge bends the gradient
    assert (inner.argmax(axis=1) == angle // 22.5).all()
    assert (inner.max(axis=1) > 0.8).all()


def test_cells_go_row_by_row_and_boxes_say_where():
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[16:, 32:48] = 255  # the second row, third column of a 2 x 4 grid
    (regions,) = Descriptor(grid=(2, 4))([Image.fromarray(pixels)])
    brightest = regions.features[:, 0].argmax()
    assert brightest == 6
    assert regions.boxes[brightest].tolist() == [0.5, 0.5, 0.75, 1.0]


def test_mirroring_the_image_mirrors_cells_and_directions():
    image = picture(width=48, height=48).resize((64, 64), Image.Resampling.BICUBIC)
    descriptor = Descriptor()
    (plain,), (mirrored,) = descriptor([image]), descriptor([image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)])
    back = mirrored.features.reshape(4, 4, 56)[:, ::-1].reshape(16, 56)
    np.testing.assert_allclose(back[:, :39], plain.features[:, :39], atol=1e-6)
    # A gradient halfway between two bins may fall to either side: rare, and small.
    np.testing.assert_allclose(directions(back)[:, (8 - np.arange(16)) % 16], directions(plain.features), atol=0.02)


def test_each_image_is_described_for_itself():
    images = [picture(seed, 40 + seed, 90 - seed) for seed in range(5)]
    together = Descriptor()(images)
    for image, regions in zip(images, together, strict=True):
        (alone,) = Descriptor()([image])
        np.testing.assert_array_equal(alone.features, regions.features)


def test_scale_of_the_image_matters_little():
    image = picture(width=4, height=4).resize((64, 64), Image.Resampling.BICUBIC)
    (small,), (large,) = Descriptor()([image]), Descriptor()([image.resize((256, 256), Image.Resampling.BICUBIC)])
    np.testing.assert_allclose(small.features[:, :12], large.features[:, :12], atol=0.05)


def test_no_image_no_regions():
    assert Descriptor()([]) == []


def test_record_rebuilds_the_same_extractor():
    descriptor = Descriptor(grid=(3, 5), size=(30, 40))
    assert Descriptor(**descriptor.record["settings"]).record == descriptor.record
    assert descriptor.num_regions == 15


def test_a_size_that_the_grid_does_not_divide_is_refused():
    with pytest.raises(ValueError, match=r"size 64x64 .* grid 7x7"):
        Descriptor(grid=(7, 7), size=(64, 64))
