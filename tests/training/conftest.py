from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
import yaml
from tiny import settings, write_data

# Weights are compared bit for bit with those of processes that compute on one thread.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the tiny data set."""
    return write_data(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def config(tiny_data: Path, tmp_path: Path) -> Path:
    """YAML file of a tiny run in `tmp_path / "run"`."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(settings(tiny_data, tmp_path / "run")))
    return path


@pytest.fixture
def lightning_log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """The messages of Lightning's logger, which does not propagate; only newer versions of pytest then see them."""
    monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "propagate", True)
    caplog.set_level("INFO", logger="lightning.pytorch")
    return caplog
