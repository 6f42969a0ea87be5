from __future__ import annotations

import gc
import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from coattn import __version__, cli
from coattn.cli import COMMANDS, main
from coattn.cli.arguments import require_config, require_table


@pytest.fixture
def score_raises(monkeypatch: pytest.MonkeyPatch):
    """Make `coattn score` raise a given exception."""

    def install(error: BaseException) -> None:
        def run(args: object) -> int:
            raise error

        module = SimpleNamespace(DESCRIPTION="", add_arguments=lambda parser: None, run=run)
        monkeypatch.setitem(sys.modules, "coattn.cli.score", module)

    return install


def test_help_lists_every_command_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for command, summary in COMMANDS.items():
        assert [line.split(maxsplit=1) for line in lines].count([command, summary]) == 1
    assert max(map(len, lines)) <= 100


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"coattn {__version__}\n"


def test_only_the_process_of_a_command_excludes_its_imports_from_garbage_collection() -> None:
    before = gc.get_freeze_count()
    assert main(["configs"]) == 0
    assert gc.get_freeze_count() == before
    code = "import gc, sys; from coattn.cli import main; sys.argv[1:] = ['configs']; main()"
    code += "; sys.exit(not (gc.isenabled() and gc.get_freeze_count() > 1000))"
    assert subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL).returncode == 0


def test_no_command_shows_the_help_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("usage: coattn COMMAND")


@pytest.mark.parametrize(
    ("typed", "hint"),
    [("scor", "did you mean 'score'?"), ("validat", "did you mean 'validate'?"), ("xyz", "known are train, ")],
)
def test_unknown_command_gets_a_hint(typed: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([typed, "--json"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"coattn: error: there is no command {typed!r}; {hint}")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("a.json: question 3 is wrong; correct it"), "a.json: question 3 is wrong; correct it"),
        (FileNotFoundError(2, "No such file or directory", "a.json"), "a.json: No such file or directory"),
        (OSError("the disk is full"), "the disk is full"),
        (ModuleNotFoundError("pip install 'coattn[train]'"), "pip install 'coattn[train]'"),
        (ValueError(), "ValueError"),
    ],
)
def test_mistakes_of_the_user_become_one_line(
    error: Exception, line: str, score_raises, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    score_raises(error)
    monkeypatch.delenv("COATTN_TRACEBACK", raising=False)
    assert main(["score"]) == 2
    assert capsys.readouterr() == ("", f"coattn: error: {line}\n")
    monkeypatch.setenv("COATTN_TRACEBACK", "1")
    with pytest.raises(type(error)):
        main(["score"])


def test_mistakes_of_the_program_keep_their_traceback(score_raises) -> None:
    score_raises(KeyError("x"))
    with pytest.raises(KeyError):
        main(["score"])


def test_interrupt(score_raises, capsys: pytest.CaptureFixture[str]) -> None:
    score_raises(KeyboardInterrupt())
    assert main(["score"]) == 130
    assert capsys.readouterr().err == "coattn: interrupted\n"


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_training_commands_get_the_whole_command_line(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setitem(sys.modules, "coattn.cli.fit", SimpleNamespace(main=lambda argv: seen.append(argv) or 3))
    assert main([command, "--config", "x.yaml"]) == 3
    assert seen == [[command, "--config", "x.yaml"]]


def test_help_and_score_are_light() -> None:
    program = (
        "import sys; from coattn.cli import main; main(['--help'])\n"
        "import coattn.cli.score; assert 'numpy' not in sys.modules; import coattn.metrics.score\n"
        "heavy = {'torch', 'lightning', 'h5py', 'PIL', 'transformers', 'matplotlib', 'nltk'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


def test_a_reader_that_leaves_early_is_no_error() -> None:
    program = "from coattn.cli import main; import sys, time; time.sleep(0.2); sys.exit(main(['--help']))"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in cli._TRAINING])
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert importlib.import_module(f"coattn.cli.{command.replace('-', '_')}").DESCRIPTION
    with pytest.raises(SystemExit) as exit_info:
        main([command, "--help"])
    assert exit_info.value.code == 0
    output = capsys.readouterr().out
    assert output.startswith(f"usage: coattn {command}")
    assert f"\n  coattn {command} " in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "tabel", "a.csv", "out"], "there is no 'tabel'; did you mean 'table'?"),
        (
            ["prepare", "table", "a.csv", "out", "--imags", "x"],
            "there is no argument '--imags'; did you mean '--images'?",
        ),
        (["extract", "a", "b", "--dtype", "float23"], "--dtype: there is no 'float23'; did you mean 'float32'?"),
        (
            ["extract", "a", "b", "--grid", "x"],
            "--grid: 'x' is not two positive numbers like 4x4; see coattn extract --help",
        ),
        (
            ["score"],
            "the following arguments are required: results, --questions, --annotations; see coattn score --help",
        ),
        (["fit", "--model.optimizer.lr", "abc"], "model.optimizer.lr must be a number, got 'abc'"),
        (["fit", "--model.presett", "3"], "there is no setting 'model.presett'; did you mean 'model.preset'?"),
    ],
)
def test_all_mistakes_look_alike(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr() == ("", f"coattn: error: {message}\n")


def test_a_table_is_no_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "answers.csv").write_text("image,question,answer\n1,what?,red\n")
    assert main(["fit", "--config", str(tmp_path / "answers.csv")]) == 2
    assert "answers.csv: is a table, not a configuration (.yaml)" in capsys.readouterr().err
    (tmp_path / "list.yaml").write_text("- 1\n")
    assert main(["fit", "--config", str(tmp_path / "list.yaml")]) == 2
    assert "the file after --config is not a YAML mapping of settings" in capsys.readouterr().err


