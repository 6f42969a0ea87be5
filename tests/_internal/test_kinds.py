from __future__ import annotations

import os
from pathlib import Path

import pytest

from coattn._internal.kinds import kind_of, kind_of_content


@pytest.mark.parametrize(
    ("start", "name", "kind"),
    [
        (b"", "a.json", "an empty file"),
        (b"\x89PNG\r\n", "a.json", "an image"),
        (b"\xff\xd8\xff\xe0", "photo", "an image"),
        (b"BM\x36\x10\0\0\0\0\0\0", "photo", "an image"),
        (b"RIFF\n\n\n\nWEBP", "photo.jpg", "an image"),
        (b"RIFF\n\n\n\nWAVE", "sound.wav", "another kind of file"),
        (b"\x89HDF\r\n", "a.csv", "an HDF5 file"),
        (b"image,questi", "t.CSV", "a table"),
        (b"BMI,image,qu", "t.csv", "a table"),
        (b"\x1f\x8b\x08\0", "t.csv.gz", "a gzipped file"),
        (b"PK\3\4", "t.xlsx", "a spreadsheet"),
        (b"PAR1", "t.parquet", "a Parquet file"),
        (b"{", "t.json", "a JSON file"),
        (b"data:", "easy.yaml", "a configuration"),
        (b"hello", "note.txt", "another kind of file"),
    ],
)
def test_a_file_is_known_by_its_first_bytes_or_its_name(start: bytes, name: str, kind: str) -> None:
    assert kind_of_content(start, name) == kind


def test_a_folder_is_known_by_its_files(tmp_path: Path) -> None:
    assert kind_of(tmp_path) == "a folder"
    assert kind_of(tmp_path / "nothing") == "missing"
    os.mkfifo(tmp_path / "pipe")
    assert kind_of(tmp_path / "pipe") == "a special file"
    (tmp_path / "manifest.json").write_text("{}")
    assert kind_of(tmp_path) == "a feature store"
    assert kind_of(tmp_path / "manifest.json") == "a JSON file"
