"""The user's own table: what messy data is understood, what is refused, and how images are divided."""

from __future__ import annotations

import csv
import io
import json
import os
from datetime import date
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from coattn.datasets.prepared import Dataset
from coattn.datasets.records import Record
from coattn.datasets.row_records import cell_text
from coattn.datasets.rows import read_rows
from coattn.datasets.table import read_table

NO_SPLIT = {"val_fraction": 0.0, "test_fraction": 0.0}


def table(tmp_path: Path, text: str | bytes, name: str = "my.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def all_records(dataset: Dataset) -> list[Record]:
    return [record for records in dataset.splits.values() for record in records]


MESSY = (
    "\ufeffImage , QUESTION,Answer,QID,Answer_Type,organ,\r\n"
    'a1,"What is\r\n seen? ","left lung, lower lobe",7, OPEN ,lung,\r\n'
    "\r\n"
    "A1.png,Is it  normal?, Yes ,8,CLOSED,,\r\n"
    '"images/a2.jpg" ,How many?,3,x-9,Open,lung,\r\n'
    "ct\\b 3,Worse or |better|?,a|b,0010,,,\r\n"
    '1.2.840.113,Is it "big"?,NO,11,closed,,'
)


def test_messy_medical_table(tmp_path: Path, scans: Path) -> None:
    dataset = read_table(table(tmp_path, MESSY), images=scans, **NO_SPLIT)
    lung = {"organ": "lung"}
    assert dataset.metric == "exact_match"
    assert dataset.splits["train"] == [
        Record(7, "a1.png", "What is seen?", ("left lung, lower lobe",), "open", "", "train", extra=lung),
        Record(8, "a1.png", "Is it normal?", ("Yes",), "closed", "", "train"),
        Record("x-9", "a2.jpg", "How many?", ("3",), "open", "", "train", extra=lung),
        Record("0010", "ct/B 3.PNG", "Worse or |better|?", ("a|b",), "other", "", "train"),
        Record(11, "1.2.840.113.png", 'Is it "big"?', ("NO",), "closed", "", "train"),
    ]
    assert dataset.images["ct/B 3.PNG"] == scans / "ct/B 3.PNG"


def test_answer_types_are_found(tmp_path: Path) -> None:
    rows = "".join(
        f"i{n},q,{answer}\n" for n, answer in enumerate(["YES", "no.", "3", "2.5", "two", "aorta", "no lesion"])
    )
    records = all_records(read_table(table(tmp_path, "image,question,answer\n" + rows), **NO_SPLIT))
    types = ["yes/no", "yes/no", "number", "number", "number", "other", "other"]
    assert [record.answer_type for record in records] == types


@pytest.mark.parametrize(
    ("cell", "answers"),
    [
        ("cat|dog | cat", ("cat", "dog", "cat")),
        ('["cat, grey", "dog"]', ("cat, grey", "dog")),
        ("['cat', 3]", ("cat", "3")),
        ("[unclear]|cat", ("[unclear]", "cat")),
        ("left, lower", ("left, lower",)),
        ("|cat|", ("cat",)),
    ],
)
def test_several_answers(tmp_path: Path, cell: str, answers: tuple[str, ...]) -> None:
    content = io.StringIO()
    csv.writer(content).writerows([["image", "question", "answers"], ["i", "q", cell]])
    record = all_records(read_table(table(tmp_path, content.getvalue()), **NO_SPLIT))[0]
    assert record.answers == answers


def test_metric_by_the_answers(tmp_path: Path) -> None:
    head = "image,question,answer,answers\n"
    several = read_table(table(tmp_path, head + "a,q,dog,cat|dog|cat\nb,q,,no\n"), **NO_SPLIT)
    assert several.metric == "soft_accuracy"
    assert all_records(several)[0].answer == "dog"
    mostly_single = read_table(table(tmp_path, head + "a,q,dog,cat|dog\nb,q,no,\nc,q,no,\n"), **NO_SPLIT)
    assert mostly_single.metric == "exact_match"


@pytest.mark.parametrize("name", ["my.csv", "my.tsv", "my.json", "my.jsonl"])
def test_every_format_gives_the_same(tmp_path: Path, name: str) -> None:
    rows = [{"image": "1", "question": "How many?", "answer": 3}, {"image": "b", "question": "é, ü?", "answer": "x\ty"}]
    content = io.StringIO()
    if name.endswith("json"):
        json.dump(rows, content)
    elif name.endswith("jsonl"):
        content.write("\n\n".join(map(json.dumps, rows)))
    else:
        writer = csv.DictWriter(content, ["image", "question", "answer"], delimiter="\t" if "tsv" in name else ",")
        writer.writeheader()
        writer.writerows(rows)
    records = all_records(read_table(table(tmp_path, content.getvalue(), name), **NO_SPLIT))
    assert [(r.image_id, r.question, r.answers) for r in records] == [
        ("1", "How many?", ("3",)),
        ("b", "é, ü?", ("x y",)),
    ]


def test_semicolons_and_tabs_are_found(tmp_path: Path) -> None:
    for mark in ";\t":
        path = table(tmp_path, f"image{mark}question{mark}answer\na{mark}q, r{mark}left, lower\n")
        assert all_records(read_table(path, **NO_SPLIT))[0].answers == ("left, lower",)
    with pytest.raises(ValueError, match="no column for image and question and answer"):
        read_table(path, delimiter=";")


HEAD = "image,question,answer\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "picture,question,answer\na1,q,x",
            r"no column for image; .*'picture', 'question', 'answer'.*--column image=NAME",
        ),
        ("image,qestion,answer\na1,q,x", r"no column for question; .*--column question=qestion"),
        ("a1,what?,yes\na1,why?,no", r"no column for image and question and answer; .*'a1', 'what\?', 'yes'"),
        ("image,question,answer,answer\na,b,c,d", "two columns are named 'answer'"),
        ("", "the file is empty"),
        (HEAD, "no row below the column names"),
        (HEAD + "a1,q,\n", r"1 of 1 records cannot be used: line 2: the answer is empty\. .*--skip-bad-rows"),
        (HEAD + 'a1,"q\n\n\nq",x\na1, ,x\n', "1 of 2 records cannot be used: line 6: the question is empty"),
        (HEAD + ",q,x\n", "line 2: the image is empty"),
        (HEAD + "a1,q,left lung, lower lobe\n", "line 2: has 4 cells for 3 columns; put quotation marks"),
        (HEAD + "a1,q\n", "line 2: the answer is missing: no value for column 'answer'"),
        (
            HEAD + "zz,q,x\nyy.png,q,x\n",
            "2 of 2 records .*line 2: there is no image 'zz' in .*scans; line 3: .*'yy.png'",
        ),
        (HEAD + 'a1,q,x\na1,"q,x\na1,q,x\n', r"line 3: a quotation mark \(\"\) opens in this row and is never closed"),
        ("image,question,answer,qid\na1,q,x,5\na2,q,y,5", "line 3: question_id 5 is also the id of record 0"),
        ("image,question,answer,qid\na1,q,x,", "line 2: the question_id is empty"),
        ("image,question,answer,split\na1,q,x,", "line 2: the split is empty"),
        (HEAD.encode() + b"a1,q,caf\xe9\n", "line 2: byte b'\\\\xe9' is not utf-8 text.*--encoding cp1252"),
        (HEAD.encode("utf-16"), "looks like UTF-16.*--encoding utf-16"),
    ],
)
def test_refused(tmp_path: Path, scans: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        read_table(table(tmp_path, text), images=scans, **NO_SPLIT)
    assert str(caught.value).startswith(str(tmp_path / "my.csv"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("my.xlsx", "PK", "is a spreadsheet; .*save it as CSV"),
        ("my.json", '{"image": 1}', "a JSON table is a list of objects"),
        ("my.json", "[1]", "record 0: is 1, must be an object"),
        ("my.json", "[{]", "not valid JSON"),
        ("my.json", "[" * 100_000, "not usable JSON"),
        ("my.jsonl", '{"image": "a", "question": "q", "answer": "x"}\n{', "line 2: this line: not valid JSON"),
        ("my.jsonl", '{"image": "a", "question": "q", "answer": true}', "line 1: the answer is True, must be text"),
        ("my.jsonl", '{"image": "a", "question": "q", "answer": {"a": 1}}', "line 1: the answer is {"),
        ("my.jsonl", '{"image": "a", "question": null, "answer": "x"}', "line 1: the question is empty"),
        ("my.jsonl", '{"image": "a", "question": "q", "answer": NaN}', "line 1: the answer is empty"),
    ],
)
def test_refused_files(tmp_path: Path, name: str, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_table(table(tmp_path, text, name), **NO_SPLIT)


def test_encoding_can_be_said(tmp_path: Path) -> None:
    path = table(tmp_path, (HEAD + "a1,q,café\n").encode("cp1252"))
    assert all_records(read_table(path, encoding="cp1252", **NO_SPLIT))[0].answer == "café"
    path = table(tmp_path, (HEAD + "a1,q,café\n").encode("utf-16"))
    assert all_records(read_table(path, encoding="utf-16", **NO_SPLIT))[0].answer == "café"
    with pytest.raises(ValueError, match="no such encoding"):
        read_table(path, encoding="utf-1")


def test_bad_rows_are_skipped_when_asked(tmp_path: Path, scans: Path) -> None:
    path = table(tmp_path, HEAD + "a1,q,x\nzz,q,x\na2,q,\n")
    dataset = read_table(path, images=scans, skip_bad_rows=True, **NO_SPLIT)
    assert [record.image_id for record in all_records(dataset)] == ["a1.png"]
    assert list(map(str, dataset.skipped)) == [
        f"line 3: there is no image 'zz' in {scans}",
        "line 4: the answer is empty",
    ]
    with pytest.raises(ValueError, match="no usable record is in this file"):
        read_table(table(tmp_path, HEAD + "zz,q,x\n"), images=scans, skip_bad_rows=True)


@pytest.mark.parametrize(
    "answers", [["a", "b"], [{"answer": "a", "answer_id": 1}, {"answer": "b"}], {"answer": ["a", "b"]}, "a|b"], ids=str
)
def test_answers_of_several_people_in_json(answers: Any, tmp_path: Path) -> None:
    path = table(tmp_path, json.dumps([{"image": "i", "question": "q", "answers": answers}]), "my.json")
    assert all_records(read_table(path, **NO_SPLIT))[0].answers == ("a", "b")


@pytest.mark.parametrize("answers", [{"a": 3}, "{'a': 3}"], ids=["object", "text"])
def test_counts_of_answers_are_refused(answers: Any, tmp_path: Path) -> None:
    path = table(tmp_path, json.dumps([{"image": "i", "question": "q", "answers": answers}]), "my.json")
    with pytest.raises(ValueError, match=r"record 0: the answer is \{.a.: 3\}, must be text"):
        read_table(path, **NO_SPLIT)


def test_columns_can_be_said(tmp_path: Path) -> None:
    path = table(tmp_path, "Picture,the q,answer,split\na,b,c,odd one\n")
    columns = {"image": "picture", "question": "the q", "split": ""}
    record = all_records(read_table(path, columns=columns, **NO_SPLIT))[0]
    assert (record.image_id, record.question, record.split) == ("a", "b", "train")
    assert record.extra == {"split": "odd one"}
    assert any("there is no images.json" in note for note in read_table(path, columns=columns, **NO_SPLIT).notes)
    with pytest.raises(ValueError, match=r"no column 'Q' for question; known are Picture, the q"):
        read_table(path, columns={"question": "Q"})


def many(tmp_path: Path, count: int, tail: str = "") -> Path:
    rows = [f"i{n % count},q{n},{'yes' if n % 3 else 'no'}{tail}\n" for n in range(3 * count)]
    return table(tmp_path, ("image,question,answer" + (",split" if tail else "") + "\n") + "".join(rows))


def test_images_are_divided_without_leaks(tmp_path: Path) -> None:
    dataset = read_table(many(tmp_path, 50), val_fraction=0.2, test_fraction=0.1)
    images = {name: {record.image_id for record in records} for name, records in dataset.splits.items()}
    assert {name: len(ids) for name, ids in images.items()} == {"train": 35, "val": 10, "test": 5}
    assert len(set.union(*images.values())) == 50
    path = many(tmp_path, 50)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *reversed(lines[1:])]))
    again = read_table(path, val_fraction=0.2, test_fraction=0.1)
    assert {record.image_id for record in again.splits["val"]} == images["val"]
    other = read_table(path, val_fraction=0.2, test_fraction=0.1, seed=1)
    assert {record.image_id for record in other.splits["val"]} != images["val"]


