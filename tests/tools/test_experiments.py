"""tools/experiments: one recipe and about one size for all compared models, and the table of the page."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from torch import Tensor, nn

import experiments
from coattn._internal.files import write_json
from coattn.models import PRESETS

ROOT = Path(__file__).resolve().parents[2]
# The inputs of a model, as the features and the training questions of each data set determine them.
INPUTS = {
    "easy_vqa": {"region_dim": 56, "num_words": 28, "num_answers": 13},
    "sort_of_clevr": {"region_dim": 13, "num_words": 47, "num_answers": 11},
}


def configs(data: str) -> dict[str, dict]:
    return {path.stem: yaml.safe_load(path.read_text()) for path in ROOT.glob(f"configs/compare/{data}_*.yaml")}


def test_every_configuration_is_in_the_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = {config for data in experiments.COMPARISONS for config in experiments.find_configs(data)}
    assert found == set(Path("configs/compare").iterdir())


@pytest.mark.parametrize("data", INPUTS)
def test_one_recipe_for_all(data: str) -> None:
    recipes = []
    for name, config in configs(data).items():
        assert config["trainer"].pop("default_root_dir") == f"runs/compare/{name}"
        del config["model"]["preset"], config["model"]["sizes"]
        if data == "easy_vqa":
            del config["model"]["optimizer"]["lr"]
        recipes.append(config)
    assert len(recipes) > 1
    assert all(recipe == recipes[0] for recipe in recipes)


@pytest.mark.parametrize("data", INPUTS)
def test_about_one_size_for_all(data: str) -> None:
    models = [PRESETS[config["model"]["preset"]](**config["model"]["sizes"], **INPUTS[data]) for config in
              configs(data).values()]  # fmt: skip
    sizes = [sum(parameter.numel() for parameter in model.parameters()) for model in models]
    assert max(sizes) < 1.1 * min(sizes)


class Reader(nn.Module):
    """An LSTM and a batched product, whose operations are counted, and a learned row in a module, as DCN has it."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 8, batch_first=True)
        self.row, self.same = nn.Parameter(torch.ones(7)), nn.Identity()

    def forward(self, question: Tensor, regions: Tensor, **others: Tensor) -> Tensor:
        return self.same(self.row.expand(5, 7)) + self.lstm(question)[0] @ regions.transpose(1, 2)


def test_operations_are_those_of_matrix_products_and_of_the_lstm() -> None:
    names = ("question_mask", "region_mask", "boxes", "image_sizes")
    batch = SimpleNamespace(
        question=torch.rand(2, 5, 3), regions=torch.rand(2, 7, 8).half(), **dict.fromkeys(names, torch.ones(1))
    )
    lstm, product = 2 * 5 * 4 * 8 * (3 + 8), 2 * 5 * 8 * 7
    assert experiments.count_operations(Reader(), batch) == 2 * (lstm + product)


def test_a_report_becomes_the_table_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiments, "size", lambda run: {"parameters": 149_500, "FLOPs per question": 5_432_100})
    monkeypatch.setattr(experiments, "find_configs", lambda data: [Path(f"configs/compare/{data}_mcan.yaml")])
    row = {"easy_vqa_mcan": {"mean": 87.5, "standard deviation": 17.68, "by seed": [100.0, 75.0]}}
    one = {"easy_vqa_mcan": {"mean": 100.0, "standard deviation": None, "by seed": [100.0]}}
    accuracy = {"all": row, "answer type: yes/no": row, "question type: shape": one}
    report = {"num_seeds": 2, "accuracy": accuracy, "CPU seconds of fit": {"easy_vqa_mcan": [60.0, 61.0]}}
    write_json(tmp_path / "report.json", report)
    table = experiments.format_table({"easy_vqa": experiments.record("easy_vqa", tmp_path)})
    lines = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()]
    assert lines[0] == ["test accuracy, %", "MCAN"]
    assert lines[2:] == [
        ["easy-VQA, all", "87.50 ± 17.68"],
        ["easy-VQA, shape", "100.00"],
        ["easy-VQA, thousand parameters", "150"],
        ["easy-VQA, MFLOPs per question", "5.4"],
        ["easy-VQA, CPU seconds of training", "60.5"],
        ["easy-VQA, seeds", "2"],
    ]
