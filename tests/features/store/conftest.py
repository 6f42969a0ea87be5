from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from plain_stores import write


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {f"img{i}": rng.normal(size=(n, 5)).astype(np.float32) for i, n in enumerate([3, 0, 1, 7, 2])}


@pytest.fixture
def path(tmp_path: Path, arrays: dict[str, np.ndarray]) -> Path:
    return write(tmp_path / "a.h5", arrays, dtype="float32")