def test_few_images(tmp_path: Path) -> None:
    dataset = read_table(many(tmp_path, 3))
    assert {name: len(records) for name, records in dataset.splits.items()} == {"train": 3, "val": 3, "test": 3}
    with pytest.raises(
        ValueError, match=r"2 images .* are too few: holding out test and val takes at least 3\. Add images"
    ):
        read_table(many(tmp_path, 2))


def test_split_column(tmp_path: Path) -> None:
    head = "image,question,answer,Split\n"
    path = table(tmp_path, head + "a,q,x,Train\nb,q,x,train \nc,q,x,Validation\na,q,x,TEST\n")
    dataset = read_table(path)
    assert {name: [r.image_id for r in records] for name, records in dataset.splits.items()} == {
        "train": ["a", "b"],
        "val": ["c"],
        "test": ["a"],
    }
    with pytest.raises(ValueError, match=r"--val-fraction 0\.5, but the split column has val rows"):
        read_table(path, val_fraction=0.5)
    path = table(tmp_path, head + "a,q,x,train\nb,q,x,train\nc,q,x,test\n")
    assert any("no val split" in note for note in read_table(path).notes)
    dataset = read_table(path, val_fraction=0.5)
    assert {name: len(records) for name, records in dataset.splits.items()} == {"train": 1, "val": 1, "test": 1}
    with pytest.raises(ValueError, match="no train rows"):
        read_table(table(tmp_path, head + "a,q,x,test\n"), val_fraction=0.5)
    with pytest.raises(ValueError, match="must be at least 0 and below 1"):
        read_table(path, val_fraction=1.5)


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12).filter(str.strip)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=8),
    kind=st.sampled_from(["csv", "tsv", "json", "jsonl"]),
)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]], kind: str) -> None:
    path = tmp_path_factory.mktemp("t") / f"my.{kind}"
    entries: list[dict[str, Any]] = [dict(zip(("image", "question", "answer"), row, strict=True)) for row in rows]
    with path.open("w", encoding="utf-8", newline="") as file:
        if kind == "json":
            json.dump(entries, file)
        elif kind == "jsonl":
            file.writelines(json.dumps(entry) + "\n" for entry in entries)
        else:
            writer = csv.writer(file, delimiter="\t" if kind == "tsv" else ",", quoting=csv.QUOTE_ALL)
            writer.writerows([("image", "question", "answer"), *rows])
    records = all_records(read_table(path, **NO_SPLIT))
    plain = [tuple(normalize("NFC", " ".join(cell.split())) for cell in row) for row in rows]
    assert [(record.image_id, record.question, record.answer) for record in records] == plain


