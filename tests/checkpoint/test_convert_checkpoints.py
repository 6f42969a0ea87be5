"""Checkpoint files of other projects to model directories, by the real command."""

from __future__ import annotations

import argparse
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from parity import GOLDEN, load_config, load_golden, masks, part
from PIL import Image

from coattn import load
from coattn.checkpoint import from_openvqa, load_directory
from coattn.checkpoint.convert import PROJECTS
from coattn.checkpoint.pickles import read_checkpoint
from coattn.cli import main
from coattn.cli.convert import PROJECTS as COMMANDS
from coattn.cli.convert import separated
from coattn.features.store import StoreWriter
from coattn.predictor import Predictor

BOTTOM_UP = {"name": "bottom-up", "settings": {}, "weights": None, "versions": {}}
OUTPUTS = ("out/logits", "out/probs")
OPENVQA = [
    ("openvqa_mcan", "mcan"),
    ("openvqa_mcan_bbox", "mcan_small"),
    ("openvqa_mmnasnet", "mmnasnet"),
    ("openvqa_butd", "butd"),
    ("openvqa_ban", "ban_8"),
    ("openvqa_mfb", "mfb"),
    ("openvqa_mfh", "mfh"),
]


def write_json(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., dict[str, Path]]:
    """Writes golden weights as a project's files; gives their paths."""

    def write(
        name: str,
        *,
        specials: tuple[str, ...] = ("PAD", "UNK", "CLS"),
        embedding: str = "embedding.weight",
        unlisted: int = 0,
    ) -> dict[str, Path]:
        golden = load_golden(name)
        weights, num_answers = (
            part(golden, "sd"),
            next(value for key, value in golden.items() if key in OUTPUTS).shape[1],
        )
        checkpoint = {"state_dict": weights, "optimizer": {"state": {}}, "lr_base": 1e-4, "epoch": 13}
        torch.save(checkpoint, tmp_path / "epoch13.pkl")
        words = [*specials, *(f"w{i}" for i in range(len(specials), len(weights[embedding]) - unlisted))]
        answers = ["", *(f"a{i}" for i in range(1, num_answers))]
        numbers = {answer: number for number, answer in enumerate(answers)}
        middle = len(words) // 2
        return {
            "checkpoint": tmp_path / "epoch13.pkl",
            "config": GOLDEN / f"{name}.cfg.json",
            "answers": write_json(tmp_path / "answer_dict.json", [numbers, {str(v): k for k, v in numbers.items()}]),
            "tokens": write_json(tmp_path / "token_dict.json", {word: i for i, word in enumerate(words)}),
            "train": write_json(tmp_path / "train.json", questions(words[len(specials) : middle + 1])),
            "val": write_json(tmp_path / "val.json", questions(words[middle:])),
            "out": tmp_path / "model",
        }

    return write


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


@pytest.mark.parametrize(("name", "model"), OPENVQA)
def test_openvqa(files: Callable[..., dict[str, Path]], name: str, model: str) -> None:
    made, golden = files(name), load_golden(name)
    assert main([*arguments(made, model=model), str(made["out"])]) == 0
    directory = load_directory(made["out"])
    assert directory.extractor == BOTTOM_UP
    assert directory.activation == ("softmax" if model in ("mfb", "mfh") else "sigmoid")
    assert (directory.metric, directory.max_tokens) == ("vqa_accuracy", 14)
    assert directory.answer_vocabulary.answers[:2] == ("", "a1")
    question, regions = golden["in/ques_ix"].long(), golden["in/frcn_feat"]
    inputs = masks(question, regions) | {"boxes": golden["in/bbox_feat"], "image_sizes": torch.ones(len(question), 2)}
    logits = load(made["out"])(question, regions, **inputs).logits
    if "mcan" in name or "nas" in name:  # the others answer by the padding too, of which the golden files have less
        torch.testing.assert_close(logits, golden["out/logits"], atol=1e-5, rtol=0)
    direct = from_openvqa(part(golden, "sd"), load_config(name), num_tokens=14, num_regions=regions.shape[1])
    assert torch.equal(logits, direct(question, regions, **inputs).logits)


def test_questions_are_collected_in_their_order(files: Callable[..., dict[str, Path]]) -> None:
    made = files("openvqa_mcan")
    assert main([*arguments(made), str(made["out"])]) == 0
    again = made["out"].with_name("again")
    listed = ["--questions", str(made["train"]), str(made["val"])]
    assert main([*arguments(made, tokens=None), *listed, str(again)]) == 0
    for name in ("model.safetensors", "config.json", "question_vocabulary.json", "answers.json"):
        assert (made["out"] / name).read_bytes() == (again / name).read_bytes()


