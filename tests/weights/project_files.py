"""Golden weights as files of the projects that they are from, and the command that converts them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from parity import GOLDEN, load_config, load_golden, part

from coattn.cli import main

OUTPUTS = ("out/logits", "out/probs")


def write_json(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


def project_files(
    folder: Path,
    name: str,
    *,
    specials: tuple[str, ...] = ("PAD", "UNK", "CLS"),
    embedding: str = "embedding.weight",
    unlisted: int = 0,
) -> dict[str, Path]:
    """Write golden weights as a project's files; gives their paths."""
    golden = load_golden(name)
    weights = part(golden, "sd")
    num_answers = next(value for key, value in golden.items() if key in OUTPUTS).shape[1]
    checkpoint = {"state_dict": weights, "optimizer": {"state": {}}, "lr_base": 1e-4, "epoch": 13}
    torch.save(checkpoint, folder / "epoch13.pkl")
    words = [*specials, *(f"w{i}" for i in range(len(specials), len(weights[embedding]) - unlisted))]
    answers = ["", *(f"a{i}" for i in range(1, num_answers))]
    numbers = {answer: number for number, answer in enumerate(answers)}
    middle = len(words) // 2
    return {
        "checkpoint": folder / "epoch13.pkl",
        "config": GOLDEN / f"{name}.cfg.json",
        "answers": write_json(folder / "answer_dict.json", [numbers, {str(v): k for k, v in numbers.items()}]),
        "tokens": write_json(folder / "token_dict.json", {word: i for i, word in enumerate(words)}),
        "train": write_json(folder / "train.json", questions(words[len(specials) : middle + 1])),
        "val": write_json(folder / "val.json", questions(words[middle:])),
        "out": folder / "model",
    }


def dcn_files(tmp_path: Path) -> dict[str, Path]:
    """DCN's golden weights with its settings beside them; each word vector of the golden questions is a word."""
    golden, config = load_golden("dcn_full_rcnn"), load_config("dcn_full_rcnn")
    checkpoint = {"args": argparse.Namespace(**config), "state_dict": part(golden, "sd"), "last_epoch": 3}
    torch.save(checkpoint, tmp_path / "model.pt")
    vectors = golden["in/ques_emb"].flatten(0, 1).tolist()
    lines = ["<unk> " + " ".join(["0.5"] * len(vectors[0]))]
    lines += [f"w{number} {' '.join(map(repr, vector))}" for number, vector in enumerate(vectors)]
    (tmp_path / "glove.txt").write_text("\n".join([*lines, "unasked " + lines[1].partition(" ")[2]]) + "\n")
    return {
        "checkpoint": tmp_path / "model.pt",
        "vectors": tmp_path / "glove.txt",
        "answers": write_json(tmp_path / "idx2ans.json", [f"a{i}" for i in range(golden["out/logits"].shape[1])]),
        "questions": write_json(tmp_path / "q.json", questions([*(f"w{i}" for i in range(len(vectors))), "unseen"])),
        "out": tmp_path / "model",
    }


def questions(words: list[str]) -> dict[str, Any]:
    texts = [f"{words[0].upper()}, {' '.join(words)}?", "???"]
    return {"questions": [{"question_id": i, "image_id": 1, "question": text} for i, text in enumerate(texts)]}


def arguments(
    files: dict[str, Path], project: str = "openvqa", model: str | None = "mcan", **changes: Any
) -> list[str]:
    chosen = {key: str(files[key]) for key in ("config", "answers", "tokens")} | changes
    named = [f"--{key}={value}" for key, value in chosen.items() if value is not None]
    return ["convert", project, str(files["checkpoint"]), *([f"--model={model}"] if model else []), *named]


def refused(argv: list[str], files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> str:
    """The one message of a conversion that fails and writes nothing."""
    before = sorted(files["out"].parent.iterdir())
    assert main([*argv, str(files["out"])]) == 2
    assert sorted(files["out"].parent.iterdir()) == before
    message = capsys.readouterr().err
    assert message.startswith("coattn: error: ")
    assert message.count("\n") == 1
    return message
