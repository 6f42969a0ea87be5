"""Writing a file wholly or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from coattn.files import atomic_path, write_json


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, 1)
    with pytest.raises(TypeError), atomic_path(path) as partial:
        partial.write_text(b"not text")  # type: ignore[arg-type]
    assert path.read_text() == "1\n"
    assert list(tmp_path.iterdir()) == [path]


def test_errors_name_the_file_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for path, named in (("folder", "folder"), ("file/x.json", "file")):
        with pytest.raises(OSError, match="director") as caught:
            write_json(tmp_path / path, 1)
        assert caught.value.filename == str(tmp_path / named)
    with pytest.raises(OSError, match="too long") as caught:
        write_json(tmp_path / ("x" * 250), 1)
    assert caught.value.filename == str(tmp_path / ("x" * 250))
