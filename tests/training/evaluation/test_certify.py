from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from coattn.cli import main
from coattn.datasets.results import Results
from coattn.explain.abstain import Safeguards
from coattn.explain.image_index import ImageIndex
from coattn.metrics.confidence import RISKS
from coattn.training.data.config import open_data
from coattn.training.evaluation import certify
from coattn.training.evaluation.certify import with_doubts


def test_fit_certifies_and_certify_does_so_again(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--config", str(config)]) == 0
    model = tmp_path / "run" / "model"
    first = Safeguards.load(model)
    assert first.certificates is not None
    assert [certificate.risk for certificate in first.certificates] == list(RISKS)
    assert all(certificate.threshold is None for certificate in first.certificates)  # 13 questions prove nothing
    assert first.index is not None
    card = (model / "README.md").read_text(encoding="utf-8")
    assert "A risk of 5 % is not certifiable with 13 validation questions" in card
    for name in ("certificate.json", "index.safetensors"):
        (model / name).unlink()
    assert main(["certify", str(model)]) == 0  # with the configuration beside the model
    again = Safeguards.load(model)
    assert again.certificates == first.certificates
    assert again.index is not None
    assert again.index.threshold == pytest.approx(first.index.threshold)
    assert (model / "README.md").read_text(encoding="utf-8") == card
    (model / "certificate.json").unlink()
    settings = yaml.safe_load(config.read_text())
    data = settings["data"]
    earlier = {"features": data["features"], "batch_size": 8, "answers": "choices", **data["files"]}
    settings["data"] = earlier
    (tmp_path / "earlier.yaml").write_text(yaml.safe_dump(settings))
    assert main(["certify", str(model), "--config", str(tmp_path / "earlier.yaml")]) == 0
    assert Safeguards.load(model).certificates == first.certificates
    capsys.readouterr()
    assert main(["certify", str(model), "--config", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml: there is no such file; give a configuration" in capsys.readouterr().err
    (tmp_path / "other.yaml").write_text("model: {}")
    assert main(["certify", str(model), "--config", str(tmp_path / "other.yaml")]) == 2
    assert "other.yaml: not a training configuration" in capsys.readouterr().err


def test_images_are_compared_with_the_index_in_blocks(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["fit", "--config", str(config), "--trainer.max_epochs", "1"]) == 0
    data, safeguards = open_data(config, tmp_path / "run/model"), Safeguards.load(tmp_path / "run/model")
    assert safeguards.index is not None
    half = np.median(safeguards.index.distances(certify.split_features(data, "val")))
    safeguards = replace(safeguards, index=safeguards.index._replace(threshold=half))
    ids = [record.question_id for record in data.split("val").records]
    results = Results(dict.fromkeys(ids, "yes"), dict.fromkeys(ids, 0.5))
    at_once = with_doubts(results, safeguards, data, "val").doubts
    assert 0 < sum(bool(doubt.reasons) for doubt in at_once.values()) < len(ids)
    sizes = []
    are_unlike = ImageIndex.are_unlike

    def counted(index: ImageIndex, images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        return are_unlike(index, images)

    monkeypatch.setattr(ImageIndex, "are_unlike", counted)
    monkeypatch.setattr(certify, "_BLOCK", 2)
    assert with_doubts(results, safeguards, data, "val").doubts == at_once
    assert len(sizes) > 1
    assert max(sizes) == 2
