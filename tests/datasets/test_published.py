"""Published data sets from their authors' files: the same records unpacked and zipped, and what is wrong."""

from __future__ import annotations

import gzip
import json
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from published_fixtures import SETS, gqa, lay_out, pair, vizwiz

from coattn.cli import main
from coattn.cli.prepare import READERS
from coattn.datasets import prepared as prepared_folder
from coattn.datasets.records import Record
from coattn.datasets.vqa_json import read_vqa


@pytest.fixture(autouse=True)
def _no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all else; test_prepared.py does it."""
    monkeypatch.setattr(prepared_folder, "_draw", lambda *_: [])


def prepare(command: str, files: Path, out: Path, *more: str) -> int:
    name, *options = command.split()
    return main(["prepare", name, str(files), str(out), *options, *more])


def prepared(out: Path) -> dict[str, list[Record]]:
    names = [path.name.removesuffix("_questions.json") for path in sorted(out.glob("*_questions.json"))]
    answers = {name: out / f"{name}_annotations.json" for name in names}
    return {
        name: read_vqa(out / f"{name}_questions.json", answers[name] if answers[name].exists() else None).records
        for name in names
    }


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
    assert any("no file in" in message for message in report["skipped"])


def refused(capsys: pytest.CaptureFixture[str], command: str, source: Path, out: Path, *more: str) -> str:
    assert prepare(command, source, out, *more) == 2
    assert not out.exists()
    assert list(out.parent.glob(".*partial*")) == []
    return capsys.readouterr().err


def laughs(depth: int) -> list[Any]:
    """Two lists, each of the same two lists, and so on: small, but no one could print it."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value, value]
    return value


BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "answers are missing": (
        "vqa-v2",
        {k: v for k, v in SETS["vqa-v2"].items() if k != "v2_mscoco_val2014_annotations.json"},
        "no v2_mscoco_val2014_annotations.json (the answers to",
    ),
    "splits are mixed up": (
        "vqa-v2",
        {
            "v2_OpenEnded_mscoco_train2014_questions.json": pair("v2_OpenEnded", "train2014", 1)[
                "v2_OpenEnded_mscoco_train2014_questions.json"
            ],
            "v2_mscoco_train2014_annotations.json": pair("v2_OpenEnded", "val2014", 1)[
                "v2_mscoco_val2014_annotations.json"
            ],
        },
        "is of train2014",
    ),
    "splits are mixed up, without a head": (
        "vqa-cp-v2",
        SETS["vqa-cp-v2"] | {"vqacp_v2_train_annotations.json": SETS["vqa-cp-v2"]["vqacp_v2_test_annotations.json"]},
        "question 0 (question_id 1): has no annotation in",
    ),
    "wrong encoding": (
        "coco-qa",
        SETS["coco-qa --val-fraction 0"] | {"test/answers.txt": "cup\ncafé\n".encode("latin-1")},
        "answers.txt: line 2: not UTF-8 text",
    ),
    "lines do not belong together": (
        "coco-qa",
        SETS["coco-qa --val-fraction 0"] | {"test/answers.txt": "cup\n"},
        "answers.txt: 1 lines, but",
    ),
    "truncated JSON": (
        "gqa",
        {"train_balanced_questions.json": json.dumps(gqa("1", "n5", "picture"))[:-40]},
        "train_balanced_questions.json: not valid JSON (line 1, column",
    ),
    "not UTF-8": (
        "vizwiz",
        {"train.json": json.dumps([vizwiz("a.jpg")]).replace("soup", "so\xfcp").encode("latin-1")},
        "train.json: line 1: not UTF-8 text (byte",
    ),
    "another kind of file": (
        "vizwiz",
        {"train.json": {"questions": []}},
        "train.json: the file must be a list; this is",
    ),
    "an entry lacks its answer": (
        "gqa",
        {"val_balanced_questions.json": gqa("7", "n5", None)},
        "question '7', number 0: has no 'answer'",
    ),
    "one id for two questions": (
        "vizwiz",
        {"train.json": [vizwiz("a.jpg"), vizwiz("a.jpg") | {"question": "Another?"}]},
        "question 1: question_id 'a.jpg' stands for another question at",
    ),
    "a program in a pickle": (
        "pathvqa",
        {"train_qa.pkl": b"cposix\nsystem\n(S'touch /tmp/never'\ntR."},
        "train_qa.pkl: this pickle holds posix.system, which is not read",
    ),
    "lists in lists in a pickle": (
        "pathvqa",
        {"train_qa.pkl": pickle.dumps([{"image": "a", "question": laughs(60), "answer": "b"}])},
        "question 0: question is [[[...], [...]], [[...], [...]]] (a list), must be text",
    ),
    "scores that are none": (
        "pathvqa",
        {"train_qa.pkl": pickle.dumps([{"img_id": "a", "sent": "Is it?", "label": {"no": None, "yes": 1}}])},
        "question 0: label holds a score that is no number",
    ),
    "a pickle of something else": ("pathvqa", {"train_qa.pkl": b"(dp0\n."}, "must hold a list"),
    "an answer that cannot be": ("shapes", SETS["shapes"] | {"val.output": "true\nmaybe\n"}, "val.output: line 2"),
    "images cut off": (
        "shapes",
        SETS["shapes"] | {"val.input.npy": SETS["shapes"]["val.input.npy"][:-9]},
        "not a whole",
    ),
    "nothing of it": ("clevr", {"readme.txt": "hello"}, "has no CLEVR_train_questions.json"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_named_and_nothing_is_written(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, files, message = BAD[name]
    error = refused(capsys, command, lay_out(tmp_path / "in", files), tmp_path / "out")
    assert message in error
    assert "Traceback" not in error


def test_truncated_archives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = lay_out(tmp_path / "in", SETS["vqa-v2"], zipped=True)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    assert "published.ZIP: not a whole zip archive" in refused(capsys, "vqa-v2", tmp_path / "in", tmp_path / "out")

    damaged = bytearray(whole)
    place = whole.index(b"train2014_questions.json") + 60  # in the compressed text
    damaged[place : place + 8] = bytes(8)
    archive.write_bytes(damaged)
    assert "the zip archive is damaged" in refused(capsys, "vqa-v2", tmp_path / "in", tmp_path / "out")


def test_a_damaged_archive_of_something_else_is_listed(tmp_path: Path) -> None:
    source = lay_out(tmp_path / "in", SETS["vizwiz"])
    (source / "images.zip").write_bytes(b"PK\x03\x04 half a download")
    assert prepare("vizwiz", source, tmp_path / "out") == 0
    (message,) = json.loads((tmp_path / "out" / "report.json").read_text())["skipped"]
    assert "images.zip: not a whole zip archive" in message


def test_the_same_file_twice_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("a", "b"):
        lay_out(tmp_path / "in" / folder, SETS["vizwiz"])
    assert "holds train.json twice" in refused(capsys, "vizwiz", tmp_path / "in", tmp_path / "out")


def test_what_is_said_twice_is_skipped_and_listed(tmp_path: Path) -> None:
    source = lay_out(tmp_path / "in", {"train.json": [vizwiz("a.jpg"), vizwiz("b.jpg"), vizwiz("a.jpg")]})
    assert prepare("vizwiz", source, tmp_path / "out") == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["splits"]["train"]["questions"] == 2
    assert "train.json: question 2: question_id 'a.jpg' says the same as" in report["skipped"][0]


def test_unknown_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = lay_out(tmp_path / "in", SETS["vqa-v2"])
    (tmp_path / "photos" / "train2014").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "photos" / "train2014" / "COCO_train2014_000000458752.jpg")
    assert prepare("vqa-v2", source, tmp_path / "out", "--images", str(tmp_path / "photos")) == 0
    assert list(json.loads((tmp_path / "out" / "images.json").read_text())) == ["458752"]
    skipped = json.loads((tmp_path / "out" / "report.json").read_text())["skipped"]
    assert [message.partition(":")[0] for message in skipped] == ["image 2", "image 3"]
    Image.new("RGB", (4, 4)).save(tmp_path / "other.png")
    (tmp_path / "photos" / "train2014" / "COCO_train2014_000000458752.jpg").rename(tmp_path / "photos" / "x.jpg")
    error = refused(capsys, "vqa-v2", source, tmp_path / "no", "--images", str(tmp_path / "photos"))
    assert "holds none of the 3 images asked about, for example COCO_train2014_000000458752" in error


def test_an_encrypted_member_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = lay_out(tmp_path / "in", SETS["vizwiz"], zipped=True)
    content = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as opened:
        for entry in opened.infolist():
            content[entry.header_offset + 6] |= 1
    start = 0
    while (start := content.find(b"PK\x01\x02", start)) >= 0:
        content[start + 8] |= 1
        start += 4
    archive.write_bytes(content)
    assert "cannot be read out of the zip archive" in refused(capsys, "vizwiz", archive, tmp_path / "out")
