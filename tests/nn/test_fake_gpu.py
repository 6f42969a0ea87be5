"""Models and their losses on a GPU that need not be there: fake tensors know their device and compute nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import pytest
import test_generator
import test_model
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from coattn import models
from coattn.training.data.batches import Batch
from coattn.training.objectives import Loss, make_objective

pytestmark = [
    pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="needs a torch that knows of CUDA"),
    pytest.mark.usefixtures("fake"),
]
GPU = torch.device("cuda", 0)


@pytest.fixture
def fake() -> Iterator[None]:
    # cuDNN's recurrences ask for a real GPU; torch's own are made of operations that fake tensors know.
    with torch.backends.cudnn.flags(enabled=False), FakeTensorMode():
        yield


def batch(targets: tuple[int, ...]) -> Batch:
    """Three questions, and target answers of this shape, on the GPU."""
    inputs = {key: torch.empty_like(value, device=GPU) for key, value in test_model.inputs().items()}
    with GPU:
        return Batch(
            **inputs,
            image_sizes=torch.ones(3, 2),
            images=torch.arange(3),
            target_rows=torch.zeros(targets[0], dtype=torch.int64),
            target_answers=torch.zeros(targets, dtype=torch.int64),
            target_scores=torch.ones(targets[0]),
            positions=torch.arange(3),
            divisor=3.0,
        )


def test_what_is_left_on_the_cpu_is_found() -> None:
    with pytest.raises(RuntimeError, match=r"two (different )?devices,? cuda:0(,| and) cpu"):
        torch.ones(2, device=GPU) + torch.ones(2)


@pytest.mark.parametrize("name", models.PRESETS)
def test_answers_and_maps_are_where_the_model_is(name: str) -> None:
    with GPU:
        model = test_model.build(name)
    objective = make_objective(model, loss="bce", label_smoothing=0.0)
    for training in (True, False):
        try:
            found = objective.outcome(model.train(training), batch((4,)))
        except RuntimeError as error:
            if "aten::_thnn_fused_gru_cell" not in str(error.__context__):
                raise
            pytest.skip("torch 2.11 cannot fake a GRU")
        assert {part.device for part in found} == {GPU}
    inputs = {key: torch.empty_like(value, device=GPU) for key, value in test_model.inputs().items()}
    assert {weights.device for weights in model(**inputs, need_weights=True).maps.values()} == {GPU}


@pytest.mark.parametrize("loss", get_args(Loss))
def test_losses_are_where_the_model_is(loss: Loss) -> None:
    with GPU:
        model = test_model.build("parallel")
    assert make_objective(model, loss=loss, label_smoothing=0.0).losses(model, batch((4,))).device == GPU


@pytest.mark.parametrize(("decoder", "attention"), test_generator.KINDS)
def test_written_answers_are_learnt_where_the_model_is(decoder: str, attention: str) -> None:
    with GPU:
        model = test_generator.generator(decoder, attention)
    objective = make_objective(model, loss="cross_entropy", label_smoothing=0.1)
    assert objective.losses(model.train(), batch((4, 5))).device == GPU
