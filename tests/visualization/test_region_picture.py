from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from coattn.features.store.reader import FeatureStore, StoreWriter
from coattn.visualization.regions import draw_regions

RECORD = {"name": "test", "settings": {}, "weights": None, "versions": {}}
BLUE, RED = (0, 0, 255), (255, 0, 0)


@pytest.fixture
def store(tmp_path):
    boxes = np.array([[0.5, 0.5, 1, 1], [0, 0, 0.25, 0.25]])
    with StoreWriter(tmp_path / "a.h5", dim=2, record=RECORD) as writer:
        for image_id in ("1", "1#flip"):
            writer.add(image_id, np.ones((2, 2)), boxes, (200, 100), np.array([1, 7]), np.array([0.2, 0.9]))
        many = np.tile(np.array([[0.1, 0.1, 0.6, 0.6]]), (60, 1))
        writer.add("many", np.ones((60, 2)), many, (0, 0), np.arange(60), np.full(60, 0.5))
    return FeatureStore(tmp_path / "a.h5")


def halves() -> Image.Image:
    photo = Image.new("RGB", (200, 100), RED)
    photo.paste(BLUE, (0, 0, 100, 100))
    return photo


@pytest.mark.parametrize(("image_id", "left"), [("1", BLUE), ("1#flip", RED)])
def test_the_photo_is_mirrored_with_its_features(store, image_id, left):
    drawn = np.asarray(draw_regions(store, image_id, photo=halves(), names=["cat", "dog"]))
    middle = len(drawn) // 2
    panel = drawn[middle : middle + 40, 60 : 60 + 300]
    assert (panel == left).all(axis=-1).mean() > 0.9


def test_boxes_are_where_they_belong(store):
    """The box around the lower right quarter: a color along its upper edge, the sheet's gray within."""
    drawn = np.asarray(draw_regions(store, "1")).astype(int)
    grey = (drawn == round(0.93 * 255)).all(axis=-1)
    rows, columns = np.flatnonzero(grey.any(axis=1)), np.flatnonzero(grey.any(axis=0))
    top, bottom, left, right = rows[0], rows[-1], columns[0], columns[-1]
    middle = (top + bottom) // 2, (left + right) // 2
    edge = drawn[middle[0] - 3 : middle[0] + 4, (left + 3 * right) // 4]
    assert (edge.max(axis=1) - edge.min(axis=1)).max() > 100  # a strong color
    assert grey[middle[0] + 60, middle[1] + 60]


def test_many_boxes_without_a_size_or_names(store):
    drawn = draw_regions(store, "many")
    assert drawn.width > drawn.height > 500


def test_another_photo_is_refused(store):
    with pytest.raises(ValueError, match=r"has 50 x 100 pixels, .* image '1' were made of one of 200 x 100"):
        draw_regions(store, "1", photo=Image.new("RGB", (50, 100)))
