"""Images of a folder by name, and images that are held out."""

from __future__ import annotations

from pathlib import Path

import pytest

from coattn.datasets.image_files import ImageFolder, hold_out


def test_images_are_found_by_name(scans: Path) -> None:
    folder = ImageFolder(scans)
    for name in ("ct/B 3.PNG", "ct/B 3", "b 3", "B 3.png", "C:\\scans\\ct\\B 3.PNG", "/elsewhere/B 3.PNG"):
        assert folder.find(name) == "ct/B 3.PNG"
    assert folder.find("1.2.840.113") == "1.2.840.113.png"
    (scans / "a1.jpg").write_bytes((scans / "a2.jpg").read_bytes())
    with pytest.raises(ValueError, match=r"'a1' may be a1\.jpg or a1\.png .*write its full path"):
        ImageFolder(scans).find("a1")
    assert ImageFolder(scans).find("a1.png") == "a1.png"
    with pytest.raises(ValueError, match="holds no image"):
        ImageFolder(_empty(scans))
    with pytest.raises(ValueError, match="is not a folder"):
        ImageFolder(scans / "a1.png")


def _empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def test_hold_out_is_a_function_of_ids_and_seed() -> None:
    ids = [f"image {n}" for n in range(100)]
    assert hold_out(ids, 3, seed=0) == hold_out(reversed(ids), 3, seed=0) == {"image 17", "image 19", "image 74"}
    assert hold_out(ids, 0, seed=0) == set()