@settings(max_examples=100, deadline=None)
@given(content=st.one_of(st.binary(max_size=60), st.text('a,"\n\r\t| ', max_size=60).map(str.encode)))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    for kind in ("csv", "json", "jsonl"):
        path = tmp_path_factory.mktemp("t") / f"my.{kind}"
        path.write_bytes(content)
        message = ""
        try:
            read_rows(path)
        except ValueError as error:
            message = str(error)
        assert not message or message.startswith(str(path))


def test_real_table(shared_data: Path) -> None:
    daquar = shared_data / "daquar"
    dataset = read_table(daquar / "data_train.csv", images=daquar / "images")
    assert sum(map(len, dataset.splits.values())) == 9974
    assert dataset.metric == "exact_match"
    assert dataset.splits["train"][0].image_id == "image100.jpg"


def test_accents_may_stand_apart_from_their_letters(tmp_path: Path) -> None:
    """File names from a Mac have such accents, and a table typed on Windows has not."""
    (tmp_path / "scans").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "scans" / "La\u0308sion.png")
    text = "image,question,answer\nL\u00e4sion.png,What?,\u00e9\nL\u00c4SION,What?,e\u0301\n"
    records = all_records(read_table(table(tmp_path, text), images=tmp_path / "scans", **NO_SPLIT))
    assert [record.image_id for record in records] == ["La\u0308sion.png"] * 2
    assert [record.answers for record in records] == [("\u00e9",)] * 2


