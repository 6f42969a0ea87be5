"""Published data sets: files that are not as they should be are named, and nothing is written."""

from __future__ import annotations

import gzip
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from published_fixtures import SETS, gqa, lay_out, pair, prepare, vizwiz

from coattn.datasets import json_entries

pytestmark = pytest.mark.usefixtures("no_picture")


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
        "question '7': has no 'answer'",
    ),
    "one id for two questions": (
        "vizwiz",
        {"train.json": [vizwiz("a.jpg"), vizwiz("a.jpg") | {"question": "Another?"}]},
        "question 1: question_id 'a.jpg' is also the id of record 0, another question",
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
        "question 0: label holds a score that is not a number",
    ),
    "a pickle of something else": ("pathvqa", {"train_qa.pkl": b"(dp0\n."}, "must hold a list"),
    "an answer that cannot be": (
        "shapes",
        SETS["shapes"] | {"val.output": "true\nmaybe\n"},
        "line 2: the answer is 'maybe'",
    ),
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
    assert "train.json: question 2: question_id 'a.jpg' repeats record 0" in report["skipped"][0]


@pytest.mark.parametrize("form", ["json.gz", "zip"])
def test_an_archive_that_unpacks_to_gigabytes_is_refused(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is lowered here: 2 GiB of spaces would take a second to write."""
    monkeypatch.setattr(json_entries, "MAX_UNPACKED", 1 << 20)
    (tmp_path / "in").mkdir()
    content = b" " * (2 << 20) + b"[]"
    if form == "zip":
        with zipfile.ZipFile(tmp_path / "in" / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("train.json", content)
    else:
        (tmp_path / "in" / "train.json.gz").write_bytes(gzip.compress(content))
    error = refused(capsys, "vizwiz", tmp_path / "in", tmp_path / "out")
    assert "unpacks to more than" in error
    assert "the limit for compressed files" in error


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
    assert "cannot be read from the zip archive" in refused(capsys, "vizwiz", archive, tmp_path / "out")
