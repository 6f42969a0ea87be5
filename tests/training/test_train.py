"""`coattn.train` and `coattn train`: from a table and photos to a model."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from lightning.pytorch import Callback
from PIL import Image

import coattn
from coattn.cli import main
from coattn.models import PRESETS
from coattn.training import run, train
from coattn.training.evaluation import train_report
from coattn.training.run import question_only_twin, read_config
from coattn.training.task import VQATask

COLORS = {"red": (200, 30, 30), "blue": (30, 30, 200)}


def make_photos(folder: Path, count: int = 20) -> Path:
    folder.mkdir()
    for number in range(count):
        red, green, blue = COLORS["red" if number % 2 else "blue"]
        Image.new("RGB", (24, 24), (red, green + number, blue)).save(folder / f"{number}.png")
    return folder


def rows_of(count: int = 20) -> list[str]:
    return [
        f"{number}.png,is it {color}?,{'yes' if (color == 'red') == bool(number % 2) else 'no'}"
        for number in range(count)
        for color in COLORS
    ]


def write_table(path: Path, rows: list[str], header: str = "image,question,answer") -> Path:
    path.write_text("\n".join([header, *rows]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, a table, a small configuration, and a finished run."""
    folder = tmp_path_factory.mktemp("train")
    make_photos(folder / "photos")
    write_table(folder / "answers.csv", rows_of())
    config = {
        "trainer": {"accelerator": "cpu", "max_epochs": 1, "enable_progress_bar": False},
        "data": {"batch_size": 16},
        "model": {
            "preset": "modular",
            "sizes": {"dim": 16, "num_layers": 1, "ffn_dim": 16, "embedding_dim": 8, "boxes": True},
        },
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", "answers.csv", "--images", "photos", "--out", "run", "--config", "small.yaml"]) == 0
    return folder


def call(folder: Path, **options: object) -> train.TrainedRun:
    given = {"table": "answers.csv", "images": "photos", "out": "run", "config": "small.yaml"} | options
    return coattn.train(**given)


@pytest.fixture
def finished(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the finished run, as the present folder, in which nothing is trained; restored afterwards."""
    shutil.copytree(folder / "run", tmp_path / "run")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(train, "draw_report", None)
    monkeypatch.setattr(run, "run_command", lambda command, **_: pytest.fail(f"trained: {command}"))
    yield folder
    shutil.rmtree(folder / "run")
    shutil.copytree(tmp_path / "run", folder / "run")


def test_the_comparison_is_that_of_the_written_answers(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = call(finished)
    assert list(result.comparison.scores) == ["model", "question only", "prior"]
    files = ["--questions", "run/data/test_questions.json", "--annotations", "run/data/test_annotations.json"]
    assert main(["score", "run/predictions/test.json", *files, "--json", "run/again.json", "--samples", "0"]) == 0
    assert json.loads(Path("run/again.json").read_text())["overall"] == result.score
    assert json.loads(Path("run/scores.json").read_text())["scores"]["model"]["overall"] == result.score
    assert result.comparison.scores["prior"].overall == 50.0
    assert result.comparison.markdown() in result.report.read_text()


def test_a_finished_run_is_kept(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(finished)
    output = capsys.readouterr().out
    assert "20 images, 20 of them were described before" in output
    assert output.count("the finished model fits these settings and is kept") == 2


@pytest.mark.filterwarnings("ignore:The image is unlike")
def test_the_predictor_answers_about_photos(finished: Path) -> None:
    predictor = call(finished).predictor()
    answers = predictor.ask(predictor.encode("photos/0.png"), "is it red?", top_k=2)
    assert {answer.text for answer in answers} == {"yes", "no"}


def test_the_steps_are_commands_that_do_the_same(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the judging command runs
    monkeypatch.chdir(finished)
    steps = [shlex.split(line)[1:] for line in Path("run/steps.txt").read_text().splitlines()[1:]]
    assert [step[0] for step in steps] == ["prepare", "extract", "fit", "test", "fit", "test", "score", "browse"]
    before = {path: path.read_bytes() for path in Path("run/data").rglob("*.json")}
    answers = Path("run/predictions/test.json").read_bytes()
    page = Path("run/report.html").read_bytes()
    assert b'"maps":{"' in page
    for step in (steps[0], steps[1], steps[3], *steps[6:]):  # without those that train
        assert main(step) == 0
    assert Path("run/report.html").read_bytes() == page
    assert {path: path.read_bytes() for path in Path("run/data").rglob("*.json")} == before
    assert Path("run/predictions/test.json").read_bytes() == answers


def test_other_settings_reuse_what_fits_and_keep_the_finished_model(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[list[str]] = []

    def pretend(command: list[str], **_: object) -> None:
        commands.append(command)
        if command[0] == "fit":  # the twin's answers stand for those of a newly trained model
            shutil.copytree("run/question_only/model", "run/model")
            shutil.copytree("run/question_only/predictions", "run/predictions")

    monkeypatch.setattr(run, "run_command", pretend)
    # That model cannot read the new features, which the maps of the page need.
    monkeypatch.setattr(train_report, "_write_page", lambda *_, **__: None)
    model = Path("run/model/model.safetensors").read_bytes()
    from coattn.features.extract.extractors.patches import Patches

    call(finished, extractor=Patches())
    output = capsys.readouterr().out
    assert "coattn inspect run/data/features_2" in output
    assert [command[0] for command in commands] == ["fit", "test"]  # the twin sees no features and is kept
    assert Path("run/earlier/1/model/model.safetensors").read_bytes() == model
    assert "features_2" in Path("run/settings.yaml").read_text()
    assert json.loads(Path("run/train.json").read_text())["done"]


def interrupt(folder: Path) -> None:
    state = json.loads((folder / "run/train.json").read_text())
    (folder / "run/train.json").write_text(json.dumps(state | {"done": False}))


def test_a_signal_ends_all_steps(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupt(Callback):
        def on_train_batch_start(self, *_: object) -> None:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(VQATask, "configure_callbacks", lambda self: [Interrupt()])
    monkeypatch.chdir(folder)
    arguments = ["answers.csv", "--images", "photos", "--out", str(tmp_path), "--config", "small.yaml"]
    assert main(["train", *arguments]) == 128 + signal.SIGTERM
    captured = capsys.readouterr()
    assert "run the same command again to resume" in captured.err
    assert "[4/5]" not in captured.out
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]


def test_an_interrupted_run_resumes(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(finished)
    commands: list[list[str]] = []
    monkeypatch.setattr(run, "run_command", lambda command, **_: commands.append(command))
    call(finished)
    assert [command[:4] for command in commands] == [
        ["fit", "--config", "run/settings.yaml", "--resume"],
        ["test", "--config", "run/settings.yaml", "--ckpt_path"],
    ]


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_interrupted_run_of_other_settings_is_refused(finished: Path) -> None:
    interrupt(finished)
    before = files_of(finished)
    with pytest.raises(ValueError, match=r"interrupted run with other settings \(trainer.max_epochs 1 then, 7 now\)"):
        call(finished, epochs=7)
    assert files_of(finished) == before


def test_a_run_of_another_command_is_refused(finished: Path) -> None:
    Path("run/train.json").unlink()
    before = files_of(finished)
    with pytest.raises(ValueError, match="run holds a run that coattn train did not begin"):
        call(finished)
    assert files_of(finished) == before


@pytest.mark.parametrize(
    ("header", "rows", "options", "message"),
    [
        ("picture,question,answer", rows_of(), {}, "there is no column for image; the table has 'picture'"),
        ("image,question,answer", rows_of(), {"columns": {"answer": "reply"}}, "there is no column 'reply' for answer"),
        ("image,question,answer", [f"x{row}" for row in rows_of()], {}, r"there is no image 'x0\.png' in photos"),
        ("image,question,answer", [row.replace(",no", ",yes") for row in rows_of()], {}, "have the answer 'yes'"),
        ("image,question,answer,split", [f"{row},test" for row in rows_of()], {}, "no row is in the split train"),
        ("image,question,answer", rows_of(), {"images": "nowhere"}, "nowhere is not a folder"),
        ("image,question,answer", rows_of(), {"images": None}, "the photos are missing; give their folder"),
        ("image,question,answer", rows_of(), {"config": "tabel"}, "did you mean 'table'?"),
        ("image,question,answer", rows_of(), {"config": "daquar_generator"}, "'generator' writes answers"),
    ],
)
def test_bad_input_is_refused_and_writes_nothing(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    header: str,
    rows: list[str],
    options: dict,
    message: str,
) -> None:
    monkeypatch.chdir(folder)
    table = write_table(tmp_path / "bad.csv", rows, header)
    with pytest.raises(ValueError, match=message):
        call(folder, table=table, out=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_unreadable_images_are_left_out_by_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    photos = make_photos(tmp_path / "photos")
    monkeypatch.setattr(run, "run_command", lambda command: pytest.exit("trains"))
    monkeypatch.setattr(train, "draw_report", None)
    monkeypatch.setattr(train, "report_training", lambda *arguments, **_: arguments)
    monkeypatch.setattr(run.Run, "finish", lambda *arguments: [])
    for number in range(3):
        (photos / f"{number}.png").write_bytes(b"no image")
    write_table(tmp_path / "answers.csv", rows_of())
    _, dataset, *_ = coattn.train("answers.csv", images="photos", out="run").comparison
    assert sum(map(len, dataset.splits.values())) == 34
    assert "3 images cannot be read" in capsys.readouterr().out
    report = json.loads(Path("run/data/report.json").read_text())
    assert [line.split(":")[0] for line in report["skipped"]] == ["image 0.png", "image 1.png", "image 2.png"]
    for number in range(3, 20):
        (photos / f"{number}.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"none of the 20 images can be read, for example .*0\.png"):
        coattn.train("answers.csv", images="photos", out="other")


def test_an_interrupted_run_with_unreadable_images_resumes(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = Path("photos/0.png")
    content = photo.read_bytes()
    commands: list[list[str]] = []

    def pretend(command: list[str], **_: object) -> None:
        commands.append(command)
        Path(command[2]).parent.joinpath("checkpoints").mkdir(exist_ok=True)
        if command[0] == "test":
            raise KeyboardInterrupt

    monkeypatch.setattr(run, "run_command", pretend)
    photo.write_bytes(b"no image")
    try:
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                call(finished, out="run/unreadable")
    finally:
        photo.write_bytes(content)
    assert [command[0] for command in commands] == ["fit", "test"] * 2
    assert json.loads(Path("run/unreadable/train.json").read_text())["settings"]["unreadable_images"] == ["0.png"]
    with pytest.raises(
        ValueError, match=r"interrupted run with other settings \(unreadable_images \['0.png'\] then, \[\] now\)"
    ):
        call(finished, out="run/unreadable")


def test_several_processes_are_refused(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="coattn train runs in one process"):
        call(finished)


def test_the_command_passes_every_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {}
    monkeypatch.setattr(train, "train", lambda table, **options: given.update(options, table=str(table)))
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "small.yaml"):
        Path(name).write_text("-")
    line = (
        "train a.csv --images photos --out run --config small.yaml --epochs 3 --seed 4 --encoder bert "
        "--column answer=B --group patient --val-fraction 0.2 --test-fraction 0.3 --metric exact_match "
        "--encoding latin-1 --delimiter semicolon --skip-bad-rows --extractor patches --grid 2x3"
    )
    assert main(line.split()) == 0
    extractor = given.pop("extractor")
    assert (extractor.record["name"], extractor.num_regions) == ("patches", 6)
    assert given == {
        "table": "a.csv",
        "images": Path("photos"),
        "out": "run",
        "config": "small.yaml",
        "epochs": 3,
        "seed": 4,
        "encoder": "bert",
        "columns": {"answer": "B", "group": "patient"},
        "val_fraction": 0.2,
        "test_fraction": 0.3,
        "metric": "exact_match",
        "encoding": "latin-1",
        "delimiter": ";",
        "skip_bad_rows": True,
        "extractor_options": ["--extractor", "patches", "--grid", "2x3"],
    }


@pytest.mark.slow
def test_a_killed_run_ends_like_one_that_was_not(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "coattn", "train", "answers.csv", "--images", "photos", "--config", "small.yaml"]
    command += ["--epochs", "3", "--out"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for sign in (
        "data/report.json",
        "checkpoints/last.ckpt",
        "model/config.json",
        "question_only/checkpoints/last.ckpt",
    ):
        with subprocess.Popen(
            [*command, str(killed)], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            while not (killed / sign).exists() and process.poll() is None:
                time.sleep(0.02)
            process.kill()
    for out in (killed, whole):
        subprocess.run([*command, str(out)], cwd=folder, check=True, capture_output=True)
    for name in ("scores.json", "model/model.safetensors", "question_only/model/model.safetensors"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    assert not list(killed.rglob("*.partial"))


def test_a_messy_table(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    photos = make_photos(tmp_path / "photos")
    (photos / "0.png").rename(photos / "Größe 0.png")
    rows = [
        row.replace(",", ";").replace("0.png;", "größe 0.PNG;", 1) if row[:2] == "0." else row.replace(",", ";")
        for row in rows_of()
    ]
    rows += [rows[4], "missing.png;is it red?;yes"]
    text = "\n".join(["IMAGE ;Question; ANSWER", *rows])
    (tmp_path / "answers.csv").write_text("\ufeff" + text, encoding="utf-8")
    monkeypatch.setattr(train, "draw_report", None)
    monkeypatch.setattr(train, "report_training", lambda *arguments, **_: arguments)
    monkeypatch.setattr(run.Run, "finish", lambda *arguments: [])
    with pytest.raises(ValueError, match=r"there is no image 'missing\.png'.*--skip-bad-rows"):
        coattn.train("answers.csv", images="photos", out="run")
    _, dataset, *_ = coattn.train("answers.csv", images="photos", out="run", skip_bad_rows=True).comparison
    assert sum(map(len, dataset.splits.values())) == 41
    assert "Größe 0.png" in dataset.images


@pytest.mark.parametrize("name", sorted(set(PRESETS) - {"question_only"}))
def test_the_twin_has_only_sizes_of_question_only(name: str) -> None:
    twin = question_only_twin({"model": {"preset": name, "sizes": {"dim": 32, "boxes": True, "num_glimpses": 2}}})
    assert twin["model"] == {"preset": "question_only", "sizes": {"dim": 32}}


def test_the_twin_of_a_stack_is_as_deep() -> None:
    twin = question_only_twin(read_config("table"))
    assert twin["model"]["sizes"]["num_layers"] == len(read_config("table")["model"]["sizes"]["layers"])
