"""Published data sets: the records of each format, from tiny files of the same layout."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from published_fixtures import PATH_YES, SETS, clevr, lay_out, prepare, prepared, rad, slake

from coattn.datasets.aerial import read_rsvqa
from coattn.datasets.clevr import CLEVR
from coattn.datasets.medical import read_vqa_rad
from coattn.datasets.pathvqa import PATHVQA
from coattn.datasets.records import Record
from coattn.datasets.sort_of_clevr import read_sort_of_clevr
from coattn.datasets.split_files import read_format
from coattn.datasets.vqa_med import read_vqa_med

pytestmark = pytest.mark.usefixtures("no_picture")

# Command to split, image id, question, answers and choices of each record.
EXPECTED: dict[str, list[tuple[str, int | str, str, tuple[str, ...], tuple[str, ...]]]] = {
    "gqa-ood": [
        ("testdev-head", "n5", "What is hanging?", ("couch",), ()),
        ("testdev-tail", "n6", "What is hanging?", ("sofa",), ()),
    ],
    "vqa-abstract": [("train", 11779, "Who looks happier?", ("net",) * 10, ())],
    "docvqa": [
        ("test", "a_1", "who?", (), ()),
        ("train", "xnbl0037_1", "what is the date?", ("1/8/93", "1.8.93"), ()),
    ],
    "st-vqa": [("train", "coco-text/COCO_train2014_000000000036.jpg", "What is the price?", ("10", "$10"), ())],
    "scienceqa": [
        ("test", "test/3/image", "Which?", ("a",), ("a", "b")),
        ("train", "train/1/image", "Which is farthest north?", ("Maine",), ("Ohio", "Maine")),
    ],
    "visual7w": [
        ("val", "v7w_2323054", "What type of flooring?", ("Wood.",), ("Wood.", "Tile.", "Carpet.", "Cement.")),
    ],
    "vqa-med": [
        ("test", "synpic3", "what organ?", ("face, sinuses, and neck", "skull"), ()),
        ("train", "synpic1", "what modality is shown?", ("ct",), ()),
        ("train", "synpic2", "is this a ct scan?", ("yes",), ()),
    ],
    "rsvqa": [("train", 7, "Is there water?", ("yes",), ())],
    "floodnet --val-fraction 0": [
        ("test", "10163", "Is it flooded?", (), ()),
        ("train", "10165", "How many buildings?", ("3",), ()),
    ],
    "lxmert": [
        ("train", 458752, "What is this photo taken through?", ("net",) * 9 + ("mesh",), ()),
        ("val", "n161313", "Which side?", ("left",), ()),
    ],
    "llava --val-fraction 0": [
        ("train", "coco/train2017/000000033471", "What color?", ("Red",), ()),
        ("train", "coco/train2017/000000033471", "Is it parked?", ("Yes",), ()),
    ],
}


@pytest.mark.parametrize("command", EXPECTED)
def test_records_of(command: str, tmp_path: Path) -> None:
    assert prepare(command, lay_out(tmp_path / "in", SETS[command]), tmp_path / "out") == 0
    found = prepared(tmp_path / "out")
    assert [
        (split, record.image_id, record.question, record.answers, record.choices)
        for split, records in found.items()
        for record in records
    ] == EXPECTED[command]


def test_records_without_image_are_listed_with_their_reason(tmp_path: Path) -> None:
    assert prepare("scienceqa", lay_out(tmp_path / "in", SETS["scienceqa"]), tmp_path / "out") == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["skipped_reasons"] == {"the question has no image": 1}


def records(folder: Path, files: dict[str, Any], form: Any) -> dict[str, list[Record]]:
    return {split: list(found) for split, found in read_format(form, lay_out(folder, files)).splits.items()}


def test_generated_clevr_has_booleans_and_numbers(tmp_path: Path) -> None:
    entries = [clevr(0, "new", "yes") | {"answer": True}, clevr(1, "new", "yes") | {"answer": False, "question": "?"}]
    entries.append(clevr(2, "new", "3") | {"answer": 2, "program": [{"type": "scene"}, {"type": "count"}]})
    found = records(tmp_path, {"CLEVR_questions.json": {"info": {}, "questions": entries}}, CLEVR)
    assert [record.answers for record in found["train"]] == [("yes",), ("no",), ("2",)]
    assert found["train"][2].question_type == "count"


def test_cogent_has_two_conditions(tmp_path: Path) -> None:
    files = {
        f"CLEVR_{part}_questions.json": {"questions": [clevr(0, part, None if "test" in part else "yes")]}
        for part in ("trainA", "valA", "testA", "valB", "testB")
    }
    found = records(tmp_path, files, CLEVR)
    assert list(found) == ["train", "val", "test", "valB", "testB"]
    assert [bool(split[0].answers) for split in found.values()] == [True, True, False, True, False]


def test_one_empty_answer_of_slake_is_left_out(tmp_path: Path) -> None:
    """Entry 1622 of the real train.json has an empty answer."""
    answers = {"train": ["Yes", "", "No"], "validate": ["Yes"], "test": ["No"]}
    files = {
        f"{name}.json": [slake(n, "en", answer, "CLOSED") for n, answer in enumerate(kept)]
        for name, kept in answers.items()
    }
    assert prepare("slake", lay_out(tmp_path / "in", files), tmp_path / "out") == 0
    assert {split: len(kept) for split, kept in prepared(tmp_path / "out").items()} == {"train": 2, "val": 1, "test": 1}
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["skipped"] == [f"{tmp_path}/in/train.json: question 1: the answer is empty"]


def test_vqa_rad_in_two_files(tmp_path: Path) -> None:
    """Paraphrases share their qid in trainset.json, so that questions are numbered."""
    files = {
        "trainset.json": [rad(0, "a.jpg", "freeform", "Yes", "CLOSED"), rad(0, "a.jpg", "frame", 5, "OPEN")],
        "testset.json": [rad(0, "a.jpg", "freeform", "No", "CLOSED")],
    }
    splits = read_vqa_rad(lay_out(tmp_path, files), val_fraction=0).splits
    assert [(r.question_id, r.answers, r.extra["phrase_type"]) for r in splits["train"]] == [
        ("train/0", ("Yes",), "freeform"),
        ("train/1", ("5",), "frame"),
    ]
    assert splits["test"][0].question_id == "test/0"


def test_framed_questions_of_vqa_rad(tmp_path: Path) -> None:
    entries = [
        rad(0, "a.jpg", "freeform", "Yes", "CLOSED") | {"question_frame": "Is there evidence of a mass?"},
        rad(1, "a.jpg", "para", "No", "CLOSED") | {"question_frame": "NULL"},
        rad(2, "b.jpg", "test_freeform", "No", "CLOSED") | {"question_frame": "Is it there?"},
    ]
    folder = lay_out(tmp_path, {"VQA_RAD Dataset Public.json": entries})
    assert [r.question_id for r in read_vqa_rad(folder, val_fraction=0).splits["train"]] == [0, 1]
    train = read_vqa_rad(folder, phrasings="all", val_fraction=0).splits["train"]
    assert [(r.question_id, r.question) for r in train] == [
        (0, "Is it big?"),
        ("0/frame", "Is there evidence of a mass?"),
        (1, "Is it big?"),
    ]


def test_pathvqa_as_json(tmp_path: Path) -> None:
    files = {
        "train_vqa.json": [
            {"img_id": "a", "sentf": {"x": ["Is it?", "What?"]}, "labelf": {"x": [{"yes": 1}, {"sac": 1}]}}
        ],
        "val_vqa.json": PATH_YES,
        "test_qa.json": [{"Image_ID": "1", "Questions": "which side?", "Answers": "left|right"}],
    }
    found = records(tmp_path, files, PATHVQA)
    assert [(r.question_id, r.image_id, r.question, r.answers) for r in found["train"]] == [
        ("train/0/x/0", "a", "Is it?", ("yes",)),
        ("train/0/x/1", "a", "What?", ("sac",)),
    ]
    assert found["val"][0].answers == ("yes",)
    assert found["test"][0].answers == ("left|right",)


def test_vqa_med_2021_has_its_answers_in_a_second_file(tmp_path: Path) -> None:
    files = {
        "Task1-VQA-2021-TestSet-Questions.txt": "synpic1|what is wrong?\nsynpic2|what is abnormal?\n",
        "Task1-VQA-2021-TestSet-ReferenceAnswers.txt": "synpic1|cyst|renal cyst\nsynpic2|fracture\n",
    }
    test = read_vqa_med(lay_out(tmp_path, files)).splits["test"]
    assert [record.answers for record in test] == [("cyst", "renal cyst"), ("fracture",)]


def test_rsvqa_needs_the_answers(tmp_path: Path) -> None:
    files = {"LR_split_val_questions.json": SETS["rsvqa"]["LR_split_train_questions.json"]}
    with pytest.raises(ValueError, match=r"has no LR_split_val_answers\.json \(the answers to"):
        read_rsvqa(lay_out(tmp_path, files))


def vector(kind: int, subtype: int, *colors: int) -> np.ndarray:
    """A question as the generator of Sort-of-CLEVR codes it."""
    question = np.zeros(18)
    question[[6 * place + color for place, color in enumerate(colors)] + [12 + kind, 15 + subtype]] = 1
    return question


def test_sort_of_clevr_as_the_generator_writes_it(tmp_path: Path) -> None:
    image = np.ones((75, 75, 3))
    image[0, 0] = (1, 0.5, 0)  # blue, green, red
    ternary = ([vector(2, 0, 0, 3)], [5])
    binary = ([vector(1, 2, 4)], [5])
    alone = ([vector(0, 0, 5), vector(0, 1, 1)], [3, 1])
    items = [(image, ternary, binary, alone)]
    (tmp_path / "sort-of-clevr.pickle").write_bytes(pickle.dumps((items, items)))
    dataset = read_sort_of_clevr(tmp_path)
    assert [(r.question, r.answer, r.question_type, r.answer_type) for r in dataset.splits["test"]] == [
        ("how many objects are in the box between the red object and the orange object ?", "1", "ternary", "number"),
        ("how many objects have same shape with the gray object ?", "2", "binary", "number"),
        ("what is the shape of the yellow object ?", "circle", "non-relational", "shape"),
        ("is the green object placed on the left side of the image ?", "no", "non-relational", "yes/no"),
    ]
    picture: Any = dataset.images["test/00000"]
    assert picture.pixels[0, 0].tolist() == [0, 128, 255]  # red, green, blue


def test_damaged_items_of_sort_of_clevr_are_named(tmp_path: Path) -> None:
    (tmp_path / "sort-of-clevr.pickle").write_bytes(pickle.dumps(([(np.ones((5, 5, 3)), ([vector(0, 0, 1)], []))], [])))
    with pytest.raises(ValueError, match=r"sort-of-clevr\.pickle: image 0: not an item of the generator"):
        read_sort_of_clevr(tmp_path)


def test_copies_of_a_picture_are_held_out_together(tmp_path: Path) -> None:
    """One of four pictures has three file names; all of its questions are on one side."""
    names = ["a", "b", "c", "copy", "copy of copy", "d"]
    entries = [rad(n, f"{name}.jpg", "freeform", "Yes", "CLOSED") for n, name in enumerate(names)]
    folder = lay_out(tmp_path / "in", {"VQA_RAD Dataset Public.json": entries})
    (tmp_path / "photos").mkdir()
    for name in names:
        (tmp_path / "photos" / f"{name}.jpg").write_bytes(b"copy" if name.startswith("c") else name.encode())
    for fraction in (0.25, 0.5, 0.75):
        splits = read_vqa_rad(folder, images=tmp_path / "photos", val_fraction=fraction).splits
        held_out = {str(record.image_id) for record in splits["val"]}
        copies = {"c", "copy", "copy of copy"}
        assert len(held_out - copies) + bool(held_out & copies) == fraction * 4
        assert held_out & copies in (set(), copies)
