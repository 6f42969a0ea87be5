"""Every extractor from the command line, and what `coattn ask` makes of a photo with a model on its features."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from coattn import models
from coattn.cli import main
from coattn.cli.extractors import KINDS as EXTRACTORS
from coattn.features.extract.extractors.build import NETWORKS, PLAIN
from coattn.features.store.reader import FeatureStore
from coattn.serialization.directory import save_model
from coattn.text.vocabulary import AnswerVocabulary, Vocabulary

WORDS = Vocabulary(["what", "colour", "is", "it", "red"])
DETECTOR = "--extractor detector --model fasterrcnn_mobilenet_v3_large_320_fpn --weights none --min-side 64"
KINDS = {
    "patches": "--extractor patches --grid 2x3 --size 8x12",
    "torchvision": "--extractor torchvision --model shufflenet_v2_x0_5 --weights none --size 64x96 --scales 1.0 0.5",
    "efficientnet-lite": "--extractor efficientnet-lite --model lite0 --weights none --size 64x96 --grid 1x2 --global",
    "detector": f"{DETECTOR} --max-side 96 --regions 10-20 --confidence 0.01",
    "transformers": "--extractor transformers --model {model} --size 40x32 --global --precision bf16",
    "tower": "--extractor transformers --model {tower} --scales 1 0.5",
}


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory, make_vision_model: Callable[..., Path]) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {"model": make_vision_model(folder / "dino", "dinov2"), "tower": make_vision_model(folder / "clip", "clip")}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, size in enumerate([(7, 5), (5, 8), (7, 5)]):
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        path = tmp_path / "photos" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).resize((10 * size[1], 10 * size[0]), Image.Resampling.BILINEAR).save(path)
    return tmp_path / "photos"


def answers(capsys: pytest.CaptureFixture[str]) -> dict[str, float]:
    return {answer["answer"]: answer["confidence"] for answer in json.loads(capsys.readouterr().out)["answers"]}


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_asks_a_photo_as_its_features_say(
    kind: str, photos: Path, encoders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torchvision")
    out, options = tmp_path / "out", KINDS[kind].format(**encoders).split()
    command = ["extract", str(photos), str(out), *options, "--dtype", "float32", "--batch-size", "2"]
    assert main([*command, *([] if kind == "patches" else ["--device", "cpu"])]) == 0
    store = FeatureStore(out)
    assert store.image_ids == ["0", "1", "2"]
    torch.manual_seed(0)
    save_model(
        tmp_path / "model",
        models.modular(num_words=len(WORDS), region_dim=store.dim, num_answers=3, dim=16, embedding_dim=8),
        answer_vocabulary=AnswerVocabulary(["yes", "no", "red"]),
        question_vocabulary=WORDS,
        metric="exact_match",
        activation="softmax",
        extractor=store.record,
        extractor_weights=store.asset("extractor.safetensors"),
    )
    capsys.readouterr()
    ask = ["ask", str(tmp_path / "model")]
    assert main([*ask, str(photos / "1.png"), "what colour is it", "--json"]) == 0
    live = answers(capsys)
    assert main([*ask, "1", "what colour is it", "--json", "--features", str(out)]) == 0
    stored = answers(capsys)
    assert live == pytest.approx(stored, abs=2e-3 if "bf16" in KINDS[kind] else 1e-5)


def test_labels_are_inspected_merged_and_go_on_after_a_kill(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torchvision")
    out = tmp_path / "out"
    command = ["extract", str(photos), str(out), *DETECTOR.split(), "--max-side", "96", "--regions", "5", "--flips"]
    assert main([*command, "--device", "cpu"]) == 0
    whole = {path.name: path.read_bytes() for path in out.iterdir()}
    (out / "shard-00000.h5").unlink()
    assert main([*command, "--device", "cpu"]) == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == whole
    capsys.readouterr()
    assert main(["inspect", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["detections"] == ["labels", "scores"]
    assert main(["convert", "merge", str(out), str(tmp_path / "one.h5")]) == 0
    one, store = FeatureStore(tmp_path / "one.h5"), FeatureStore(out)
    assert one.image_ids == ["0", "0#flip", "1", "1#flip", "2", "2#flip"]
    for number in range(6):
        np.testing.assert_array_equal(one.read(number).labels, store.read(number).labels)
        np.testing.assert_array_equal(one.read(number).scores, store.read(number).scores)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "--extractor detector --model fasterrcnn_resnet50_fpn",
            "--extractor detector needs --model NAME and --weights",
        ),
        ("--extractor detector --model resnet18 --weights none", "torchvision has no Faster R-CNN 'resnet18'"),
        (f"{DETECTOR} --confidence 0.5", "--confidence needs a range of regions"),
        (f"{DETECTOR} --grid 2x2", "--grid needs --extractor descriptor or patches"),
        ("--extractor transformers", "--extractor transformers needs --model: a folder, or a name on the Hub"),
        ("--extractor transformers --model no/such", "'no/such' is neither a folder nor on this machine"),
        ("--extractor transformers --model {model} --weights gone.pth", "gone.pth: No such file"),
        ("--extractor transformers --model {model} --nms 0.5", "--nms needs --extractor detector"),
        (
            "--scales 0.5",
            "--scales needs --extractor efficientnet-lite or torchvision or transformers; descriptor has no such",
        ),
        ("--extractor patches --grid 3x3 --size 64x64", "size 64x64 is not a multiple of grid 3x3"),
    ],
)
def test_settings_that_cannot_be(
    options: str,
    message: str,
    photos: Path,
    encoders: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("torchvision")
    command = [*options.format(**encoders).split(), *(["--device", "cpu"] if "model" in options else [])]
    assert main(["extract", str(photos), str(tmp_path / "out"), *command]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_all_extractors_can_be_asked_for() -> None:
    assert set(EXTRACTORS) == PLAIN.keys() | NETWORKS.keys()


@pytest.mark.parametrize("options", [["--regions", "0"], ["--regions", "9-3"], ["--precision", "int8"]])
def test_values_that_cannot_be(options: list[str], photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["extract", str(photos), "out", *options]) == 2
    assert options[0] in capsys.readouterr().err
