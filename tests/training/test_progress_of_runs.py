from __future__ import annotations

import sys
import warnings

import pytest

from coattn.training.progress import quiet


def test_warnings_look_like_errors(capsys: pytest.CaptureFixture[str]) -> None:
    with quiet():
        print(warnings.formatwarning("few images", UserWarning, "somewhere.py", 7), file=sys.stderr, end="")
    assert capsys.readouterr().err == "coattn: warning: few images\n"
    assert "somewhere.py" in warnings.formatwarning("few images", UserWarning, "somewhere.py", 7)
