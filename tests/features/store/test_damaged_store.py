"""Damaged, contradictory and foreign store files: each is refused with its name."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from plain_stores import RECORD

from coattn.features.store.reader import FeatureStore


def record(**changed: object) -> str:
    return json.dumps(RECORD | changed)


def damage(path: Path, name: str, value: object) -> None:
    with h5py.File(path, "a") as file:
        if name in file.attrs:
            file.attrs[name] = value
        else:
            del file[name]
            if value is not None:
                file[name] = value


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("offsets", np.array([0, 3, 2, 4, 11, 13]), "offsets falls after image 1"),
        ("offsets", np.array([1, 3, 3, 4, 11, 13]), "offsets begins at 1"),
        ("offsets", np.array([0, 3, 3, 4, 11, 12]), "offsets ends at 12, features has 13 rows"),
        ("offsets", np.array([0, 3, 13]), r"5 image ids, but offsets has shape \(3,\)"),
        ("offsets", np.zeros(6), "offsets is float64"),
        ("offsets", None, "a part is missing: .*offsets"),
        ("image_ids", ["a", "b", "a", "c", "d"], "image id 'a' comes twice"),
        ("image_ids", ["a"], "1 image ids"),
        ("boxes", np.zeros((12, 4), np.float32), r"boxes has shape \(12, 4\), features asks for \(13, 4\)"),
        ("boxes", np.zeros((13, 4)), "boxes is float64"),
        ("boxes", None, "a part is missing: boxes"),
        ("features", None, "a part is missing: features"),
        ("sizes", np.zeros((4, 2), np.int32), r"sizes has shape \(4, 2\)"),
        ("features", np.zeros((13, 5)), "features is float64"),
        ("features", np.zeros((13, 5), np.int8), "int8 features and their scale go together"),
        ("format", "other", "not a feature store of coattn"),
        ("version", 2, "version 2; this coattn reads version 1"),
        ("complete", False, "incomplete"),
        ("extractor", "{", "not a readable feature store"),
        ("extractor", "[]", "the extractor record is not an object"),
        ("extractor", "{}", "the extractor record is damaged, its name is missing or of a wrong type"),
        ("extractor", record(name=5), "its name is"),
        ("extractor", record(settings=[]), "its settings is"),
        ("extractor", record(weights=7), "its weights is"),
        ("extractor", record(weights={"id": "a"}), "its weights is"),
        ("extractor", record(versions=None), "its versions is"),
        ("extractor", record(versions={"sources": [{"file": 1}]}), "its versions.sources is"),
        ("extractor", record(versions={"cut_boxes": "2"}), "its versions.cut_boxes is"),
    ],
)
def test_a_contradictory_file_is_refused(path, name, value, message):
    damage(path, name, value)
    with pytest.raises(ValueError, match=message) as error:
        FeatureStore(path)
    assert str(path) in str(error.value)


def test_a_compressed_file_is_refused(path):
    with h5py.File(path, "a") as file:
        rows = file["features"][()]
        del file["features"]
        file.create_dataset("features", data=rows, compression="gzip")
    with pytest.raises(ValueError, match="features is chunked or compressed"):
        FeatureStore(path)


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.999])
def test_a_truncated_file_is_refused(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=r"a\.h5: (not a readable feature store|is an empty file)"):
        FeatureStore(path)


def test_foreign_files_are_refused(tmp_path):
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.h5: not a readable feature store"):
        FeatureStore(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["weights"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"not a feature store of coattn \(it holds weights\)"):
        FeatureStore(tmp_path / "other.h5")
    with pytest.raises(ValueError, match=r"a folder without manifest\.json"):
        FeatureStore(tmp_path)
    with pytest.raises(FileNotFoundError):
        FeatureStore(tmp_path / "none.h5")


@given(position=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
@example(position=0.17780687436021259, byte=64)  # a type that numpy does not know: ValueError from h5py itself
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_byte_is_read_or_refused_but_nothing_else(path, position, byte):
    data = bytearray(path.read_bytes())
    data[int(position * len(data))] = byte
    damaged = path.with_name("damaged.h5")
    damaged.write_bytes(data)
    try:
        store = FeatureStore(damaged)
    except ValueError as error:
        message = str(error)
    else:
        message = str(damaged)
        assert len(store.read_flat(np.arange(len(store))).features) == store.lengths.sum()
    assert str(damaged) in message