def test_a_cell_that_is_no_text_is_named() -> None:
    with pytest.raises(ValueError, match=r"the answer is datetime\.date\(2020, 1, 2\), must be text or a number"):
        cell_text(date(2020, 1, 2), "answer")


def test_decimal_commas_are_pointed_out(tmp_path: Path) -> None:
    text = "image;question;answer\n1;How long?;3,5 cm\n1;How many?;1,000\n1;Where?;left, below\n"
    notes = read_table(table(tmp_path, text), **NO_SPLIT).notes
    assert [note for note in notes if "comma" in note] == [
        "1 answers have a decimal comma, which the official normalization drops: '3,5 cm' becomes '35 cm'; "
        "write a point"
    ]


def test_a_named_column_is_not_found_again(tmp_path: Path) -> None:
    """The column "Answers" of PathVQA's QA_pairs_vb.json holds one answer, in which | is a character."""
    path = table(tmp_path, '[{"Image_ID": "1", "Questions": "which side?", "Answers": "left|right"}]', "my.json")
    (record,) = all_records(read_table(path, columns={"question": "Questions", "answer": "Answers"}, **NO_SPLIT))
    assert record.answers == ("left|right",)


def test_a_test_split_may_have_no_answers(tmp_path: Path) -> None:
    text = "image,question,answer,split\na,q,x,train\nb,q,,test\nc,q,,test\n"
    dataset = read_table(table(tmp_path, text))
    assert [record.answers for record in dataset.splits["test"]] == [(), ()]
    assert any("no question of test has an answer" in note for note in dataset.notes)
    with pytest.raises(ValueError, match="1 of 3 records cannot be used: line 3: the answer is empty"):
        read_table(table(tmp_path, text.replace("c,q,,test", "c,q,y,test")))
    with pytest.raises(ValueError, match="line 2: the answer is empty"):
        read_table(table(tmp_path, text.replace("a,q,x,train", "a,q,,train")))


def test_question_ids_that_repeat_for_each_video(tmp_path: Path) -> None:
    """The annotations of EgoTextVQA are of this form."""
    rows = "\n".join(f"v{video},q{number},x,{number}" for video in range(3) for number in (1, 2))
    dataset = read_table(table(tmp_path, f"image,question,answer,question_id\n{rows}\n"), **NO_SPLIT)
    assert [record.question_id for record in all_records(dataset)][:3] == ["v0/1", "v0/2", "v1/1"]
    assert "question ids repeat for each image; they became IMAGE/ID" in dataset.notes


def test_a_broken_line_of_jsonl_is_one_bad_row(tmp_path: Path) -> None:
    text = '{"image": "a", "question": "q", "answer": "x"}\n{broken\n[5]\n'
    dataset = read_table(table(tmp_path, text, "my.jsonl"), skip_bad_rows=True, **NO_SPLIT)
    assert len(all_records(dataset)) == 1
    assert [item.place for item in dataset.skipped] == ["line 2", "line 3"]


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "my.csv")
    with pytest.raises(ValueError, match="is a named pipe, not a regular file"):
        read_table(tmp_path / "my.csv")
