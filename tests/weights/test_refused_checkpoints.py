"""Checkpoints that are not converted: hostile, damaged, or not fitting what lies beside them."""

from __future__ import annotations

import argparse
import json
import os
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from parity import load_config, load_golden, part
from project_files import arguments, dcn_files, project_files, questions, refused, write_json

from coattn.weights.pickles import read_checkpoint


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., dict[str, Path]]:
    return partial(project_files, tmp_path)


def test_dcn_without_settings_or_with_other_vectors_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = dcn_files(tmp_path)
    argv = [
        "convert",
        "dcn",
        str(made["checkpoint"]),
        f"--answers={made['answers']}",
        f"--questions={made['questions']}",
    ]
    (tmp_path / "narrow.txt").write_text("w0 1 2 3\nw1 1 2 3\n")
    message = refused([*argv, f"--vectors={tmp_path / 'narrow.txt'}"], made, capsys)
    assert "narrow.txt: the word vectors are 3 wide, but DCN's checkpoint reads 16" in message
    torch.save({"state_dict": part(load_golden("dcn_full_rcnn"), "sd")}, made["checkpoint"])
    message = refused([*argv, f"--vectors={made['vectors']}"], made, capsys)
    assert "give them (--config)" in message


def test_settings_beside_the_weights_are_allowed_to_dcn_only(
    files: Callable[..., dict[str, Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    made = files("openvqa_mcan")
    weights = part(load_golden("openvqa_mcan"), "sd")
    torch.save({"state_dict": weights, "args": argparse.Namespace(a=1)}, made["checkpoint"])
    assert "(argparse.Namespace)" in refused(arguments(made), made, capsys)


def test_a_pipe_is_no_checkpoint(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.pth")
    with pytest.raises(ValueError, match=r"model\.pth: is a named pipe"):
        read_checkpoint(tmp_path / "model.pth")


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("broken-into",)


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_pickle_with_code_is_refused(
    write: Callable[[Any, Path], object],
    files: Callable[..., dict[str, Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    made = files("openvqa_mcan")
    write({"state_dict": {"embedding.weight": Hostile()}}, made["checkpoint"])
    message = refused(arguments(made), made, capsys)
    assert ("(posix.mkdir)" in message) == (write is torch.save)  # the other is refused even before that name
    assert "epoch13.pkl: this checkpoint is a pickle that needs more than weights" in message
    assert "run any code" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a readable checkpoint"),
        (b"not a pickle", "pickle"),
        (b"PK\x03\x04 cut", "not a readable checkpoint"),
        ({"epoch": 3}, "holds no state dict of weights, but a dict of epoch"),
        ({"state_dict": {"a": 1}}, "holds no state dict of weights"),
        ([torch.zeros(1)], "holds no state dict of weights, but a list"),
        ({}, "holds no state dict of weights"),
        ({1: torch.zeros(1)}, "holds no state dict of weights, but a dict of 1"),
        ({"a": torch.zeros(1, dtype=torch.int64)}, "dense tensors of floating point, but a is torch.int64"),
        ({"a": torch.zeros(1, 1).to_sparse()}, "dense tensors of floating point, but a is torch.float32, torch.sparse"),
    ],
)
def test_a_file_without_weights_is_refused(
    content: Any, message: str, files: Callable[..., dict[str, Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    made = files("openvqa_mcan")
    if isinstance(content, bytes):
        made["checkpoint"].write_bytes(content)
    else:
        torch.save(content, made["checkpoint"])
    found = refused(arguments(made), made, capsys)
    assert "epoch13.pkl" in found
    assert message in found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "mmnasnet"}, "MODEL_USE is 'mcan', but the model mmnasnet has 'mmnasnet'"),
        ({"model": "mcna"}, "openvqa has no model 'mcna'; its models are mcan"),
        ({"config": "{}"}, "the settings of openvqa lack LAYER"),
        ({"config": "["}, "not valid JSON"),
        ({"config": "[1]"}, "settings must be names with values"),
        ({"config": '{"LAYER": 2}'}, "lack HIDDEN_SIZE"),
        ({"config": '{"LAYER": -1}'}, "LAYER is -1, but must be at least 1"),
        ({"answers": '["a", "b"]'}, "2 answers, but the checkpoint scores 20"),
        ({"answers": '{"a": 0, "b": 2}'}, "must have each number from 0 to 1 exactly once"),
        ({"answers": "3"}, "an object from each to its number, or a list"),
        ({"tokens": '["PAD", "UNK"]'}, "2 words, but the checkpoint's embedding has 30"),
        ({"tokens": json.dumps([str(i) for i in range(30)])}, "first words are 0, 1, 2, but this project's are PAD"),
        ({"tokens": json.dumps(["PAD", "UNK", *map(str, range(27))])}, "difference of one is the token CLS"),
        ({"dataset": "coco"}, "the data set 'coco' is not one of vqa, gqa, clevr"),
    ],
)
def test_what_does_not_fit_is_refused(
    change: dict[str, str],
    message: str,
    files: Callable[..., dict[str, Path]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = files("openvqa_mcan")
    written = {key: text for key, text in change.items() if key in ("config", "answers", "tokens")}
    for key, text in written.items():
        (tmp_path / f"changed_{key}.json").write_text(text)
    changes = change | {key: str(tmp_path / f"changed_{key}.json") for key in written}
    assert message in refused(arguments(made, **changes), made, capsys)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["train"], "1 question files"),
        (["train"], "words are missing"),
        (["train", "val", "more"], "the checkpoint was trained with fewer questions"),
        (["tokens"], "counted from 0) has no text"),
        (["empty"], "not a file of questions"),
        (["wrong"], 'question number 0 (counted from 0) has no text under "question"'),
        (["checkpoint"], "not UTF-8 text"),
        (["missing"], "No such file"),
    ],
)
def test_questions_that_do_not_fit_are_refused(
    given: list[str],
    message: str,
    files: Callable[..., dict[str, Path]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = files("openvqa_mcan")
    made["more"] = write_json(tmp_path / "more.json", questions(["more", "words", "than", "that"]))
    made["wrong"] = write_json(tmp_path / "wrong.json", {"questions": [{"text": "what?"}]})
    made["empty"] = write_json(tmp_path / "empty.json", {"questions": []})
    made["missing"] = tmp_path / "missing.json"
    argv = [*arguments(made, tokens=None), "--questions", *(str(made[name]) for name in given)]
    assert message in refused(argv, made, capsys)


def test_a_pickled_dictionary_is_refused(
    files: Callable[..., dict[str, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = files("openvqa_mcan")
    (tmp_path / "dictionary.pkl").write_bytes(pickle.dumps([{}, []]))
    message = refused(arguments(made, tokens=tmp_path / "dictionary.pkl"), made, capsys)
    assert "dictionary.pkl: is a pickle, which is not read" in message


def test_what_is_there_stays(files: Callable[..., dict[str, Path]], capsys: pytest.CaptureFixture[str]) -> None:
    made = files("openvqa_mcan")
    made["out"].mkdir()
    assert "exists" in refused(arguments(made), made, capsys)
    assert not list(made["out"].iterdir())


def test_another_model_or_other_sizes_are_refused(
    files: Callable[..., dict[str, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = files("openvqa_mcan")
    message = refused(arguments(made, "mcan-vqa", None), made, capsys)
    assert "not a checkpoint of mcan-vqa" in message
    assert "epoch13.pkl with" in message
    config = write_json(tmp_path / "other.json", load_config("openvqa_mcan") | {"HIDDEN_SIZE": 32})
    message = refused(arguments(made, config=config), made, capsys)
    assert "disagree" in message
    assert "HIDDEN_SIZE is 32, but the weights have 64" in message
