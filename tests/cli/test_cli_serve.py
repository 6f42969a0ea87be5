from __future__ import annotations

import pytest

from coattn.cli import main


@pytest.mark.parametrize("command", ["serve", "demo"])
@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--port", "99999", "'99999' is not a port, a number from 0 to 65535"),
        ("--port", "-1", "'-1' is not a port"),
        ("--max-pixels", "-1", "'-1' is not a number above 0"),
        ("--max-body", "nan", "'nan' is not a number above 0"),
        ("--timeout", "inf", "'inf' is not a number above 0"),
        ("--timeout", "soon", "'soon' is not a number above 0"),
        ("--threads", "0", "'0' is not a positive number"),
    ],
)
def test_numbers_out_of_range_are_refused(
    command: str, option: str, value: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "model", option, value]) == 2
    assert f"{option}: {message}" in capsys.readouterr().err
