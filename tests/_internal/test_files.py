"""Writing a file wholly or not at all, and reading JSON that may be damaged."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from coattn._internal.files import (
    atomic_folder,
    atomic_path,
    read_json,
    remove_leftovers,
    sha256_of_file,
    write_json,
)


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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("place", [atomic_path, atomic_folder])
def test_a_full_disk_is_said_with_the_file(place: Any, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught, place(tmp_path / "a.json"):
        Path("/dev/full").write_text("x")
    assert caught.value.filename == str(tmp_path / "a.json")
    with pytest.raises(OSError, match="not found here") as caught, atomic_path(tmp_path / "a.json"):
        raise OSError("not found here")  # no error of the system's
    assert caught.value.filename is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[1,\n2", "not valid JSON .line 2, column 2: .*is the file complete"),
        (b'{"a": 1}\n{"a": 2}', "not valid JSON .line 2, column 1: .*is it one object per line. Then name it .jsonl"),
        (b'["a",\n"\xe9"]', "line 2: not UTF-8 text"),
        (b"[" * 200_000, "not usable JSON"),
        (b"9" * 10_000, "not usable JSON"),
    ],
)
def test_damaged_json_is_named(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.json: {words}"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(tmp_path / "a.json") == [1]


def test_half_a_surrogate_pair_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(r'["\ud83d\ude00", "\u00e9"]')
    assert read_json(path) == ["\U0001f600", "é"]
    path.write_text(r'{"a": ["\uD83D"]}')
    with pytest.raises(ValueError, match=r"a\.json: half of a surrogate pair.* after \{\"a\": \[\"; correct it"):
        read_json(path)


def test_a_killed_writers_file_is_removed_by_the_next_and_a_living_ones_kept(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    dead, dead_folder = tmp_path / ".a.json.x1.partial", tmp_path / ".a.json.x2.partial"
    dead.write_text("half")
    dead_folder.mkdir()
    (dead_folder / "file").write_text("half")
    with atomic_path(target) as living:
        living.write_text("[1]")
        write_json(target, [2])
        assert living.exists()
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([living.name, "a.json"])
    assert read_json(target) == [1]
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "a"
    with pytest.raises(FileNotFoundError) as caught, atomic_folder(target) as partial:
        (partial / "none" / "file").write_text("half")
    assert caught.value.filename == str(target / "none" / "file")
    assert not list(tmp_path.iterdir())
    with atomic_folder(target) as partial:
        (partial / "file").write_text("whole")
        remove_leftovers(target)
    assert (target / "file").read_text() == "whole"
    assert target.stat().st_mode & 0o700 == 0o700
    with pytest.raises(FileExistsError, match=f"{target}: already exists"), atomic_folder(target) as partial:
        (partial / "file").touch()
    assert list(tmp_path.iterdir()) == [target]
    assert (target / "file").read_text() == "whole"


def test_pipes_and_devices_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=r"pipe\.json: is a named pipe, not a regular file"):
        read_json(tmp_path / "pipe.json")
    with pytest.raises(ValueError, match=r"zero\.json: is a device, not a regular file"):
        sha256_of_file(tmp_path / "zero.json")
