"""Published data sets from their authors' files: the same records unpacked and zipped."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from published_fixtures import SETS, lay_out, prepare, prepared

from coattn.cli import main
from coattn.datasets.readers import READERS
from coattn.datasets.records import Record

pytestmark = pytest.mark.usefixtures("no_picture")


@pytest.mark.parametrize("command", SETS)
def test_unpacked_and_packed_give_the_same(command: str, tmp_path: Path) -> None:
    plain = lay_out(tmp_path / "plain", SETS[command])
    archive = lay_out(tmp_path / "packed", SETS[command], zipped=True)
    gzipped = lay_out(tmp_path / "gzipped", SETS[command])
    for path in [path for path in gzipped.rglob("*") if path.is_file()]:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    found = []
    for number, source in enumerate((plain, archive.parent, archive, gzipped)):
        assert prepare(command, source, tmp_path / f"out{number}") == 0
        found.append(prepared(tmp_path / f"out{number}"))
    assert found[0] == found[1] == found[2] == found[3]
    assert sum(map(len, found[0].values())) >= 1
    report = json.loads((tmp_path / "out0" / "report.json").read_text())
    assert {split: len(records) for split, records in found[0].items()} == {
        split: entry["questions"] for split, entry in report["splits"].items()
    }


def test_every_reader_is_tried_here_or_elsewhere() -> None:
    here = {command.split()[0] for command in SETS}
    assert set(READERS) - here == {"vqa-cp-v1", "daquar", "easy-vqa", "sort-of-clevr", "table"}


def test_help_lists_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["prepare", "--help"])
    text = capsys.readouterr().out
    assert [name for name in READERS if f"    {name}" not in text] == []


@pytest.fixture
def records(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, list[Record]]:
    assert prepare(request.param, lay_out(tmp_path / "in", SETS[request.param]), tmp_path / "out") == 0
    return prepared(tmp_path / "out")


@pytest.mark.parametrize("records", ["vqa-v2"], indirect=True)
def test_vqa_v2(records: dict[str, list[Record]]) -> None:
    assert {split: [r.question_id for r in found] for split, found in records.items()} == {
        "train": [458752000],
        "val": [2000],
        "test": [1],
    }
    assert records["train"][0].answers == ("net",) * 10
    assert records["test"][0].answers == ()


@pytest.mark.parametrize("records", ["vqa-v1 --task multiple-choice"], indirect=True)
def test_vqa_v1_has_choices(records: dict[str, list[Record]]) -> None:
    assert records["train"][0].choices == ("net", "no")


@pytest.mark.parametrize("records", ["vqa-cp-v2"], indirect=True)
def test_vqa_cp_holds_out_images_of_train(records: dict[str, list[Record]]) -> None:
    assert {split: len(found) for split, found in records.items()} == {"train": 9, "val": 1, "test": 2}
    assert not {r.image_id for r in records["train"]} & {r.image_id for r in records["val"]}
    assert records["test"][0].extra["coco_split"] == "train2014"


@pytest.mark.parametrize("records", ["gqa"], indirect=True)
def test_gqa_keeps_what_the_scores_need(records: dict[str, list[Record]]) -> None:
    first, second = records["train"]
    assert (first.question_id, first.image_id, first.answers) == ("1", "n5", ("picture",))
    assert (first.question_type, first.answer_type, second.answer_type) == ("query", "other", "yes/no")
    assert first.extra["groups"] == {"global": "thing", "local": "14-x"}
    assert (first.extra["entailed"], first.extra["equivalent"]) == (["2"], ["1"])
    assert first.extra["types"]["semantic"] == "rel"
    assert first.extra["fullAnswer"] == "The picture."
    assert first.extra["isBalanced"] is True
    assert "semanticStr" not in first.extra
    assert records["test"][0].answers == ()


@pytest.mark.parametrize("records", ["clevr"], indirect=True)
def test_clevr(records: dict[str, list[Record]]) -> None:
    record = records["val"][1]
    assert (record.question_id, record.image_id, record.answers) == (1, "CLEVR_val_000000", ("3",))
    assert (record.question_type, record.answer_type, record.extra) == (
        "count",
        "number",
        {"question_family_index": 42},
    )
    assert records["test"][0].answers == ()


@pytest.mark.parametrize("records", ["coco-qa --val-fraction 0"], indirect=True)
def test_coco_qa(records: dict[str, list[Record]]) -> None:
    assert [(r.question_id, r.image_id, r.question_type, r.answer_type) for r in records["test"]] == [
        ("test/0", 7, "object", "other"),
        ("test/1", 8, "number", "number"),
    ]


@pytest.mark.parametrize("records", ["vizwiz"], indirect=True)
def test_vizwiz(records: dict[str, list[Record]]) -> None:
    record = records["val"][0]
    assert record.image_id == "VizWiz_val_00000000.jpg"
    assert record.answers == ("soup",) * 9 + ("can",)
    assert (record.answer_type, record.extra) == ("other", {"answerable": 1})
    assert records["test"][0].answers == ()


@pytest.mark.parametrize("records", ["a-okvqa"], indirect=True)
def test_a_okvqa(records: dict[str, list[Record]]) -> None:
    record = records["train"][0]
    assert record.choices == ("skateboarder", "train", "delivery", "cab")
    assert record.answer == "cab"
    assert record.answers.count("ride") == 9
    assert records["test"][0].choices == record.choices


@pytest.mark.parametrize("records", ["vqa-rad --val-fraction 0"], indirect=True)
def test_vqa_rad(records: dict[str, list[Record]]) -> None:
    assert [(r.question_id, r.image_id, r.answers, r.answer_type) for r in records["train"]] == [
        (0, "synpic1", ("Yes",), "closed"),
        (1, "synpic2", ("5",), "open"),
    ]
    assert [(r.question_id, r.answer_type) for r in records["test"]] == [(2, "closed")]


@pytest.mark.parametrize("records", ["pathvqa"], indirect=True)
def test_pathvqa(records: dict[str, list[Record]]) -> None:
    assert [(r.question_id, r.image_id, r.answers) for r in records["train"]] == [
        ("train/0", "train_0422", ("in the canals",))
    ]
    assert [(r.question, r.answers, r.answer_type) for r in records["val"]] == [("Is it?", ("yes",), "yes/no")]


def test_slake_by_language(tmp_path: Path) -> None:
    source = lay_out(tmp_path / "in", SETS["slake"])
    for language, answers in (("en", ["MRI"]), ("zh", ["是"]), ("all", ["MRI", "是"])):
        assert prepare("slake", source, tmp_path / language, "--language", language) == 0
        found = prepared(tmp_path / language)
        assert [r.answer for r in found["val"]] == answers
    assert found["val"][0].image_id == "xmlab1/source.jpg"
    assert [r.answer_type for r in found["val"]] == ["open", "closed"]


def test_shapes_come_with_their_images(tmp_path: Path) -> None:
    assert prepare("shapes", lay_out(tmp_path / "in", SETS["shapes"]), tmp_path / "out") == 0
    with Image.open(tmp_path / "out" / "images" / "val" / "1.png") as image:
        assert image.size == (30, 30)
        assert image.getpixel((0, 0)) == (0, 0, 255)


def test_real_shapes(shared_data: Path, tmp_path: Path) -> None:
    assert prepare("shapes", shared_data / "shapes", tmp_path / "out", "--part", "tiny") == 0
    found = prepared(tmp_path / "out")
    assert {split: len(records) for split, records in found.items()} == {"train": 64, "val": 1024, "test": 1024}
    assert round(100 * sum(r.answer == "false" for r in found["test"]) / 1024, 1) == 63.4


def test_real_gqa_questions(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "official_format_fixtures"
    (tmp_path / "in").mkdir()
    shutil.copy(folder / "gqa" / "questions.json", tmp_path / "in" / "train_balanced_questions.json")
    for number in (0, 1):
        part = folder / "gqa" / "question_dir" / f"questions{number}.json"
        shutil.copy(part, tmp_path / "in" / f"val_balanced_questions_{number}.json")
    assert prepare("gqa", tmp_path / "in", tmp_path / "out", "--images", str(folder / "images" / "gqa")) == 0
    official = json.loads((folder / "gqa" / "questions.json").read_text())
    found = {str(r.question_id): r for r in prepared(tmp_path / "out")["train"]}
    assert list(found) == list(official)
    for key, entry in official.items():
        assert (found[key].question, found[key].answer, found[key].image_id) == tuple(
            entry[name] for name in ("question", "answer", "imageId")
        )
        assert found[key].extra["types"] == entry["types"]
    assert set(json.loads((tmp_path / "out" / "images.json").read_text())) == {"n578564", "n166008"}


def test_real_vqa_v2_questions(shared_data: Path, tmp_path: Path) -> None:
    """9,000 real questions and their photos; counted independently from the official files."""
    folder = shared_data / "vqa_v2_subset"
    (tmp_path / "in").mkdir()
    shutil.copy(folder / "vqa_questions_valid.json.gz", tmp_path / "in/v2_OpenEnded_mscoco_val2014_questions.json.gz")
    shutil.copy(folder / "vqa_annotations_valid.json.gz", tmp_path / "in/v2_mscoco_val2014_annotations.json.gz")
    for kind in ("OpenEnded_mscoco_train2014_questions", "mscoco_train2014_annotations"):
        shutil.copy(folder / f"v2_{kind}_sample_full.json", tmp_path / "in" / f"v2_{kind}.json")
    assert prepare("vqa-v2", tmp_path / "in", tmp_path / "out", "--images", str(folder / "images_full")) == 0
    found = prepared(tmp_path / "out")
    with gzip.open(folder / "vqa_annotations_valid.json.gz") as file:
        official = json.load(file)["annotations"]
    assert sorted((r.question_id, r.answers) for r in found["val"]) == sorted(
        (entry["question_id"], tuple(answer["answer"] for answer in entry["answers"])) for entry in official
    )
    images = json.loads((tmp_path / "out" / "images.json").read_text())
    assert {str(r.image_id) for r in found["train"]} <= set(images)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert any("no file of this name" in message for message in report["skipped"])
