"""tools/compare: one recipe and about one size for all, nothing done twice, and what the table says."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
import yaml
from torch import Tensor, nn

from coattn._internal.files import read_json, write_json
from coattn.datasets.records import Record
from coattn.datasets.vqa_json import write_vqa
from coattn.models import PRESETS

ROOT = Path(__file__).resolve().parents[2]
# What the features and the training questions of each data set make of a model.
INPUTS = {
    "easy_vqa": {"region_dim": 56, "num_words": 28, "num_answers": 13},
    "sort_of_clevr": {"region_dim": 13, "num_words": 47, "num_answers": 11},
}


@pytest.fixture(scope="module")
def compare() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compare", ROOT / "tools" / "compare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def configs(data: str) -> dict[str, dict]:
    return {path.stem: yaml.safe_load(path.read_text()) for path in ROOT.glob(f"configs/compare/{data}_*.yaml")}


def test_every_configuration_is_in_the_comparison(compare: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert {config.path for config in compare.find_configs()} == set(Path("configs/compare").iterdir())


@pytest.mark.parametrize("data", INPUTS)
def test_one_recipe_for_all(data: str) -> None:
    own = ("preset", "sizes", "lr") if data == "easy_vqa" else ("preset", "sizes")
    recipes = []
    for name, config in configs(data).items():
        assert config["trainer"].pop("default_root_dir") == f"runs/compare/{name}"
        recipes.append(config | {"model": config["model"] | dict.fromkeys(own)})
    assert len(recipes) > 1
    assert all(recipe == recipes[0] for recipe in recipes)


@pytest.mark.parametrize("data", INPUTS)
def test_about_one_size_for_all(data: str) -> None:
    models = [PRESETS[config["model"]["preset"]](**config["model"]["sizes"], **INPUTS[data]) for config in
              configs(data).values()]  # fmt: skip
    sizes = [sum(parameter.numel() for parameter in model.parameters()) for model in models]
    assert max(sizes) < 1.1 * min(sizes)


class Reader(nn.Module):
    """An LSTM and a batched product: nothing else that is counted. A learned row passes through a module, as in DCN."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 8, batch_first=True)
        self.row, self.same = nn.Parameter(torch.ones(7)), nn.Identity()

    def forward(self, question: Tensor, regions: Tensor, **others: Tensor) -> Tensor:
        return self.same(self.row.expand(5, 7)) + self.lstm(question)[0] @ regions.transpose(1, 2)


def test_operations_are_those_of_matrix_products_and_of_the_lstm(compare: ModuleType) -> None:
    names = ("question_mask", "region_mask", "boxes", "image_sizes")
    batch = SimpleNamespace(
        question=torch.rand(2, 5, 3), regions=torch.rand(2, 7, 8).half(), **dict.fromkeys(names, torch.ones(1))
    )
    lstm, product = 2 * 5 * 4 * 8 * (3 + 8), 2 * 5 * 8 * 7
    assert compare.count_operations(Reader(), batch) == 2 * (lstm + product)


