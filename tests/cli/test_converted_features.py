"""From a real file of bottom-up features to answers, by the commands alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from coattn.cli import main
from coattn.datasets.records import Record
from coattn.datasets.vqa_json import write_vqa
from coattn.features.store.provenance import same_extractor
from coattn.features.store.reader import FeatureStore
from coattn.serialization.directory import load_directory

BOTTOM_UP = {"name": "bottom-up", "settings": {}, "weights": None}


def write_questions(folder: Path, store: FeatureStore, names: list[str]) -> list[Record]:
    """Whether each image shows a few things, by what the detector saw in it."""
    seen = [{names[label] for label in store.read(number).labels} for number in range(len(store))]
    things = sorted({thing for image in seen for thing in image if 3 <= sum(thing in other for other in seen) <= 7})
    records = [
        Record(100 * number + place, int(image_id), f"is there a {thing}?", ("yes" if thing in image else "no",))
        for number, (image_id, image) in enumerate(zip(store.image_ids, seen, strict=True))
        for place, thing in enumerate(things[:6])
    ]
    for split in ("train", "val"):
        write_vqa(folder, split, records, info={"metric": "exact_match"})
    return records


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> tuple[Path, list[Record]]:
    """Folder with the converted features and a model that has memorized them."""
    folder = tmp_path_factory.mktemp("trained")
    sample = shared_data / "region_features"
    assert main(["convert", "bottom-up-tsv", str(sample / "train2014_obj36.tsv"), str(folder / "features")]) == 0
    names = (sample / "objects_vocab.txt").read_text().splitlines()
    records = write_questions(folder, FeatureStore(folder / "features"), names)
    files = {
        f"{s}_{kind}": str(folder / f"{s}_{kind}.json")
        for s in ("train", "val")
        for kind in ("questions", "annotations")
    }
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "check_val_every_n_epoch": 20,
    }
    config = {
        "seed_everything": 1,
        "trainer": {"accelerator": "cpu", "max_epochs": 40, "default_root_dir": str(folder / "run"), **quiet},
        "data": {"features": str(folder / "features"), **files, "batch_size": 12},
        "model": {
            "preset": "stack",
            "sizes": {"layers": ["parallel"], "dim": 64, "boxes": True, "dropout": 0.0},
            "lr": 3e-3,
        },
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", str(folder / "config.yaml")]) == 0
    return folder, records


@pytest.mark.filterwarnings("ignore:validation")
def test_the_model_knows_what_it_was_trained_on(trained):
    folder, _ = trained
    record = load_directory(folder / "run" / "model").extractor
    assert same_extractor(record, BOTTOM_UP)
    assert record["versions"]["sources"][0]["file"] == "train2014_obj36.tsv"


def test_it_answers_by_image_id(trained, capsys):
    folder, records = trained
    right = 0
    for image_id in dict.fromkeys(record.image_id for record in records):
        asked = [record for record in records if record.image_id == image_id]
        name = f"COCO_train2014_{image_id:012d}" if image_id % 2 else str(image_id)  # either way
        command = ["ask", str(folder / "run" / "model"), name, *(record.question for record in asked)]
        assert main([*command, "--features", str(folder / "features"), "--json", "--top-k", "1"]) == 0
        found = [json.loads(line)["answers"][0] for line in capsys.readouterr().out.splitlines()]
        right += sum(answer["answer"] == record.answers[0] for answer, record in zip(found, asked, strict=True))
    majority = np.mean([record.answers[0] == "no" for record in records])
    assert right / len(records) >= 0.9 > majority


def test_it_refuses_a_bare_photo_and_features_of_another(trained, shared_data, tmp_path, capsys):
    folder, _ = trained
    sample = shared_data / "region_features"
    photo = sample / "images" / "COCO_train2014_000000084002.jpg"
    assert main(["ask", str(folder / "run" / "model"), str(photo), "is there a wall?"]) == 2
    assert "it answers about images of a feature store" in capsys.readouterr().err
    tsv = str(sample / "train2014_obj36.tsv")
    assert main(["convert", "tsv", tsv, str(tmp_path / "other"), "--extractor", "mine"]) == 0
    command = ["ask", str(folder / "run" / "model"), "84002", "is there a wall?", "--features", str(tmp_path / "other")]
    assert main(command) == 2
    assert 'name "bottom-up" there, "mine" here' in capsys.readouterr().err
