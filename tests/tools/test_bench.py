"""tools/bench: the two sides compute the same from the same data, and everything runs where little is installed."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import against, conventional, convert, extract, features, growth, predict, prepare, report, train
from benchmarks.context import Context
from benchmarks.conventional import MCAN, NUM_REGIONS, NUM_TOKENS, Sizes
from benchmarks.data import ADAPTIVE, FIXED_36, FIXED_100, DataSet, Shape
from benchmarks.ours import Training, operations
from benchmarks.scale import QUICK
from benchmarks.timing import alternate, median_of, ratio, summary
from coattn.cli import main
from coattn.features.store.reader import FeatureStore
from coattn.nn import VQAModel
from coattn.weights import from_openvqa

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).resolve().parents[1] / "golden"
NEEDED = ("torch", "numpy", "h5py", "lightning")


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    arrays = np.load(GOLDEN / "openvqa_mcan.npz")
    return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def imported(model: MCAN, sizes: Sizes) -> VQAModel:
    """Our model with the weights of the conventional one."""
    settings = json.loads((GOLDEN / "openvqa_mcan.cfg.json").read_text())
    settings |= {"LAYER": sizes.num_layers, "HIDDEN_SIZE": sizes.dim, "MULTI_HEAD": sizes.num_heads}
    return from_openvqa(model.state_dict(), settings | {"DROPOUT_R": sizes.dropout}, repaired=True)


def test_the_conventional_model_is_the_published_one(golden: dict[str, torch.Tensor]) -> None:
    model = MCAN(Sizes(30, 20, 32, 16, 64, 2, 4, 128, 48, 96)).eval()
    model.load_state_dict({name[3:]: value for name, value in golden.items() if name.startswith("sd/")})
    logits = model(golden["in/ques_ix"], golden["in/frcn_feat"])
    torch.testing.assert_close(logits, golden["out/logits"], atol=1e-5, rtol=0)
    torch.nn.functional.binary_cross_entropy_with_logits(logits, golden["in/target"], reduction="sum").backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, golden[f"grad/{name}"], atol=5e-5, rtol=1e-4)


def data(folder: Path, shape: Shape = ADAPTIVE) -> DataSet:
    return QUICK.data(folder, shape, num_batches=2)


def test_both_sides_compute_the_same_from_the_same_data(tmp_path: Path) -> None:
    sizes = QUICK.sizes._replace(dropout=0.0)
    theirs = MCAN(sizes)
    ours = imported(theirs, sizes)
    made = data(tmp_path)
    batch = next(iter(made.module(batch_size=8).train_dataloader()))
    samples = made.samples()
    regions, question, target = map(torch.stack, zip(*(samples[int(place)] for place in batch.positions), strict=True))
    assert regions.shape[1:] == (NUM_REGIONS, 64)
    assert question.shape[1] == NUM_TOKENS
    assert batch.regions.shape[1] < NUM_REGIONS
    torch.testing.assert_close(batch.targets(sizes.num_answers), target)
    task = Training(made.module(), sizes, precision="32-true", device="cpu").task
    logits = task.objective.logits(ours, batch)
    torch.testing.assert_close(logits, theirs(question, regions), atol=1e-5, rtol=0)


def test_both_sides_take_the_same_steps(tmp_path: Path) -> None:
    sizes, made = QUICK.sizes._replace(dropout=0.0), data(tmp_path, FIXED_100)
    samples, steps = made.samples(), 3
    training = Training(made.module(batch_size=8), sizes, precision="32-true", device="cpu")
    training.window(1)
    batch = training.batch
    trainer = conventional.Trainer(sizes, iter(()), "cpu")
    training.task.model.load_state_dict(imported(trainer.model, sizes).state_dict())
    training.window(steps, repeated=True)
    one = conventional.Sample(*map(torch.stack, zip(*(samples[int(place)] for place in batch.positions), strict=True)))
    trainer.batches = iter([one] * steps)
    assert [trainer.step() for _ in range(steps)] == [8] * steps
    logits = training.task.objective.logits(training.task.model, batch)
    torch.testing.assert_close(logits, trainer.model(one.question, one.regions), atol=1e-4, rtol=0)


def test_accumulated_batches_are_measured_without_those_of_the_warm_up(tmp_path: Path) -> None:
    training = Training(data(tmp_path).module(batch_size=2), QUICK.sizes, precision="32-true", device="cpu", parts=2)
    window = training.window(2, warmup=1)
    assert [questions for questions, _, _ in window.shapes] == [2] * 4
    assert window.rate > 0


def test_synthetic_data_have_real_shapes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    regions, tokens = ADAPTIVE.draw_regions(20_000, rng), ADAPTIVE.draw_tokens(20_000, rng)
    assert (regions.min(), regions.max()) == (10, 100)
    assert regions.mean() == pytest.approx(40, abs=1)
    assert (tokens.min(), tokens.max()) == (2, NUM_TOKENS)
    assert tokens.mean() == pytest.approx(6.5, abs=0.2)
    assert set(FIXED_36.draw_regions(9, rng)) == {36}
    split = data(tmp_path, FIXED_100).module().split("train")
    assert set(split.num_regions) == {NUM_REGIONS}
    assert set(split.num_tokens) == {NUM_TOKENS}


def test_operations_are_those_of_the_matrix_products() -> None:
    # By hand, as multiplications: projections, maps, feed-forward of both stacks, LSTM, and what is small beside them.
    dim, ffn, tokens, regions = 512, 2048, 14, 100
    step = 4 * dim * dim + 2 * dim * ffn
    question = 6 * tokens * (step + 2 * tokens * dim) + tokens * 4 * dim * (300 + dim)
    guided = 2 * dim * dim * (regions + tokens) + 2 * regions * tokens * dim
    image = regions * 2048 * dim + 6 * (regions * (step + 2 * regions * dim) + guided)
    pooling = (tokens + regions) * dim * dim + 2 * dim * 1024 + 1024 * 3129
    assert operations(Sizes(), regions, tokens) == pytest.approx(2 * (question + image + pooling), rel=1e-3)


def test_what_is_compared_takes_turns() -> None:
    calls: list[str] = []
    runs = {name: lambda name=name: calls.append(name) or float(len(calls)) for name in "ab"}
    assert alternate(runs, 2) == {"a": [1.0, 4.0], "b": [2.0, 3.0]}
    assert calls == ["a", "b", "b", "a"]
    assert summary([1, 4, 2]) == {"median": 2, "low": 1, "high": 4}
    assert ratio([2, 9], [1, 3])["high"] == 3


def test_the_table_names_every_column_once() -> None:
    lines = report.table(
        "train",
        [{"case": "x", "implementation": "a", "ratio": summary([1, 2, 3])}, {"case": "x", "implementation": "b"}],
    )
    assert lines.splitlines() == [
        "train",
        "  case  implementation       ratio",
        "  x     a               2 (1 to 3)",
        "  x     b",
    ]


@pytest.mark.parametrize(("machine", "name"), [({}, "cpu.json"), ({"gpu": {"name": "NVIDIA H200"}}, "h200.json")])
def test_the_file_is_named_after_the_machine(machine: dict, name: str) -> None:
    assert report.default_path(machine) == ROOT / "benchmarks" / name


@pytest.mark.parametrize(
    ("part", "case", "implementation"),
    [
        (features, FIXED_100.name, "coattn, mapped"),
        (features, FIXED_100.name, "conventional, 1 worker"),
        (train, FIXED_100.name, "coattn, bf16, less memory"),
        (train, FIXED_100.name, train.FLOAT32),
        (predict, "evaluation", "coattn, float32"),
        (predict, "evaluation", predict.CONVENTIONAL),
        (extract, "", extract.CONVENTIONAL),
        (extract, "", extract.BATCHES),
        (growth, growth.PROCESSES, "1"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_row_runs_alone(part: Any, case: str, implementation: str, tmp_path: Path) -> None:
    row = part.run_once(Context("cpu", quick=True, folder=tmp_path), case, implementation)
    rate = row.get("questions/s", row.get("images/s"))
    assert median_of(rate) > 0


def test_all_ways_of_extracting_store_the_same(tmp_path: Path) -> None:
    context = Context("cpu", quick=True, folder=tmp_path)
    found = []
    for way, path in ((extract.OURS, "extracted"), (extract.BATCHES, "extracted/store.h5")):
        extract.run_once(context, "", way)
        store = FeatureStore(tmp_path / path)
        found.append(store.read_flat(np.array([store.index(name) for name in sorted(store.image_ids)])).features)
    np.testing.assert_array_equal(*found)


def test_what_has_no_conventional_implementation_is_measured(tmp_path: Path) -> None:
    context = Context("cpu", quick=True, folder=tmp_path)
    ours, limit = convert.run(context)
    assert (ours["implementation"], limit["implementation"]) == (convert.OURS, convert.LIMIT)
    assert all(median_of(row["MB/s"]) > 0 for row in (ours, limit))
    assert median_of(ours["share of limit"]) > 0
    read, scored = prepare.run(context)
    assert (read["case"], scored["case"]) == (prepare.PREPARE, prepare.SCORE)
    assert all(0 < row["peak GB"] < 1 and row["s"] > 0 for row in (read, scored))
    assert not list(tmp_path.iterdir())
    on_gpu = Context("cuda", quick=True, folder=tmp_path)
    assert convert.run(on_gpu) == prepare.run(on_gpu) == []


def test_what_is_prepared_and_scored_is_all_that_was_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, sizes in {"train": (44, 8), "val": (21, 4)}.items():
        prepare.write_split(tmp_path, split, *sizes)
    assert main(["prepare", "vqa-v2", str(tmp_path), str(tmp_path / "out")]) == 0
    assert "train: 44 questions on 8 images" in capsys.readouterr().out
    files = [f"--{kind}={tmp_path}/out/val_{kind}.json" for kind in ("questions", "annotations")]
    assert main(["score", str(tmp_path / "val_results.json"), *files]) == 0
    assert re.search(r"^vqa_accuracy +21 ", capsys.readouterr().out, re.MULTILINE)


@pytest.fixture
def bare_site(tmp_path: Path) -> Path:
    """A folder of installed packages: links to those that the benchmark needs and what these need, and nothing else."""
    site, names, done = tmp_path / "site", list(NEEDED), set()
    site.mkdir()
    while names:
        name = names.pop()
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # of another platform
        if name not in done:
            done.add(name)
            required = (text for text in package.requires or [] if "extra ==" not in text)
            names += [re.match(r"[\w.-]+", text)[0] for text in required]
            for top in {file.parts[0] for file in package.files if file.parts[0] not in ("..", "__pycache__")}:
                if not (site / top).exists():
                    (site / top).symlink_to(Path(package.locate_file(top)).resolve())
    return site


@pytest.mark.parametrize("part", ["train", pytest.param("all", marks=pytest.mark.slow)])
def test_it_runs_where_little_is_installed(part: str, bare_site: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    command = [sys.executable, "-S", "tools/bench.py", part, "--quick", "--device", "cpu", "--json", str(out)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(bare_site), "src"]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert all(limits["copy, GB/s"] > 0 for limits in found["limits"].values())
    assert set(found["limits"]) == set(found) - {"machine", "limits"}
    for row in found["train"]:
        assert row["questions/s"]["median"] > 0
        assert ("ratio" in row) == row["implementation"].startswith("coattn")
    if part == "all":
        assert {row["case"] for row in found["features"]} == {shape.name for shape in (ADAPTIVE, FIXED_36, FIXED_100)}


def test_two_commits_take_turns_in_their_own_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[Path, str]] = []

    def run_alone(context: Context, part: str, case: str, implementation: str, *, root: Path) -> dict[str, float]:
        called.append((root, implementation))
        return {"questions/s": 3.0 if root == ROOT else 2.0, "peak GB": 1.0 if root == ROOT else 4.0}

    monkeypatch.setattr(against, "run_alone", run_alone)
    monkeypatch.setattr(against, "commit_of", lambda root: "1234567")
    rows = against.run(Context("cpu", quick=True, folder=tmp_path), tmp_path)
    sides = [((ROOT, ours), (tmp_path, theirs)) for _, _, ours, theirs in against.MEASURED]
    assert called == [call for pair in sides for call in pair * 2]
    assert rows[0]["ratio"]["median"] == 1.5
    assert rows[0]["1234567, questions/s"]["median"] == 2
    assert (rows[0]["peak GB"], rows[0]["1234567, peak GB"]) == (1, 4)


def test_the_other_side_must_be_a_worktree(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "tools" / "bench.py", "against", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "a git worktree of another commit" in done.stderr
