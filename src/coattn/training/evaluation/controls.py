"""Controls of a score: the same model with the images of other questions, and with images that show nothing.

A model that scores as high with other images does not look at them (on medical data sets whose splits share images, a
model may know the images by heart instead).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from coattn.metrics.score import score
from coattn.training.data.batches import Batch
from coattn.training.data.module import VQADataModule
from coattn.training.evaluation.answers import results_by_question
from coattn.training.task import VQATask

SHUFFLED, BLANK = "images shuffled", "blank images"


@torch.inference_mode()
def image_controls(task: VQATask, data: VQADataModule, split: str, device: torch.device) -> dict[str, float]:
    """The score of a model, in percent, with shuffled images and with blank images; one pass over the split each.

    Shuffled: each question gets another image of its batch. Blank: every region has the mean feature of
    the training images.
    """
    task = task.eval().to(device)
    blank = data.region_statistics()[0].to(device)
    answers: dict[str, list[Tensor]] = {SHUFFLED: [], BLANK: []}
    positions: list[Tensor] = []
    with torch.compiler.set_stance("force_eager"):
        for batch in data.evaluation_loader(split, whole=True):
            batch = batch.to(device)
            positions.append(batch.positions.cpu())
            for name, changed in ((SHUFFLED, shuffled(batch)), (BLANK, blanked(batch, blank))):
                answers[name].append(task.objective.answers(task.model, changed)[0].cpu())
    order = np.argsort(torch.cat(positions).numpy())
    records, metric = data.split(split).records, data.split(split).metric
    return {
        name: score(results_by_question(data, split, torch.cat(parts).numpy()[order]), records, metric).overall
        for name, parts in answers.items()
    }


def shuffled(batch: Batch) -> Batch:
    """Each question with another image of the batch, unless more than half of the questions are about one image."""
    by_image = batch.images.argsort(stable=True)
    source = torch.empty_like(by_image)
    source[by_image] = by_image.roll(len(by_image) // 2, 0)

    def moved(values: Tensor | None) -> Tensor | None:
        return None if values is None else values[source]

    return batch._replace(
        regions=batch.regions[source],
        region_mask=batch.region_mask[source],
        boxes=moved(batch.boxes),
        image_sizes=moved(batch.image_sizes),
        images=batch.images[source],
    )


def blanked(batch: Batch, feature: Tensor) -> Batch:
    """Each region with the same feature (D,)."""
    regions = feature.to(batch.regions) * batch.region_mask[:, :, None]
    return batch._replace(regions=regions)
