"""From official VQA v2 files and photos of COCO to answers about a photo, by the commands alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from coattn.cli import main
from coattn.datasets.vqa_json import read_vqa
from coattn.metrics.vqa import vqa_accuracy


def run(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """Folder with data, features and a model that has memorized them."""
    folder, sample = tmp_path_factory.mktemp("coco"), shared_data / "vqa_v2_subset"
    (folder / "official").mkdir()
    for kind in ("OpenEnded_mscoco_train2014_questions", "mscoco_train2014_annotations"):
        shutil.copy(sample / f"v2_{kind}_sample_224.json", folder / "official" / f"v2_{kind}.json")
    run("prepare", "vqa-v2", folder / "official", folder / "data", "--images", sample / "images_224")
    weights = shared_data / "weights" / "mobilenet_v2" / "mobilenet_v2_imagenet_tfsame_fp16.pth"
    network = ("--extractor", "torchvision", "--model", "mobilenet_v2", "--weights", weights, "--tf-same-padding")
    run("extract", folder / "data" / "images.json", folder / "features", *network, "--global")
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    config = {
        "seed_everything": 1,
        "trainer": {"accelerator": "cpu", "max_epochs": 40, "default_root_dir": str(folder / "run"), **quiet},
        "data": {
            "features": str(folder / "features"),
            **{f"train_{kind}": str(folder / "data" / f"train_{kind}.json") for kind in ("questions", "annotations")},
            "batch_size": 16,
        },
        "model": {
            "preset": "stack",
            "sizes": {"layers": ["parallel"], "dim": 64, "dropout": 0.0},
            "lr": 3e-3,
        },
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    run("fit", "--config", folder / "config.yaml")
    return folder


def test_photos_are_asked_what_was_learnt(learnt: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = read_vqa(
        *(learnt / "data" / f"train_{kind}.json" for kind in ("questions", "annotations")), split="train"
    ).records
    images = json.loads((learnt / "data" / "images.json").read_text())
    asked = [record for record in records if record.image_id in {r.image_id for r in records[:16]}]
    worth, constant = [], []
    for image_id in dict.fromkeys(record.image_id for record in asked):
        mine = [record for record in asked if record.image_id == image_id]
        photo = shared_data / "vqa_v2_subset" / "images_224" / Path(images[str(image_id)]).name
        capsys.readouterr()
        run("ask", learnt / "run" / "model", photo, *(record.question for record in mine), "--json", "--top-k", "1")
        answers = [json.loads(line)["answers"][0]["answer"] for line in capsys.readouterr().out.splitlines()]
        worth += [vqa_accuracy(answer, record.answers) for answer, record in zip(answers, mine, strict=True)]
        constant += [vqa_accuracy("yes", record.answers) for record in mine]
    assert len(worth) >= 16
    assert sum(worth) / len(worth) > 0.75 > 2 * sum(constant) / len(constant)


def test_a_photo_that_is_a_pointer_of_git_lfs_is_named(
    learnt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = tmp_path / "COCO_train2014_000000000009.jpg"
    photo.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert main(["ask", str(learnt / "run" / "model"), str(photo), "what is it?"]) == 2
    assert "git-lfs" in capsys.readouterr().err