@pytest.fixture
def folder(compare: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project whose command `coattn` notes its first word, and makes what a run consists of."""
    command = tmp_path / "bin" / "coattn"
    command.parent.mkdir()
    command.write_text("""#!/bin/sh
echo $1 >> calls
[ -e fail ] && { echo that cannot be; exit 3; }
while [ $1 != --trainer.default_root_dir ]; do last=$1; shift; done
mkdir -p $2/model $2/predictions $2/checkpoints
""")
    command.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(command.with_name("python")))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def finish(run: Path, *names: str) -> None:
    for name in names:
        write_json(run / name, {})


def test_only_what_is_missing_is_made(compare: ModuleType, folder: Path) -> None:
    config = compare.Config(Path("configs/compare/easy_vqa_mcan.yaml"), "easy_vqa", "mcan")
    run = config.folder(1)
    compare.fit_and_test(config, 1)
    finish(run, "predictions/val.json")
    compare.fit_and_test(config, 1)
    finish(run, "model/config.json")
    compare.fit_and_test(config, 1)
    finish(run, "predictions/test.json")
    compare.fit_and_test(config, 1)
    assert (folder / "calls").read_text().split() == ["fit", "validate", "test", "fit", "test", "test"]
    assert run == Path("runs/compare/easy_vqa_mcan/seed_1")
    clock = read_json(run / "clock.json")
    assert clock["whole"]
    assert clock["seconds"] >= 0


def test_a_failure_is_shown_and_its_time_counts(compare: ModuleType, folder: Path) -> None:
    config = compare.Config(Path("configs/compare/easy_vqa_mcan.yaml"), "easy_vqa", "mcan")
    (folder / "fail").touch()
    with pytest.raises(SystemExit, match=r"that cannot be(.|\n)*fit.log: that failed; run tools/compare again"):
        compare.fit_and_test(config, 0)
    clock = config.folder(0) / "clock.json"
    assert read_json(clock)["whole"]
    write_json(clock, {"seconds": 5.0, "whole": False})  # what a killed process leaves
    (folder / "fail").unlink()
    compare.fit_and_test(config, 0)
    assert read_json(clock)["seconds"] >= 5
    assert not read_json(clock)["whole"]


def test_a_run_waits_for_the_process_of_one_that_was_killed(compare: ModuleType, tmp_path: Path) -> None:
    with compare.alone(tmp_path / "run") as lock:
        orphan = subprocess.Popen(["sleep", "1"], pass_fds=(lock,))
    started = time.monotonic()
    with compare.alone(tmp_path / "run"):
        assert time.monotonic() - started > 0.5
    assert orphan.wait() == 0


@pytest.fixture
def report(compare: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """Of two complete runs, and one that lacks its test, on four questions."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compare, "size", lambda run: {"parameters": 149_500, "FLOPs per question": 5_432_100})
    compare.questions.cache_clear()
    records = [Record(n, n, "?", ("yes",), question_type="yes/no" if n else "shape") for n in range(4)]
    for split in ("val", "test"):
        write_vqa("data/easy_vqa", split, records, info={"metric": "exact_match"})
    config = compare.Config(Path("configs/compare/easy_vqa_mcan.yaml"), "easy_vqa", "mcan")
    for seed, num_right in enumerate((4, 3, 2)):
        run = config.folder(seed)
        answers = [{"question_id": n, "answer": "yes" if n < num_right else "no"} for n in range(4)]
        for split in ("val", "test") if seed < 2 else ("val",):
            write_json(run / "predictions" / f"{split}.json", answers)
        write_json(run / "clock.json", {"seconds": 60.0 + seed, "whole": seed == 0})
    return compare.make_report([config])


def test_the_report_has_mean_and_spread_of_complete_runs(report: dict) -> None:
    found = report["easy_vqa"]["mcan"]
    assert found["seeds"] == [0, 1]
    assert found["test"]["all"] == {"mean": 87.5, "standard deviation": 17.68, "by seed": [100.0, 75.0]}
    assert found["test"]["shape"]["mean"] == 100
    assert found["CPU seconds of training"] == [60.0]


def test_the_table_has_a_row_for_each_kind_of_question(compare: ModuleType, report: dict) -> None:
    table = compare.format_table(report)
    lines = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()]
    assert lines[0] == ["test accuracy, %", "MCAN"]
    assert lines[2:] == [
        ["easy-VQA, all", "87.50 ± 17.68"],
        ["easy-VQA, shape", "100.00 ± 0.00"],
        ["easy-VQA, yes/no", "83.34 ± 23.57"],
        ["easy-VQA, thousand parameters", "150"],
        ["easy-VQA, MFLOPs per question", "5.4"],
        ["easy-VQA, CPU seconds of training", "60.0"],
        ["easy-VQA, seeds", "2"],
    ]
