"""Measure how faithful the explanations of a model are, on questions of a split."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from coattn._internal.progress import progress
from coattn.explain.ablation import Ablation
from coattn.explain.attribution import find_method, region_values
from coattn.explain.faithful import NUM_OTHERS, QuestionScores, measure
from coattn.explain.maps import default_map
from coattn.explain.methods import METHODS
from coattn.nn import VQAGenerator
from coattn.nn.decoder import PAD
from coattn.serialization.directory import ModelDirectory
from coattn.training.data.batches import Batch
from coattn.training.data.module import VQADataModule

USUAL_METHODS = ("dependence", "attention", "rollout")


@torch.inference_mode()
def measure_explanations(
    directory: ModelDirectory,
    data: VQADataModule,
    split: str,
    methods: Sequence[str] = (),
    *,
    num_questions: int = 300,
    device: torch.device | str = "cpu",
) -> list[QuestionScores]:
    """Explain the predicted answers of questions by several methods, and measure each; see `coattn.explain.faithful`.

    Args:
        directory: the model.
        data: its data; the training images give the mean feature that stands in for a removed region.
        split: whose questions, for example "val".
        methods: names of `METHODS`; the values of the first serve as the control of other questions. None given means
            `USUAL_METHODS`, without those that read maps if the model has none over the regions.
        num_questions: how many questions, drawn at random. Questions on images of fewer than two regions are left out.
        device: where the model runs.

    Raises:
        ValueError: no such method, the model has no maps for it, or there is no question to measure.
    """
    for method in methods:
        find_method(method)
    model = directory.model.eval().to(device)
    records = data.split(split).records
    draws = np.random.default_rng(0)
    chosen = set(draws.permutation(len(records))[:num_questions].tolist())
    filler = data.region_statistics()[0].to(device)
    found: list[QuestionScores] = []
    explained: dict[str, np.ndarray] = {}  # the values of the last question about each image
    with progress("explain-test", len(chosen), unit="questions") as advance:
        for batch in data.evaluation_loader(split, whole=True):
            batch = batch.to(torch.device(device))
            for row, position in enumerate(batch.positions.tolist()):
                if position not in chosen or int(batch.region_mask[row].sum()) < 2:
                    continue
                asked, maps = _ask(directory, model, batch, row)
                methods = methods or _possible(maps)
                values: dict[str, np.ndarray] = {}
                seconds: dict[str, float] = {}
                for method in methods:
                    start = time.process_time()
                    values[method] = region_values(method, asked, maps)
                    seconds[method] = time.process_time() - start
                record = records[position]
                image = str(record.image_id)
                if others := [explained[other] for other in explained if other != image][-NUM_OTHERS:]:
                    ways = {"mask": asked.without_regions, "mean feature": asked.replaced(filler).without_regions}
                    scores, curves = measure(values, others, ways, seed=position)
                    found.append(QuestionScores(image, record.question_type or "", scores, curves, seconds))
                explained.pop(image, None)  # the last image of the question moves to the end
                explained[image] = values[methods[0]]
                advance(1)
    if not found:
        raise ValueError(f"the {split} questions have no two images with at least two regions: nothing can be measured")
    return found


def _possible(maps: Mapping[str, np.ndarray]) -> list[str]:
    """The usual methods that a model with these maps can have."""
    has_map = default_map(maps, "regions") in maps
    return [name for name in USUAL_METHODS if has_map or METHODS[name].from_maps is None]


def _ask(directory: ModelDirectory, model: Any, batch: Batch, row: int) -> tuple[Ablation, dict[str, np.ndarray]]:
    """One question of a batch, ready to leave regions out of, and the maps of its answer."""
    regions, question = batch.region_mask[row], batch.question_mask[row]
    asked = batch.question[row, question]
    inputs: dict[str, Any] = {
        "question": (asked.float() if asked.is_floating_point() else asked)[None],
        "regions": batch.regions[row, regions].float()[None],
        "question_mask": question[question][None],
        "region_mask": regions[regions][None],
        "boxes": None if batch.boxes is None else batch.boxes[row, regions][None],
        "image_sizes": None if batch.image_sizes is None else batch.image_sizes[row : row + 1],
    }
    if isinstance(model, VQAGenerator):
        output = model.generate(**inputs, need_weights=True)
        answer = output.tokens[0, 0]
        answer = answer[answer != PAD]
    else:
        output = model(**inputs, need_weights=True)
        answer = output.logits[0].argmax()[None]
    ablation = Ablation(
        model,
        question=inputs["question"][0],
        regions=inputs["regions"][0],
        boxes=None if inputs["boxes"] is None else inputs["boxes"][0],
        size=inputs["image_sizes"],
        answer=answer,
        activation=directory.activation,
        temperature=directory.temperature,
    )
    return ablation, {name: weights[0].float().cpu().numpy() for name, weights in output.maps.items()}
