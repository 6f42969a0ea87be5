from __future__ import annotations

from pathlib import Path

import pytest

from coattn._internal.kinds import kind_of, kind_of_content


@pytest.mark.parametrize(
    ("start", "name", "kind"),
    [
        (b"", "a.json", "an empty file"),
        (b"\x89PNG\r\n", "a.json", "an image"),
        (b"\xff\xd8\xff\xe0", "photo", "an image"),
        (b"\x89HDF\r\n", "a.csv", "an HDF5 file"),
        (b"image,qu", "t.CSV", "a table"),
        (b"{", "t.json", "a JSON file"),
        (b"data:", "easy.yaml", "a configuration"),
        (b"hello", "note.txt", "a file"),
    ],
)
def test_a_file_is_known_by_its_first_bytes_or_its_name(start: bytes, name: str, kind: str) -> None:
    assert kind_of_content(start, name) == kind


def test_a_folder_is_known_by_its_files(tmp_path: Path) -> None:
    assert kind_of(tmp_path) == "a folder"
    assert kind_of(tmp_path / "nothing") == "missing"
    (tmp_path / "manifest.json").write_text("{}")
    assert kind_of(tmp_path) == "a feature store"
    assert kind_of(tmp_path / "manifest.json") == "a JSON file"