def test_answers_cannot_control_the_terminal(score_raises, capsys: pytest.CaptureFixture[str]) -> None:
    score_raises(ValueError("answers.json: \x1b]0;owned\x07"))
    assert main(["score"]) == 2
    assert capsys.readouterr().err == "coattn: error: answers.json: \\u001b]0;owned\\u0007\n"


def test_help_of_fit_imports_no_optional_package() -> None:
    program = (
        "import sys\nfrom coattn.cli import main\n"
        "try:\n    main(['fit', '--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torchvision', 'transformers', 'scipy', 'matplotlib'} & sys.modules.keys()\nassert not heavy, heavy\n"
        "import importlib.metadata as metadata\n"
        "from lightning_utilities.core.imports import RequirementCache\n"
        "names = {each.metadata['Name'] for each in metadata.distributions()}\n"
        "assert bool(RequirementCache('torchvision')) == ('torchvision' in names)\n"
        "assert bool(RequirementCache('scipy')) == ('scipy' in names)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


def test_a_configuration_may_come_through_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    require_config(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe: is a special file, not a table"):
        require_table(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "photo.png", "--out", "run"], "photo.png: is an image, not a table (.csv"),
        (["train", "sheet.xlsx", "--out", "run"], "sheet.xlsx: is a spreadsheet, not a table (.csv"),
        (["train", "missing.csv", "--out", "run"], "missing.csv: there is no such file; give a table (.csv"),
        (["train", "t.csv", "--out", "run", "--config", "photo.png"], "photo.png: is an image, not a configuration"),
        (["experiment", "t.csv"], "t.csv: is a table, not a configuration"),
        (["fit", "--config", "photo.png"], "photo.png: is an image, not a configuration"),
        (["test", "--config=missing.yaml"], "missing.yaml: there is no such file; give a configuration"),
        (["certify", "store"], "store: is a feature store, not a model directory"),
        (["certify", "model", "--config", "photo.png"], "photo.png: is an image, not a configuration"),
        (["explain-test", "store"], "store: is a feature store, not a model directory"),
        (["explain-test", "model", "--config", "t.csv"], "t.csv: is a table, not a configuration"),
        (["export", "store", "out"], "store: is a feature store, not a model directory"),
        (["extract", "t.csv", "out"], "t.csv: is a table, not an image or a folder of images"),
        (["extract", "store", "out"], ") in store (feature store)"),
        (["inspect", "photo.png"], "photo.png: is an image, not a feature store"),
        (["embed", "store", "out", "--encoder", "model"], "store: is a feature store, not a file"),
    ],
)
def test_a_path_of_the_wrong_kind_is_named_with_its_kind(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.png").write_bytes(b"\x89PNG\r\n")
    (tmp_path / "t.csv").write_text("image,question,answer\n")
    (tmp_path / "sheet.xlsx").write_bytes(b"PK\3\4")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "manifest.json").write_text("{}")
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "run").exists()
