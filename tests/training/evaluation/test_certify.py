from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from coattn.cli import main
from coattn.explain.abstain import Safeguards
from coattn.metrics.confidence import RISKS


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
    assert "none.yaml: no such configuration" in capsys.readouterr().err
    (tmp_path / "other.yaml").write_text("model: {}")
    assert main(["certify", str(model), "--config", str(tmp_path / "other.yaml")]) == 2
    assert "other.yaml: not a training configuration" in capsys.readouterr().err
