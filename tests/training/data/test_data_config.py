"""The data of a training configuration, and files that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from coattn.training.data.config import open_data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "codec can't decode byte 0xff"),
        (b"data: [", "while parsing"),
        (b"- 1", "it has no settings of data"),
        (b"data: 3", "it has no settings of data"),
        (b"data: {nonsense: 3}", "does not accept option 'nonsense'"),
        (b"data: {batches: {size: many}}", "data.batches.size.*Got value: many"),
    ],
)
def test_other_files_are_no_configuration(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"c\.yaml: not a training configuration: .*{message}"):
        open_data(path)


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.yaml: no such configuration$"):
        open_data(tmp_path / "none.yaml")
    with pytest.raises(FileNotFoundError, match="give --config, the one the model was trained with"):
        open_data(tmp_path / "none.yaml", tmp_path / "model")
