from __future__ import annotations

import json
import re

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from coattn import models
from coattn.cli import main
from coattn.features.store.reader import StoreWriter
from coattn.serialization.directory import save_model
from coattn.text.vocabulary import AnswerVocabulary, Vocabulary

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
    assert found["images_by_rows"] == {"0": 1, "1": 1, "2": 1}
    assert found["bad_images"] == {"number": 0, "first": []}
    assert "each" not in found["dimensions"]


def test_sick_values_are_counted(store, capsys):
    with h5py.File(store, "a") as file:
        file["features"][0] = [np.nan, np.inf]
        file["boxes"][0] = [0.5, 0, 0.1, 7]
    assert main(["inspect", str(store), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["values"]["nan"], found["values"]["infinite"], found["values"]["max"]) == (1, 1, 3.0)
    assert found["boxes"] == {"outside_image": 1, "reversed": 1, "without_area": 1}
    assert found["bad_images"] == {"number": 1, "first": ["x"]}


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
    assert main(["inspect", str(tmp_path)]) == 2
    assert "not a feature store, model directory or prepared data set: it has no" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path / "none.h5")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_dimensions(tmp_path, capsys):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 7)).astype(np.float32)
    rows[:, 2], rows[:, 4], rows[7, 5] = 0, 1.5, 1000
    with StoreWriter(tmp_path / "a.h5", dim=7, dtype="float32", record=RECORD) as writer:
        for number, block in enumerate(np.split(rows, range(10, 300, 20))):
            writer.add(number, block)
    assert main(["inspect", str(tmp_path / "a.h5"), "--json", "--per-dimension"]) == 0
    found = json.loads(capsys.readouterr().out)["dimensions"]
    for kind, dimension in (("dead", 2), ("constant", 4), ("extreme", 5)):
        assert found[kind] == {"number": 1, "first": [dimension]}
    np.testing.assert_allclose(found["each"]["mean"], rows.mean(axis=0, dtype=float), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found["each"]["deviation"], rows.std(axis=0, dtype=float), rtol=1e-6, atol=1e-9)
    assert found["each"]["min"] == rows.min(axis=0).tolist()
    assert main(["inspect", str(tmp_path / "a.h5")]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "dead 1 (first 2)" in lines
    assert "20 14 " + "#" * 40 in lines


def test_many_numbers_of_rows_are_ranges(tmp_path, capsys):
    with StoreWriter(tmp_path / "a.h5", dim=1, record=RECORD) as writer:
        for number in range(10, 101):
            writer.add(number, np.ones((number, 1)))
    assert main(["inspect", str(tmp_path / "a.h5"), "--json"]) == 0
    bars = json.loads(capsys.readouterr().out)["images_by_rows"]
    assert bars == {f"{start}-{start + 9}": 10 for start in range(10, 100, 10)} | {"100-109": 1}


def test_picture(tmp_path, store, capsys):
    photo = Image.new("RGB", (320, 240), (200, 30, 30))
    photo.save(tmp_path / "x.png")
    out = tmp_path / "boxes.png"
    picture = ["--image", "x", "--picture", str(out)]
    assert main(["inspect", str(store), *picture, "--image-file", str(tmp_path / "x.png")]) == 0
    with Image.open(out) as drawn:
        distance = np.abs(np.asarray(drawn.convert("RGB")).astype(int) - [200, 30, 30])
    assert (distance <= 2).all(axis=-1).mean() > 0.3
    assert main(["inspect", str(store), *picture]) == 0
    Image.new("RGB", (240, 320)).save(tmp_path / "x.png")
    before = out.read_bytes()
    for wrong, message in (
        ([*picture, "--image-file", str(tmp_path / "x.png")], "the photo has 240 x 320 pixels, .* of 640 x 480"),
        ([*picture[:3], "boxes.jpg"], "the name must end in .png"),
        ([*picture[:3], str(tmp_path / "x.png"), "--image-file", str(tmp_path / "x.png")], "would replace a file"),
        (["--image", "x"], "a picture needs --image ID and --picture"),
        (["--image", "nope", "--picture", str(out)], "no features of image 'nope'"),
        (["--per-dimension"], "needs --json"),
    ):
        capsys.readouterr()
        assert main(["inspect", str(store), *wrong]) == 2
        assert re.search(message, capsys.readouterr().err)
    assert out.read_bytes() == before


def test_flipped_bits_are_named(store, capsys):
    assert main(["inspect", str(store), "--verify", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["checksums"] == {"files_without": 0, "damaged": {"number": 0, "first": []}}
    assert (found["boxes_known"], found["images_of_unknown_size"]) == (True, 0)
    with h5py.File(store, "a") as file:
        file["boxes"][0] = [0, 0, 0.25, 0.5]
    assert main(["inspect", str(store), "--verify", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["checksums"]["damaged"] == {"number": 1, "first": [f"{store}: boxes"]}


def test_a_model_directory(tmp_path, capsys):
    torch.manual_seed(0)
    words, answers = Vocabulary(["what", "is", "it"]), AnswerVocabulary(["yes", "no"])
    model = models.modular(num_words=len(words), region_dim=6, num_answers=2, dim=8, num_heads=2, embedding_dim=4)
    folder = tmp_path / "model"
    kinds = {"metric": "exact_match", "activation": "softmax", "extractor": RECORD}
    save_model(folder, model, answer_vocabulary=answers, question_vocabulary=words, card="# A model", **kinds)
    (folder / "certificate.json").write_text("[]")
    assert main(["inspect", str(folder), "--json", "--per-dimension"]) == 2
    assert "--per-dimension is for feature stores, and this is a model" in capsys.readouterr().err
    assert main(["inspect", str(folder), "--verify", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["model"], found["answers"], found["question_words"]) == ("VQAModel", 2, 3)
    assert found["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert found["checksums"] == {"without": ["certificate.json"], "damaged": {"number": 0, "first": []}}
    assert main(["inspect", str(folder)]) == 0
    assert "question_vocabulary.json" in capsys.readouterr().out
    text = (folder / "answers.json").read_text()
    (folder / "answers.json").write_text(text.replace("yes", "yet"))
    assert main(["inspect", str(folder)]) == 2
    assert "answers.json: damaged: its SHA-256 is not the one in config.json" in capsys.readouterr().err
    assert main(["inspect", str(folder), "--verify", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["checksums"]["damaged"] == {"number": 1, "first": ["answers.json"]}


def test_a_prepared_data_set(tmp_path, capsys):
    Image.new("RGB", (8, 6)).save(tmp_path / "0.png")
    (tmp_path / "table.csv").write_text("image,question,answer,split\n0.png,What is it?,cup,train\n")
    prepared = str(tmp_path / "data")
    assert main(["prepare", "table", str(tmp_path / "table.csv"), prepared, "--images", str(tmp_path)]) == 0
    capsys.readouterr()
    assert main(["inspect", prepared, "--verify"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "table (exact_match)"
    assert "train: 1 questions on 1 images" in lines
    assert lines[-1] == "missing images: 0"
    (tmp_path / "0.png").unlink()
    assert main(["inspect", prepared, "--verify"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "missing images: 1 (first 0.png)"
    (tmp_path / "data" / "train_questions.json").write_text("{")
    assert main(["inspect", prepared]) == 2
    assert "train_questions.json: not valid JSON" in capsys.readouterr().err
    (tmp_path / "data" / "train_questions.json").unlink()
    assert main(["inspect", prepared]) == 2
    assert "has no questions any more; run coattn prepare again" in capsys.readouterr().err
