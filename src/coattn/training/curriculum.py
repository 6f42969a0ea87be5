"""A curriculum: the easy questions first, and then all of them."""

from __future__ import annotations

import dataclasses
from typing import TypedDict

import numpy as np

from coattn.training.batches import BatchPlan


class Curriculum(TypedDict):
    """Which questions come first, and for how long.

    Attributes:
        question_types: the `question_type` of the easy questions.
        epochs: so many epochs, fractions allowed, show only these, as often as it takes.
    """

    question_types: list[str]
    epochs: float


class EasyFirst:
    """A plan whose first batches are made of easy questions only. Like the plan, a pure function of the epoch.

    Epochs keep their length, so schedules do not change. The epoch in which the easy part ends goes on with the batches
    that the plan has there: what stood in those before is seen in later epochs.

    Args:
        plan: of all questions.
        easy: (N,) bool, the easy ones.
        epochs: length of the easy part, in epochs of the plan; rounded to whole optimiser steps.

    Raises:
        ValueError: there are no easy questions, or too few to share out among accumulated batches.
    """

    def __init__(self, plan: BatchPlan, easy: np.ndarray, epochs: float) -> None:
        self.plan = plan
        self.positions = np.flatnonzero(easy)
        images = None if plan.images is None else plan.images[easy]
        self.easy_plan = dataclasses.replace(plan, regions=plan.regions[easy], tokens=plan.tokens[easy], images=images)
        self.num_batches = round(epochs * plan.num_steps) * plan.accumulate

    def epoch(self, epoch: int) -> list[tuple[np.ndarray, float]]:
        """The batches of an epoch in order, as `BatchPlan.epoch`."""
        batches = self.plan.epoch(epoch)
        first = epoch * len(batches)
        places = np.arange(first, max(first, min(first + len(batches), self.num_batches)))
        easy = []
        for number in np.unique(places // len(self.easy_plan)):  # passes through the easy questions, from 0
            inside = places[places // len(self.easy_plan) == number] % len(self.easy_plan)
            easy += self.easy_plan.epoch(int(number))[inside[0] : inside[-1] + 1]
        return [(self.positions[batch], divisor) for batch, divisor in easy] + batches[len(easy) :]
