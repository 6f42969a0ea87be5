"""Checkpoint files of other projects to model directories, by the real command."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from parity import load_config, load_golden, masks, part
from PIL import Image
from project_files import arguments, dcn_files, project_files, refused, write_json

from coattn import load, models
from coattn.cli import main
from coattn.features.store.reader import StoreWriter
from coattn.predictor import Predictor
from coattn.serialization.directory import load_directory
from coattn.weights import from_openvqa
from coattn.weights.dictionaries import read_answers
from coattn.weights.pickles import read_checkpoint

BOTTOM_UP = {"name": "bottom-up", "settings": {}, "weights": None, "versions": {}}
OPENVQA = [
    ("openvqa_mcan", "mcan"),
    ("openvqa_mcan_bbox", "mcan_small"),
    ("openvqa_mmnasnet", "mmnasnet"),
    ("openvqa_butd", "butd"),
    ("openvqa_ban", "ban_8"),
    ("openvqa_mfb", "mfb"),
    ("openvqa_mfh", "mfh"),
]


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., dict[str, Path]]:
    return partial(project_files, tmp_path)


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


def test_a_dictionary_from_number_to_answer_is_read(tmp_path: Path) -> None:
    path = write_json(tmp_path / "idx2ans.json", {"1": "no", "0": "yes", "2": "0"})
    assert read_answers(path, num_answers=3).answers == ("yes", "no", "0")


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
    assert isinstance(model, models.OriginalPadding)
    model.num_tokens, model.num_regions = length, regions.shape[1]  # as in the golden file
    torch.testing.assert_close(model(question, regions, **inputs).logits, golden["out/logits"], atol=1e-5, rtol=0)
    again = made["out"].with_name("again")
    listed = ["--questions", str(made["train"]), str(made["val"])]
    assert main([*arguments(made, "hengyuan", None, config=None, tokens=None), *listed, str(again)]) == 0
    again_words = load_directory(again).question_vocabulary
    assert again_words is not None
    assert again_words.words == words.words


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
    assert not isinstance(load(made["out"]), models.OriginalPadding)


def test_weights_of_several_devices(files: Callable[..., dict[str, Path]], tmp_path: Path) -> None:
    made = files("openvqa_mcan")
    weights = part(load_golden("openvqa_mcan"), "sd")
    for number, (value, zipped) in enumerate(
        [({f"module.{key}": value for key, value in weights.items()}, True), (weights, False)]
    ):
        torch.save(value, made["checkpoint"], _use_new_zipfile_serialization=zipped)
        assert main([*arguments(made), str(tmp_path / f"model{number}")]) == 0


def test_a_checkpoint_keeps_what_lies_beside_its_weights(tmp_path: Path) -> None:
    torch.save({"state_dict": {"module.a": torch.ones(1)}, "epoch": 3}, tmp_path / "a.pkl")
    weights, rest = read_checkpoint(tmp_path / "a.pkl")
    assert weights == {"a": torch.ones(1)}
    assert rest == {"epoch": 3}
