"""Every reader on damaged files: the right records, or a message that names the file, and nothing written."""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from published_fixtures import SETS, lay_out, prepare, prepared

from coattn.datasets.prepared import Dataset
from coattn.datasets.readers import READERS, checked_table

pytestmark = pytest.mark.usefixtures("no_picture")

# The first readable file of each data set; binary files have separate tests.
FIRST = {
    command: next((name for name, value in files.items() if not isinstance(value, bytes)), "")
    for command, files in SETS.items()
}
COMMANDS = [command for command, name in FIRST.items() if name]


def entries_of(content: Any) -> list[Any] | dict[str, Any]:
    """The list of records in a JSON file, or the object of records."""
    if isinstance(content, list) or all(isinstance(value, dict) for value in content.values()):
        return content
    return next(value for value in content.values() if isinstance(value, list) and value)


def first_entry(entries: list[Any] | dict[str, Any]) -> dict[str, Any]:
    return entries[0] if isinstance(entries, list) else next(iter(entries.values()))


def without(key: str) -> Callable[[Any], Any]:
    def change(content: Any) -> Any:
        del first_entry(entries_of(content))[key]
        return content

    return change


def with_value(key: str, value: Any) -> Callable[[Any], Any]:
    def change(content: Any) -> Any:
        first_entry(entries_of(content))[key] = value
        return content

    return change


def twice(content: Any) -> Any:
    entries = entries_of(content)
    if isinstance(entries, list):
        entries.append(copy.deepcopy(entries[0]))
    return content


def json_changes(content: Any) -> Iterator[Callable[[Any], Any]]:
    entry = first_entry(entries_of(content))
    for key in entry:
        yield without(key)
        yield with_value(key, [["of", "another", "type"]])
        yield with_value(key, None)
    yield with_value("an extra key", 5)
    yield twice


def read(command: str, folder: Path) -> Dataset:
    """Read a data set as `coattn prepare` does, without writing it."""
    name, *options = command.split()
    parser = argparse.ArgumentParser()
    READERS[name].add_arguments(parser)
    return READERS[name].from_arguments(parser.parse_args([str(folder), *options]))


def read_or_message(command: str, folder: Path) -> Dataset | str:
    """The data set, or the message of the only error that a damaged file may cause."""
    try:
        return read(command, folder)
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("command", COMMANDS)
def test_damaged_entries(command: str, tmp_path: Path) -> None:
    name = FIRST[command]
    content = SETS[command][name]
    if isinstance(content, str):
        lines = content.splitlines()
        changed: list[Any] = [
            "\n".join([*lines[:-1], ""]),
            "\n".join([lines[0] + "|more|than|that", *lines[1:]]),
            "x\n" * 3,
        ]
    else:
        changed = [change(copy.deepcopy(content)) for change in json_changes(content)]
    for number, value in enumerate([*changed, "", "{}", "[]", "[5]"]):
        folder = lay_out(tmp_path / str(number), SETS[command] | {name: value})
        found = read_or_message(command, folder)
        if isinstance(found, str):
            assert str(folder) in found
        else:
            assert all(record.question for records in found.splits.values() for record in records)


@pytest.mark.parametrize(
    "command", [command for command in COMMANDS if not isinstance(SETS[command][FIRST[command]], str)]
)
def test_an_extra_key_changes_no_record(command: str, tmp_path: Path) -> None:
    name = FIRST[command]
    more = with_value("an extra key", 5)(copy.deepcopy(SETS[command][name]))
    plain, changed = (
        read(command, lay_out(tmp_path / folder, files)).splits
        for folder, files in (("a", SETS[command]), ("b", SETS[command] | {name: more}))
    )
    for split, records in plain.items():
        assert [replace(record, extra={}) for record in changed[split]] == [replace(r, extra={}) for r in records]


def test_one_bad_record_does_not_cost_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = copy.deepcopy(SETS["clevr"])
    name = next(iter(files))
    del files[name]["questions"][0]["question"]
    folder = lay_out(tmp_path / "in", files)
    assert prepare("clevr", folder, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "1 of 2 records cannot be used: question 0: has no 'question'" in error
    assert "leave them out with --skip-bad-rows" in error
    assert prepare("clevr", folder, tmp_path / "out", "--skip-bad-rows") == 0
    assert [record.question_id for record in prepared(tmp_path / "out")["train"]] == [1]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["skipped_reasons"] == {"has no ..., only ..., ..., ..., ..., ..., ..., ...": 1}
    assert f"{name}: question 0: has no 'question'" in report["skipped"][0]


def test_bad_records_of_official_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = copy.deepcopy(SETS["vqa-v2"])
    questions = files["v2_OpenEnded_mscoco_train2014_questions.json"]["questions"]
    questions += [{"question_id": 9, "image_id": 9, "question": "Unanswered?"}, {**questions[0], "question": "Again?"}]
    folder = lay_out(tmp_path / "in", files)
    assert prepare("vqa-v2", folder, tmp_path / "out") == 2
    assert "2 of 3 records cannot be used: question 1 (question_id 9): has no annotation" in capsys.readouterr().err
    assert prepare("vqa-v2", folder, tmp_path / "out", "--skip-bad-rows") == 0
    assert [record.question for record in prepared(tmp_path / "out")["train"]] == ["What is this?"]


def test_a_question_of_a_million_words_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {"train.json": [{"image": "a.jpg", "question": "word " * 1_000_000, "answers": [{"answer": "x"}]}]}
    assert prepare("vizwiz", lay_out(tmp_path / "in", files), tmp_path / "out") == 2
    assert "question has 5000000 characters, at most 20000 are read" in capsys.readouterr().err


def test_every_reader_names_what_it_was_checked_on() -> None:
    assert [name for name, reader in READERS.items() if not reader.checked] == []
    assert checked_table().count("\n") == len(READERS) + 1
    page = Path(__file__).parents[2] / "docs" / "data.md"
    assert checked_table() in page.read_text()  # paste the output of checked_table() there
