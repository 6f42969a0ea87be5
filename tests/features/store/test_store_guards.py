"""A store refuses faults while it is read: damage since it was written, links out of the file, ids of two stores."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from stores import RECORD, write

from coattn.features.store.joined import JoinedStore
from coattn.features.store.part_reader import read_part
from coattn.features.store.reader import FeatureStore, StoreWriter


def overwrite(store: FeatureStore, content: bytes, *, row: int = 0) -> Path:
    """Change bytes of the first file's features in place, as damage on a disk does."""
    column = store.parts[0].columns["features"]
    with store.parts[0].path.open("r+b") as file:
        file.seek(column.offset + row * column.shape[1] * column.dtype.itemsize)
        file.write(content)
    return store.parts[0].path


@pytest.mark.parametrize(("dtype", "value"), [("float16", np.nan), ("float32", np.inf)])
def test_features_that_are_not_finite_are_refused_with_their_image(tmp_path: Path, dtype: str, value: float) -> None:
    store = write(tmp_path / "a.h5", dtype=dtype)
    overwrite(store, np.array([value], dtype).tobytes(), row=4)  # rows 4 to 10 are those of image 3
    store.read_flat(np.array([0, 2]))
    for read in (store.read_flat, store.read_padded):
        with pytest.raises(ValueError, match=r"a\.h5: image '3' has features that are NaN or infinite"):
            read(np.array([0, 3]))
    with pytest.raises(ValueError, match="image '3'"):
        store.read(3)
    assert len(FeatureStore(tmp_path / "a.h5", check_finite=False).read(3).features) == 7


def test_a_file_that_is_cut_while_it_is_in_use_is_refused(tmp_path: Path) -> None:
    store = write(tmp_path / "a.h5")
    store.read(3)
    with (tmp_path / "a.h5").open("r+b") as file:
        file.truncate(store.parts[0].columns["features"].offset + 10)
    with pytest.raises(ValueError, match=r"a\.h5: was truncated to \d+ bytes while it was in use"):
        store.read_padded(np.array([5]))
    with pytest.raises(ValueError, match=r"a\.h5: was truncated"):
        store.padded_boxes(np.array([5]))


def test_flipped_bits_are_found(tmp_path: Path) -> None:
    store = write(tmp_path / "a.h5")
    assert read_part(store.parts[0].path).damaged() == []
    assert read_part(tmp_path / "a.h5").checksums.keys() == {"features", "boxes", "offsets", "sizes"}
    overwrite(store, b"\x01")
    assert read_part(tmp_path / "a.h5").damaged() == ["features"]


def test_links_to_other_files_are_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file["features"]
        file["features"] = h5py.ExternalLink("other", "/features")
    with pytest.raises(ValueError, match=r"a\.h5: features is a link to another place or file"):
        FeatureStore(tmp_path / "a.h5")


def test_two_stores_with_one_id_are_refused(tmp_path: Path) -> None:
    stores = [write(tmp_path / "a.h5"), write(tmp_path / "b.h5", prefix="b"), write(tmp_path / "c.h5")]
    with pytest.raises(ValueError, match=r"a\.h5 and .*c\.h5 both hold image '0' \(6 shared ids in all\)"):
        JoinedStore(stores)


def test_unknown_boxes_and_sizes_stay_unknown(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "a.h5", dim=2, record=RECORD) as writer:
        writer.add("x", np.ones((3, 2)))
        with pytest.raises(ValueError, match="boxes, labels, scores and attributes must be given for every image"):
            writer.add("y", np.ones((1, 2)), np.zeros((1, 4)))
    store = FeatureStore(tmp_path / "a.h5")
    assert not store.has_boxes
    assert store.sizes.tolist() == [[0, 0]]
    assert "boxes" not in store.parts[0].columns
    assert not store.read(0).boxes.any()
    assert store.read_padded(np.array([0])).boxes.shape == (1, 3, 4)
    assert not JoinedStore([store, write(tmp_path / "b.h5", dim=2)]).has_boxes
    assert write(tmp_path / "c.h5").has_boxes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "not the manifest of a feature store"),
        ('{"format": "coattn-features", "version": 9}', "version 9"),
        ('{"format": "coattn-features", "version": 1}', "damaged manifest"),
        (
            '{"format": "coattn-features", "version": 1, '
            '"extractor": {"name": "x", "settings": {}, "weights": null}, "dim": 1, '
            '"dtype": "int8", "flips": false, "units": [{"shard": "../x.h5", "images": {}}]}',
            "damaged manifest",
        ),
        (
            '{"format": "coattn-features", "version": 1, '
            '"extractor": {"name": "x", "settings": {}, "weights": null}, "dim": 1, '
            '"dtype": [], "flips": false, "units": []}',
            "damaged manifest",
        ),
    ],
)
def test_a_bad_manifest_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        FeatureStore(tmp_path)
    assert "manifest.json" in str(error.value)
