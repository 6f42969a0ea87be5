from __future__ import annotations

import numpy as np
from PIL import Image

from coattn.cli import main
from coattn.features.store import FeatureStore


def test_merge(tmp_path, capsys):
    for name in ("a", "b"):
        Image.fromarray(np.full((8, 8, 3), 99, np.uint8)).save(tmp_path / f"{name}.png")
        assert main(["extract", str(tmp_path / f"{name}.png"), str(tmp_path / name)]) == 0
    out = tmp_path / "all.h5"
    assert main(["convert", "merge", str(tmp_path / "a"), str(tmp_path / "b"), str(out)]) == 0
    assert f"{out}: 2 images, 32 rows of 56, float16" in capsys.readouterr().out
    assert FeatureStore(out).image_ids == ["a", "b"]
    assert main(["convert", "merge", str(tmp_path / "a"), str(out)]) == 2
    assert "exists" in capsys.readouterr().err
