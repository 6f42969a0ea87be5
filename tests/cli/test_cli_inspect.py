from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from coattn.cli import main
from coattn.features.store import StoreWriter

RECORD = {"name": "test", "settings": {"grid": [2, 2]}, "weights": None, "versions": {}}


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "a.h5"
    with StoreWriter(path, dim=2, dtype="float32", record=RECORD) as writer:
        writer.add("x", np.array([[1, 2], [0, 0]]), np.array([[0, 0, 0.5, 0.5], [0.2, 0, 0.2, 1]]), (640, 480))
        writer.add("y", np.array([[3, -6]]), np.array([[0, 0, 1, 1]]), (640, 480))
        writer.add("z", np.zeros((0, 2)), np.zeros((0, 4)), (640, 480))
        writer.skip("w", "w.jpg", "not an image")
    return path


def test_json(store, capsys):
    assert main(["inspect", str(store), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], found["rows"], found["dim"], found["dtype"]) == (3, 3, 2, "float32")
    assert found["rows_per_image"] == {"min": 0, "mean": 1.0, "max": 2}
    assert found["extractor"] == RECORD
    assert found["skipped"] == [{"image_id": "w", "path": "w.jpg", "reason": "not an image"}]
    assert found["values"] == {"min": -6.0, "mean": 0.0, "max": 3.0, "nan": 0, "infinite": 0, "all_zero_rows": 1}
    assert found["boxes"] == {"outside_image": 0, "reversed": 0, "without_area": 1}


def test_sick_values_are_counted(store, capsys):
    with h5py.File(store, "a") as file:
        file["features"][0] = [np.nan, np.inf]
        file["boxes"][0] = [0.5, 0, 0.1, 7]
    assert main(["inspect", str(store), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["values"]["nan"], found["values"]["infinite"], found["values"]["max"]) == (1, 1, 3.0)
    assert found["boxes"] == {"outside_image": 1, "reversed": 1, "without_area": 1}


def test_text(store, capsys):
    assert main(["inspect", str(store)]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for line in ("images 3", "dtype float32", "name test", "grid 2 2", "w, w.jpg, not an image", "mean 1"):
        assert line in lines


def test_an_empty_store(tmp_path, capsys):
    with StoreWriter(tmp_path / "a.h5", dim=2, record=RECORD):
        pass
    assert main(["inspect", str(tmp_path / "a.h5"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], found["values"]["max"]) == (0, None)


def test_something_else(tmp_path, capsys):
    (tmp_path / "a.h5").write_text("hello")
    assert main(["inspect", str(tmp_path / "a.h5")]) == 2
    assert "not a readable feature store" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path / "none.h5")]) == 2
    assert "No such file" in capsys.readouterr().err
