"""Collecting the answers of a long evaluation."""

from __future__ import annotations

import weakref
from types import SimpleNamespace
from typing import Any

import torch

from coattn.training.evaluation.answers import CollectAnswers
from coattn.training.task import BatchAnswers


def test_answers_are_copied_and_put_in_order() -> None:
    trainer: Any = SimpleNamespace(world_size=1)
    task: Any = None
    collect = CollectAnswers(6)
    for positions in ([4, 0], [2]):
        batch = BatchAnswers(torch.tensor(positions), torch.tensor(positions) * 10, torch.tensor(positions) / 8)
        # A small tensor that outlives its batch keeps malloc from reusing the memory around it.
        tensors = [weakref.ref(tensor) for tensor in batch]
        collect.on_validation_batch_end(trainer, task, batch)
        del batch
        assert [tensor() for tensor in tensors] == [None] * 3
    collect.on_validation_epoch_end(trainer, task)
    assert collect.positions.tolist() == [0, 2, 4]
    assert collect.numbers.tolist() == [0, 20, 40]
    assert collect.confidences.tolist() == [0, 0.25, 0.5]
