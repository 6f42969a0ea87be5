"""Two hundred kills of all commands that may take long.

After each kill there is the old state or the new one, or what is there is refused. After the same command was run
again, all is as without the kill, and nothing is left over. The commands are in long_commands.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from kill_runner import fill_all, kill_all
from long_commands import COMMANDS


@pytest.mark.slow
def test_two_hundred_kills(tmp_path: Path) -> None:
    kills = list(kill_all(tmp_path))
    assert [kill for kill in kills if kill.fault] == []
    assert {kill.command for kill in kills} == set(COMMANDS)
    assert len(kills) >= 200


@pytest.mark.slow
def test_a_full_disk_is_named(tmp_path: Path) -> None:
    """The limit of the size of files acts like a full disk, at the largest file of each command."""
    assert [kill for kill in fill_all(tmp_path) if kill.fault] == []
