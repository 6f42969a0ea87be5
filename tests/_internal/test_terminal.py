from __future__ import annotations

import json
import sys

import pytest

from coattn._internal.terminal import printable, printable_output


def test_control_characters_are_escaped() -> None:
    assert printable("\x1b]0;owned\x07\x1b[2J") == "\\u001b]0;owned\\u0007\\u001b[2J"
    assert printable("a\rb\x7f\x9b") == "a\\u000db\\u007f\\u009b"
    assert printable("\u202eder\u202c, line\u2028two, \udcff.png") == "\\u202eder\\u202c, line\\u2028two, \\udcff.png"
    kept = "two\tcolumns\nand größer, 答え, 🙂"
    assert printable(kept) == kept


def test_json_remains_json() -> None:
    text = json.dumps({"answer": "\x1b[2J\x9b\x7f"}, ensure_ascii=False)
    assert json.loads(printable(text)) == json.loads(text)


def test_output_is_escaped_and_progress_bars_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout
    with printable_output():
        print("answer \x1b[2J")
        print("\r 10 %|#", end="", file=sys.stderr)
        sys.stderr.write("\n\x1b[A")
        sys.stderr.writelines(["a\x1b[2J", "b"])
    assert sys.stdout is before
    assert capsys.readouterr() == ("answer \\u001b[2J\n", "\r 10 %|#\n\x1b[Aa\\u001b[2Jb")
