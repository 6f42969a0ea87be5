from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from coattn import models
from coattn.apps.schema import AskedQuestion
from coattn.cli import main
from coattn.features.extract.extractors.descriptor import Descriptor
from coattn.features.store.reader import StoreWriter
from coattn.predictor import Predictor
from coattn.serialization.directory import save_model
from coattn.serialization.files import WEIGHTS
from coattn.text.vocabulary import AnswerVocabulary, Vocabulary

DOUBTS = ("withheld", "reasons", "unknown_words")
WORDS = Vocabulary(["what", "colour", "is", "it", "red"])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("run") / "model"
    torch.manual_seed(0)
    save_model(
        folder,
        models.modular(num_words=len(WORDS), region_dim=56, num_answers=3, dim=16, embedding_dim=8),
        answer_vocabulary=AnswerVocabulary(["yes", "no", "red"]),
        question_vocabulary=WORDS,
        metric="exact_match",
        activation="softmax",
        extractor=Descriptor().record,
    )
    return str(folder)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 255, (48, 64, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def photo(photos: Path) -> str:
    return str(photos / "0.png")


@pytest.fixture
def store(photos: Path, tmp_path: Path) -> str:
    return write_store(tmp_path / "store.h5", photos, Descriptor().record)


def write_store(path: Path, photos: Path, record: dict[str, Any]) -> str:
    with StoreWriter(path, dim=56, dtype="float32", record=record) as writer:
        for number in range(2):
            regions = Descriptor()([Image.open(photos / f"{number}.png").convert("RGB")])[0]
            writer.add(f"photo/{number}", regions.features, regions.boxes, (64, 48))
    return str(path)


def as_json(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that says why."""
    assert main(["ask", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("coattn: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_answers_for_people(model: str, photo: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", model, photo, "Is it red?", "what colour is it?", "--top-k", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [lines[0], lines[3], lines[4]] == ["Is it red?", "", "what colour is it?"]
    assert len(lines) == 7
    best = Predictor.load(model).ask(photo, "Is it red?")[0]
    assert lines[1].split() == [f"{100 * best.confidence:.1f}", "%", best.text]


def test_answers_for_programs(model: str, photo: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", model, photo, "is it red", "what is it", "--json"]) == 0
    first, second = as_json(capsys)
    assert (first["image"], first["question"], second["question"]) == (photo, "is it red", "what is it")
    expected = [answer._asdict() for answer in Predictor.load(model).ask(photo, "is it red")]
    assert [answer["answer"] for answer in first["answers"]] == [answer["text"] for answer in expected]
    assert first["answers"][0]["confidence"] == pytest.approx(expected[0]["confidence"])
    fields = {"question", "answers", "withheld", "reasons", "unknown_words", "map"}
    assert first.keys() == second.keys() == {"image", *fields}
    del first["image"]
    assert msgspec.to_builtins(msgspec.convert(first, AskedQuestion)) == first


@pytest.mark.parametrize(
    "order", [["{image}", "is it red", "--features", "{store}"], ["{image}", "--features", "{store}", "is it red"]]
)
def test_options_stand_anywhere(order: list[str], model: str, store: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [argument.format(image="photo/1", store=store) for argument in order]
    assert main(["ask", model, *arguments, "--json"]) == 0
    assert as_json(capsys)[0]["image"] == "photo/1"


def test_a_store_gives_the_same_answers(
    model: str, store: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ask", model, str(photos / "1.png"), "is it red", "--json"]) == 0
    assert main(["ask", model, "photo/1", "is it red", "--json", "--features", store]) == 0
    from_file, from_store = as_json(capsys)
    for a, b in zip(from_file["answers"], from_store["answers"], strict=True):
        assert a["answer"] == b["answer"]
        assert a["confidence"] == pytest.approx(b["confidence"], abs=1e-6)


# Pictures


def test_draws_pictures(model: str, photo: str, store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, head, several = (tmp_path / "maps" / name for name in ("one.png", "head.jpg", "several.webp"))
    assert main(["ask", model, photo, "is it red", "--map", str(one)]) == 0
    name = "layers.2.regions_to_question"
    choice = ["--map-name", name, "--head", "1", "--word", "red"]
    assert main(["ask", model, photo, "is it red", "--map", str(head), *choice]) == 0
    assert main(["ask", model, photo, "is it red", "what is it", "--map", str(several), "--json"]) == 0
    assert [Image.open(path).format for path in (one, head, several)] == ["PNG", "JPEG", "WEBP"]
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == ["head.jpg", "one.png", "several.webp"]
    assert f"{one} explains the answer" in capsys.readouterr().out


def test_draws_the_image_of_an_id(model: str, photo: str, store: str, tmp_path: Path) -> None:
    pictures = [tmp_path / "without.png", tmp_path / "with.png"]
    base = ["ask", model, "photo/0", "is it red", "--features", store, "--map"]
    assert main([*base, str(pictures[0])]) == 0
    assert main([*base, str(pictures[1]), "--image", photo]) == 0
    without, shown = (np.asarray(Image.open(path), float) for path in pictures)
    assert without.shape == shown.shape
    assert np.abs(without - shown).mean() > 5


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (["--map", "x.bmp"], "must end in .png"),
        (["--map-name", "pooling.regions"], "give --map too"),
        (["--map", "{out}", "--map-name", "pooling"], "no map is called 'pooling'"),
        (["--map", "{out}", "--map-name", "layers.2.regions_to_question"], "has the heads 0 to 3: name one"),
        (["--map", "{out}", "--map-name", "layers.2.regions_to_question", "--head", "7"], "not 7"),
        (["--map", "{out}", "--map-name", "layers.2.regions_to_question", "--head", "0", "--word", "b"], "no word 'b'"),
    ],
)
def test_a_map_that_is_not_there(
    choice: list[str], message: str, model: str, photo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.png"
    error = refused([model, photo, "is it red", *(word.format(out=out) for word in choice)], capsys)
    assert message in error
    assert not out.exists()


# What cannot be answered


def test_one_clear_message(
    model: str, photo: str, store: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.png").write_text("no image")
    table = str(tmp_path / "t.csv")
    Path(table).write_text("image,question\n")
    other = write_store(tmp_path / "other.h5", photos, Descriptor(grid=(2, 2)).record)
    cases: list[tuple[list[str], str]] = [
        ([model], "at least one question"),
        ([model, photo], "at least one question"),
        ([model, photo, ""], "has no word in it"),
        ([model, photo, "is it red", "??"], "'??' has no word in it"),
        ([model, "missing.png", "is it red"], "missing.png"),
        ([model, str(tmp_path / "text.png"), "is it red"], "text.png: not an image"),
        ([model, str(tmp_path), "is it red"], str(tmp_path)),
        ([str(tmp_path), photo, "is it red"], "is a folder, not a model directory"),
        ([model, "is it red", photo], f"{photo}: is an image, not a question; give MODEL IMAGE QUESTION"),
        ([model, photo, "is it red", photo], "is an image, not a question"),
        ([photo, model, "is it red"], f"{photo}: is an image, not a model; give MODEL IMAGE QUESTION"),
        ([model, model, "is it red"], f"{model}: is a model directory, not a file"),
        ([str(tmp_path / "missing"), photo, "is it red"], "there is no such model directory"),
        ([model, "photo/1", "is it red", "--features", table], "t.csv: is a table, not a feature store"),
        ([model, "photo/1", "is it red", "--features", model], "is a model directory without manifest.json"),
        ([model, "--table", photo, "--out", "y.csv"], "is an image; a table is a file of the kind"),
        ([model, photo, "is it red", "--top-k", "0"], "top_k must be at least 1"),
        ([model, photo, "is it red", "--device", "abacus"], "'abacus' is not there"),
        ([model, "photo/3", "is it red", "--features", store], "no features of image 'photo/3'"),
        ([model, "photo/1", "is it red", "--features", "missing.h5"], "missing.h5"),
        ([model, "photo/1", "is it red", "--features", other], "settings.grid"),
        ([model, photo, "is it red", "--image", photo], "--features STORE"),
        ([model, photo, "is it red", "--table", "x.csv", "--out", "y.csv"], "leave out IMAGE"),
        ([model, "--table", "x.csv"], "go together"),
        ([model, photo, "is it red", "--out", "x.csv"], "go together"),
        ([model, photo, "is it red", "--images", "."], "--images is for"),
        ([model, photo, "is it red", "--max-risk", "5"], "(--max-risk) is a share between 0 and 1"),
        ([model, photo, "is it red", "--answer-anyway"], "(--max-risk) withholds: give both"),
        ([model, photo, "is it red", "--method", "rollout"], "give --map too"),
        ([model, photo, "is it red", "--map", "x.png", "--method", "magic"], "no method of explanation 'magic'"),
        ([model, photo, "is it red", "--map", "x.png", "--method", "rollout", "--head", "0"], "choose one"),
        ([model, photo, "is it red", "--map", photo], "would replace a file that this command reads"),
        ([model, "--table", table, "--out", f"{tmp_path}/../{tmp_path.name}/t.csv"], "would replace a file"),
    ]
    for arguments, message in cases:
        assert message in refused(arguments, capsys)


def test_features_of_another_extractor_if_asked_for(
    model: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_store(tmp_path / "other.h5", photos, Descriptor(grid=(2, 2)).record)
    assert main(["ask", model, "photo/1", "is it red", "--features", other, "--allow-other-features"]) == 0
    assert "coattn: warning: " in capsys.readouterr().err


def test_a_broken_model_is_named(model: str, photo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in Path(model).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / WEIGHTS).write_bytes(b"\0" * 100)
    assert WEIGHTS in refused([str(tmp_path), photo, "is it red"], capsys)


def test_unknown_words_are_named_everywhere(
    model: str, photo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["ask", model, photo, "what color is it?", "--json"]) == 0
    captured = capsys.readouterr()
    (entry,) = [json.loads(line) for line in captured.out.splitlines()]
    assert (entry["unknown_words"], entry["withheld"]) == (["color"], False)
    assert entry["reasons"] == ["The model does not know the word “color”."]
    assert len(entry["answers"]) == 3
    reason = "The model does not know the word “color”."
    assert "coattn: warning" not in captured.err  # said once
    assert main(["ask", model, photo, "what color is it?", "--top-k", "1"]) == 0
    captured = capsys.readouterr()
    assert f"      !    {reason}" in captured.out
    assert captured.err.count(f"coattn: warning: {reason} The question was: what color is it?\n") == 1
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["ask", model, photo, "what color is it?"]) == 0
    assert "coattn: warning" not in capsys.readouterr().err
    table = write_table(tmp_path / "in.csv", f"image,question\n{photo},what color is it?\n{photo},is it red?\n")
    assert main(["ask", model, "--table", table, "--out", str(tmp_path / "out.csv")]) == 0
    unknown, known = read_table(tmp_path / "out.csv")
    assert (unknown["unknown_words"], unknown["reasons"], unknown["withheld"]) == ("color", reason, "no")
    assert (known["unknown_words"], known["reasons"], known["withheld"]) == ("", "", "no")


def test_what_is_withheld_is_said(model: str, photo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    question = [model, photo, "is it red", "--max-risk", "0.05"]  # of a model without a certificate
    assert main(["ask", *question]) == 0
    captured = capsys.readouterr()
    assert "I don't know\n      !    No risk can be promised: the model has no certificate.\n" in captured.out
    assert f"coattn: note: {model} has no current certificate.json and index.safetensors" in captured.err
    assert main(["ask", *question, "--json"]) == 0
    (entry,) = as_json(capsys)
    assert (entry["answers"], entry["withheld"], len(entry["reasons"])) == ([], True, 1)
    picture = tmp_path / "map.png"
    assert main(["ask", *question, "--answer-anyway", "--json", "--map", str(picture)]) == 0
    (entry,) = as_json(capsys)
    assert (len(entry["answers"]), entry["withheld"], len(entry["reasons"])) == (3, False, 1)
    assert picture.is_file()
    table = write_table(tmp_path / "in.csv", f"image,question\n{photo},is it red?\n")
    assert main(["ask", model, "--table", table, "--out", str(tmp_path / "out.csv"), "--max-risk", "0.05"]) == 0
    (row,) = read_table(tmp_path / "out.csv")
    assert (row["answer"], row["confidence"], row["withheld"]) == ("I don't know", "", "yes")
    assert "no certificate" in row["reasons"]


# Tables


def write_table(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_answers_a_table(model: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ['1,photos/0.png,is it red,"a, ""b"""', "2,photos/1.png,what is it,ü", "3,photos/0.png,red,"]
    table = write_table(tmp_path / "in.csv", "\n".join(["id,image,question,note", *lines]))
    out = tmp_path / "answers" / "out.csv"
    assert main(["ask", model, "--table", table, "--out", str(out)]) == 0
    rows = read_table(out)
    assert list(rows[0]) == ["id", "image", "question", "note", "answer", "confidence", *DOUBTS, "error"]
    assert [row["note"] for row in rows] == ['a, "b"', "ü", ""]
    predictor = Predictor.load(model)
    for row, (name, question) in zip(rows, [(0, "is it red"), (1, "what is it"), (0, "red")], strict=True):
        best = predictor.ask(photos / f"{name}.png", question)[0]
        assert (row["answer"], row["error"]) == (best.text, "")
        assert float(row["confidence"]) == pytest.approx(best.confidence, abs=1e-4)
    assert f"3 of 3 questions answered in {out}" in capsys.readouterr().out


def test_a_row_that_cannot_be_answered_says_why(
    model: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "broken.png").write_text("no image")
    lines = ["0.png,is it red", "0.png,", "missing.png,is it red", "broken.png,red", ",red", "0.png,red", "0.png"]
    table = write_table(tmp_path / "in.csv", "\n".join(["image,question", *lines]))
    out = tmp_path / "out.csv"
    assert main(["ask", model, "--table", table, "--images", str(photos), "--out", str(out)]) == 1
    rows = read_table(out)
    assert [bool(row["answer"]) for row in rows] == [True, False, False, False, False, True, False]
    messages = ("no word", "missing.png", "broken.png", "no image is named")
    for row, message in zip([*rows[1:5], rows[6]], (*messages, "no word"), strict=True):
        assert message in row["error"]
        assert "Errno" not in row["error"]
    captured = capsys.readouterr()
    assert "2 of 7 questions answered" in captured.out
    assert [line.split(": ")[2] for line in captured.err.splitlines() if "note" not in line] == [
        "line 3",
        "line 4",
        "line 5",
        "line 6",
        "line 8",
    ]


def test_a_table_extracts_each_image_once(
    model: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    describe = Descriptor.describe
    monkeypatch.setattr(Descriptor, "describe", lambda self, pixels: seen.append(len(pixels)) or describe(self, pixels))
    lines = [f"photos/{number % 2}.png,is it red" for number in range(6)]
    table = write_table(tmp_path / "in.csv", "\n".join(["image,question", *lines]))
    assert main(["ask", model, "--table", table, "--out", str(tmp_path / "out.csv")]) == 0
    assert sum(seen) == 2


def test_a_table_of_ids(model: str, store: str, tmp_path: Path) -> None:
    table = write_table(tmp_path / "in.jsonl", '{"Image": "photo/1", "Question": "red"}\n{"Image": "x", "Question": 1}')
    assert main(["ask", model, "--table", table, "--features", store, "--out", str(tmp_path / "out.csv")]) == 1
    first, second = read_table(tmp_path / "out.csv")
    assert first["answer"]
    assert "no features of image 'x'" in second["error"]


def test_a_table_keeps_its_own_answers(model: str, photos: Path, tmp_path: Path) -> None:
    table = write_table(tmp_path / "in.csv", "image,question,answer\nphotos/0.png,red,blue\n")
    assert main(["ask", model, "--table", table, "--out", str(tmp_path / "out.csv")]) == 0
    (row,) = read_table(tmp_path / "out.csv")
    assert row["answer"] == "blue"
    assert row["model_answer"] in ("yes", "no", "red")
    assert set(row) == {"image", "question", "answer", "model_answer", "model_confidence", "model_error"} | {
        f"model_{name}" for name in DOUBTS
    }


def test_a_table_without_a_column_says_which_it_has(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_table(tmp_path / "in.csv", "picture,question\n0.png,red\n")
    error = refused([model, "--table", table, "--out", str(tmp_path / "out.csv")], capsys)
    assert f"{table}: there is no column for image; the table has 'picture', 'question'" in error
    assert not (tmp_path / "out.csv").exists()


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["ask", "--help"])
    assert 'coattn ask runs/mine/model kitchen.jpg "what is on the table?"' in capsys.readouterr().out


def test_a_table_is_read_as_prepare_reads_it(model: str, photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "scans.csv"
    table.write_bytes("Image Name;Frage\n0;is it ro\xdf\n".encode("latin-1"))
    command = ["ask", model, "--table", str(table), "--images", str(photos), "--out", str(tmp_path / "out.csv")]
    assert main([*command, "--encoding", "latin-1", "--column", "question=Frage"]) == 0
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        assert next(csv.DictReader(file))["Frage"] == "is it ro\xdf"
