from __future__ import annotations

import copy
import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from tiny import settings, small_sizes

from coattn.nn import VQAModel
from coattn.nn.layers import UnbiasedLayerNorm
from coattn.serialization.directory import load_directory
from coattn.text.vocabulary import Vocabulary
from coattn.training.data.module import VQADataModule
from coattn.training.export import export_model
from coattn.training.model import COMPILED_PARTS, build_model, compile_parts, remember_inputs_only
from coattn.training.task import VQATask

DIMS = {"num_words": 8, "question_dim": None, "region_dim": 8, "num_answers": 5}
FIRST, VARIOUS, SINGLE = (12, 5, 6), [(7, 5, 6), (9, 7, 3), (5, 6, 11), (16, 16, 16)], [(1, 4, 5), (4, 1, 5), (4, 3, 1)]


@pytest.fixture(autouse=True)
def nothing_compiled_before() -> None:
    torch.compiler.reset()  # the number of graphs is limited for all models of a process together


def model(preset: str = "mcan_small", **sizes: Any) -> VQAModel:
    torch.manual_seed(0)
    built = build_model(preset, small_sizes(preset) | sizes, **DIMS)
    assert isinstance(built, VQAModel)
    return built


def inputs(batch: int, tokens: int, regions: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    question_mask = torch.arange(tokens) < torch.randint(1, tokens + 1, (batch, 1), generator=generator)
    region_mask = torch.arange(regions) < torch.randint(0, regions + 1, (batch, 1), generator=generator)
    return {
        "question": torch.randint(1, 8, (batch, tokens), generator=generator) * question_mask,
        "regions": torch.randn(batch, regions, 8, generator=generator) * region_mask[..., None],
        "question_mask": question_mask,
        "region_mask": region_mask,
    }


def gradients(model: VQAModel, batch: dict[str, torch.Tensor], **options: Any) -> list[torch.Tensor]:
    """Logits, maps and gradients, with the same random numbers each time."""
    torch.manual_seed(1)
    model.zero_grad()
    output = model(**batch, **options)
    output.logits.square().sum().backward()
    found = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return [output.logits, *output.maps.values(), *found]


class Counted:
    """Runs graphs as they are, and counts them."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: torch.fx.GraphModule, example_inputs: Any) -> Any:
        self.count += 1
        return graph.forward


@pytest.mark.parametrize("preset", ["dense", "mcan_small"])
def test_graphs_are_shared_by_batches_of_all_sizes(preset: str) -> None:
    graphs = Counted()
    plain = model(preset, dropout=0.0)
    compiled = copy.deepcopy(plain)
    compile_parts(compiled, backend=graphs)
    for size in (FIRST, *VARIOUS):
        torch.testing.assert_close(gradients(compiled, inputs(*size)), gradients(plain, inputs(*size)))
        assert graphs.count == len(COMPILED_PARTS)


@pytest.mark.slow
@pytest.mark.parametrize("first", [FIRST, (7, 6, 6)])
def test_graphs_are_few_at_worst(first: tuple[int, int, int]) -> None:
    graphs, parts = Counted(), len(COMPILED_PARTS)
    compiled = model("dense")
    compile_parts(compiled, backend=graphs)
    for allowed, training, sizes in (
        (parts, True, [first]),
        (2 * parts, True, VARIOUS),  # more than before only if the first had two equal sizes
        (3 * parts, False, [first, *VARIOUS]),
        *((number * parts, False, [size]) for number, size in enumerate(SINGLE, start=4)),
    ):
        compiled.train(training)
        with torch.set_grad_enabled(training):
            for size in sizes:
                compiled(**inputs(*size))
        assert graphs.count <= allowed
    before = graphs.count
    with torch.no_grad():
        for size in (first, *VARIOUS, *SINGLE):
            compiled(**inputs(*size))
    assert graphs.count == before


def test_a_run_in_bfloat16_compiles_for_training_and_validation_alone(tiny_data: Path, tmp_path: Path) -> None:
    chosen = settings(tiny_data, tmp_path)
    # Without pools and with short questions no two sizes of a batch are equal by chance.
    data = VQADataModule(**chosen["data"] | {"batch_size": 12, "pool": 1, "max_tokens": 3})
    task = VQATask(chosen["model"].pop("sizes"), **DIMS, **chosen["model"])
    graphs, parts = Counted(), len(COMPILED_PARTS)
    compile_parts(task.model, backend=graphs)
    silent = {"logger": False, "enable_checkpointing": False, "precision": "bf16-mixed", "max_epochs": 1}
    Trainer(**chosen["trainer"] | silent | {"limit_val_batches": 0}).fit(task, data)
    assert graphs.count == parts
    Trainer(**chosen["trainer"] | silent).fit(task, data)
    assert graphs.count == 2 * parts
    export_model(tmp_path / "model", task, data)
    assert graphs.count == 2 * parts


def test_a_model_with_the_words_of_another_knows_its_longest_question(tiny_data: Path, tmp_path: Path) -> None:
    chosen = settings(tiny_data, tmp_path)
    task = VQATask(chosen["model"].pop("sizes"), **DIMS, **chosen["model"])
    data = VQADataModule(**chosen["data"])
    words = data.text.vocabularies.words
    assert isinstance(words, Vocabulary)
    assert words.longest is not None
    assert words.longest > 1
    short = data.text.vocabularies._replace(words=Vocabulary(words.words, longest=1))
    data.text.vocabularies = short
    export_model(tmp_path / "first", task, data)
    later = VQADataModule(**chosen["data"], vocabulary_from=str(tmp_path / "first"))
    assert later.text.vocabularies.to_json() == short.to_json()
    export_model(tmp_path / "second", task, later)
    found = load_directory(tmp_path / "second").question_vocabulary
    assert isinstance(found, Vocabulary)
    assert found.longest == words.longest


def test_compiled_norms_are_as_exact_in_mixed_precision() -> None:
    torch.manual_seed(0)
    plain = UnbiasedLayerNorm(64)
    compiled = copy.deepcopy(plain)
    compiled.compile(backend="aot_eager")
    found = []
    for norm in (plain, compiled):
        x = torch.linspace(-3, 5, 8 * 64).view(8, 64).sin().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            out = norm(x)
        (out * torch.linspace(1, 4, 64).cos()).sum().backward()
        found.append(x.grad)
    torch.testing.assert_close(*found, atol=1e-6, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("checkpointed", [False, True])
def test_compiled_code_computes_the_same(checkpointed: bool) -> None:
    plain = model(dropout=0.0)
    compiled = copy.deepcopy(plain)
    if checkpointed:
        remember_inputs_only(compiled)
    compile_parts(compiled)
    for size in (FIRST, VARIOUS[0]):
        torch.testing.assert_close(
            gradients(compiled, inputs(*size)), gradients(plain, inputs(*size)), atol=1e-5, rtol=1e-4
        )


def remembered(model: VQAModel) -> int:
    """Numbers that a forward pass keeps for the gradient."""
    kept = 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.numel() if not isinstance(tensor, torch.nn.Parameter) else 0
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(**inputs(*FIRST))
    return kept


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("preset", ["mcan_small", "dense"])
def test_activations_computed_again_are_the_same(preset: str, need_weights: bool) -> None:
    plain = model(preset, num_layers=6, dropout=0.5)
    checkpointed = copy.deepcopy(plain)
    remember_inputs_only(checkpointed)
    exact, again = (gradients(which, inputs(*FIRST), need_weights=need_weights) for which in (plain, checkpointed))
    assert len(exact) > 10
    for a, b in zip(exact, again, strict=True):
        assert torch.equal(a, b)
    assert remembered(checkpointed) < 0.5 * remembered(plain)


def test_activations_cannot_be_forgotten_without_layers(tiny_data: Path) -> None:
    with pytest.raises(
        ValueError, match="for stacks of co-attention layers, and this model has a FactorizedCoAttention"
    ):
        VQATask(small_sizes("mfb"), preset="mfb", **DIMS, checkpoint_activations=True)


def test_a_run_reports_its_memory_once(tiny_data: Path, tmp_path: Path) -> None:
    chosen = settings(tiny_data, tmp_path)
    task = VQATask(chosen["model"].pop("sizes"), **DIMS, **chosen["model"], checkpoint_activations=True)
    logger = CSVLogger(tmp_path)
    options = chosen["trainer"] | {"logger": logger, "enable_checkpointing": False, "max_epochs": 1}
    Trainer(**options).fit(task, VQADataModule(**chosen["data"]))
    with Path(logger.log_dir, "metrics.csv").open() as file:
        values = [row["peak_memory_gb"] for row in csv.DictReader(file) if row["peak_memory_gb"]]
    assert len(values) == 1
    assert 0.05 < float(values[0]) < 50