def test_a_model_of_clevr_reads_a_grid(
    files: Callable[..., dict[str, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, golden = files("openvqa_mcan"), load_golden("openvqa_mcan")
    weights = {name.replace("frcn_linear", "grid_linear"): value for name, value in part(golden, "sd").items()}
    torch.save({"state_dict": weights}, made["checkpoint"])
    settings = {key: value for key, value in load_config("openvqa_mcan").items() if key != "DATASET"}
    config = write_json(tmp_path / "clevr.json", settings)  # as a YAML file of openvqa, without the data set
    assert main([*arguments(made, config=config), str(made["out"])]) == 0
    directory = load_directory(made["out"])
    assert directory.extractor["name"] == "clevr-grid"
    assert (directory.activation, directory.metric, directory.max_tokens) == ("softmax", "exact_match", None)
    question, regions = golden["in/ques_ix"].long(), golden["in/frcn_feat"]
    logits = directory.model(question, regions, **masks(question, regions)).logits
    torch.testing.assert_close(logits, golden["out/logits"], atol=1e-5, rtol=0)
    made["out"] = tmp_path / "gqa"
    torch.save(weights | part(golden, "sd"), made["checkpoint"])
    message = refused(arguments(made, config=config, dataset="gqa"), made, capsys)
    assert "regions and the cells of a grid at once" in message


def test_mcan_vqa(files: Callable[..., dict[str, Path]], tmp_path: Path) -> None:
    made, golden = files("mcanvqa_probs", specials=("PAD", "UNK")), load_golden("mcanvqa_probs")
    config = tmp_path / "small_model.yml"
    config.write_text("LAYER: 2\nHIDDEN_SIZE: 64\nMULTI_HEAD: 4\nDROPOUT_R: 0.1\nFLAT_GLIMPSES: 1\nLR_BASE: 0.0001\n")
    assert main([*arguments(made, "mcan-vqa", None, config=config), str(made["out"])]) == 0
    question, regions = golden["in/ques_ix"], golden["in/img_feat"]
    logits = load(made["out"])(question, regions, **masks(question, regions)).logits
    torch.testing.assert_close(logits.sigmoid(), golden["out/probs"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["hengyuan_butd_baseline0", "hengyuan_butd_baseline0_newatt"])
def test_hengyuan(files: Callable[..., dict[str, Path]], name: str) -> None:
    golden = load_golden(name)
    weights = part(golden, "sd")
    num_words = len(weights["w_emb.emb.weight"]) - 1
    made = files(name, specials=(), embedding="w_emb.emb.weight", unlisted=1)
    torch.save({f"module.{key}": value for key, value in weights.items()}, made["checkpoint"])
    assert main([*arguments(made, "hengyuan", None, config=None), str(made["out"])]) == 0
    directory = load_directory(made["out"])
    assert (directory.extractor, directory.activation) == (BOTTOM_UP, "sigmoid")
    words = directory.question_vocabulary
    assert words is not None
    assert len(words.words) == num_words
    assert words.tokens("What's w3, w3?") == ["what", "'s", "w3", "w3"]
    # The original's questions of 8 words, padded in front with its last id; ours on the right, with 0.
    rows = [[i + 2 for i in row if i != num_words] for row in golden["in/q"].tolist()]
    length = golden["in/q"].shape[1]
    question = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    regions = golden["in/v"]
    inputs = masks(question, regions)
    model = directory.model
    assert model.padding is not None
    model.padding.num_tokens, model.padding.num_regions = length, regions.shape[1]  # as in the golden file
    torch.testing.assert_close(model(question, regions, **inputs).logits, golden["out/logits"], atol=1e-5, rtol=0)
    again = made["out"].with_name("again")
    listed = ["--questions", str(made["train"]), str(made["val"])]
    assert main([*arguments(made, "hengyuan", None, config=None, tokens=None), *listed, str(again)]) == 0
    again_words = load_directory(again).question_vocabulary
    assert again_words is not None
    assert again_words.words == words.words


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


@pytest.mark.parametrize("kind", ["dcn", "DCN"])
def test_dcn(tmp_path: Path, kind: str) -> None:
    made, golden = dcn_files(tmp_path), load_golden("dcn_full_rcnn")
    named = [f"--{name}={made[name]}" for name in ("answers", "vectors")]
    argv = ["convert", kind, str(made["checkpoint"]), *named, "--questions", str(made["questions"]), str(made["out"])]
    assert main(argv) == 0
    directory = load_directory(made["out"])
    words = directory.question_vocabulary
    assert words is not None
    assert words.encode("W0's?") == [words.encode("w0")[0], 1, 1]
    assert "unseen" not in words.words
    assert "unasked" not in words.words
    mask = golden["in/ques_mask"] > 0
    question = torch.tensor([words.encode(f"w{i}")[0] for i in range(mask.numel())]).view(mask.shape) * mask
    found = directory.model(
        question, golden["in/img_feat"], question_mask=mask, region_mask=golden["in/img_mask"] > 0
    ).logits
    torch.testing.assert_close(found, golden["out/logits"], atol=1e-5, rtol=0)
    assert directory.model.question_encoder.embedding.embed.weight[1].tolist() == [0.5] * 16  # type: ignore[union-attr]


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


def test_asks_about_stored_features_and_refuses_a_photo(
    files: Callable[..., dict[str, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, golden = files("openvqa_mmnasnet"), load_golden("openvqa_mmnasnet")
    assert main([*arguments(made, model="mmnasnet"), str(made["out"])]) == 0
    mask = masks(golden["in/ques_ix"], golden["in/frcn_feat"])["region_mask"]
    sizes, store = torch.tensor([600, 500]), tmp_path / "store.h5"
    with StoreWriter(store, dim=golden["in/frcn_feat"].shape[-1], dtype="float32", record=BOTTOM_UP) as w:
        for i in range(len(mask)):
            boxes = golden["in/bbox_feat"][i, mask[i]] / sizes.repeat(2)
            w.add(str(i), golden["in/frcn_feat"][i, mask[i]].numpy(), boxes.numpy(), tuple(sizes.tolist()))
    predictor = Predictor.load(made["out"], features=store)
    text = " ".join(f"W{i}" for i in golden["in/ques_ix"][0].tolist()) + "?"
    found = predictor.ask("0", text, top_k=20)
    expected = golden["out/logits"][0].sigmoid()
    names = predictor.directory.answer_vocabulary.answers
    assert {answer.text: pytest.approx(answer.confidence, abs=1e-5) for answer in found} == dict(
        zip(names, expected.tolist(), strict=True)
    )
    capsys.readouterr()
    assert main(["ask", str(made["out"]), "0", text, "--features", str(store)]) == 0
    assert found[0].text in capsys.readouterr().out
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    assert main(["ask", str(made["out"]), str(tmp_path / "photo.png"), text]) == 2
    assert "bottom-up attention" in capsys.readouterr().err


def test_a_card_says_where_the_weights_are_from(files: Callable[..., dict[str, Path]]) -> None:
    made = files("openvqa_mcan")
    assert main([*arguments(made), "--repaired", str(made["out"])]) == 0
    text = (made["out"] / "README.md").read_text()
    assert "MILVLG/openvqa" in text
    assert "epoch13.pkl" in text
    assert "Repaired" in text
    assert "license: unknown" in text
    assert "has never been run on the" in text
    assert load(made["out"]).padding is None


def test_weights_of_several_devices(files: Callable[..., dict[str, Path]], tmp_path: Path) -> None:
    made = files("openvqa_mcan")
    weights = part(load_golden("openvqa_mcan"), "sd")
    for number, (value, zipped) in enumerate(
        [({f"module.{key}": value for key, value in weights.items()}, True), (weights, False)]
    ):
        torch.save(value, made["checkpoint"], _use_new_zipfile_serialization=zipped)
        assert main([*arguments(made), str(tmp_path / f"model{number}")]) == 0


# Refusals


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
        ({"config": "{}"}, "the settings of openvqa miss LAYER"),
        ({"config": "["}, "not valid JSON"),
        ({"config": "[1]"}, "settings are names with values"),
        ({"config": '{"LAYER": 2}'}, "miss HIDDEN_SIZE"),
        ({"config": '{"LAYER": -1}'}, "LAYER is -1, but must be at least 1"),
        ({"answers": '["a", "b"]'}, "2 answers, but the checkpoint scores 20"),
        ({"answers": '{"a": 0, "b": 2}'}, "gives each its number, 0 to 1, each once"),
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
        (["train", "val", "more"], "these are more questions than the checkpoint was trained with"),
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
    assert "HIDDEN_SIZE is 32, but the weights show 64" in message


# The command line


def test_every_project_has_its_command() -> None:
    assert set(COMMANDS) == set(PROJECTS)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ("openvqa C --questions a b O", "openvqa C --questions a b -- O"),
        ("openvqa C --model mcan --repaired --config=x --questions a O", "same"),
        ("openvqa C --questions a b O --repaired", "openvqa C --questions a b --repaired -- O"),
        ("openvqa C --questions a b O --model mcan", "openvqa C --questions a b --model mcan -- O"),
        ("openvqa C O --questions a b", None),
        ("openvqa C --questions a b --model mcan O", None),
        (
            "openvqa --repaired C --model mcan --questions a b O",
            "openvqa --repaired C --model mcan --questions a b -- O",
        ),
        ("openvqa C --questions O", None),
        ("openvqa C --questions a b -- O", None),
        ("merge a b.h5", None),
    ],
)
def test_the_directory_may_follow_the_question_files(argv: str, expected: str | None) -> None:
    if expected == "same":
        expected = " -- ".join(argv.rsplit(" ", 1))
    assert separated(argv.split()) == (expected or argv).split()


def test_a_checkpoint_keeps_what_lies_beside_its_weights(tmp_path: Path) -> None:
    torch.save({"state_dict": {"module.a": torch.ones(1)}, "epoch": 3}, tmp_path / "a.pkl")
    weights, rest = read_checkpoint(tmp_path / "a.pkl")
    assert weights == {"a": torch.ones(1)}
    assert rest == {"epoch": 3}
