"""Answer a question again with some of its words, or some regions of its image, removed.

Letters: N ablations, R regions, T question tokens, D feature width, E embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from coattn.metrics.calibration import Activation, log_odds
from coattn.nn import VQAGenerator, VQAModel
from coattn.nn.decoder import BOS, length_norm
from coattn.nn.layers import lengths_to_mask

_BATCH_VALUES = 4_000_000  # region feature values of one batch: 16 MB in float32


@dataclass(frozen=True, eq=False)
class Ablation:
    """A model, an image, a question, and the answer whose probability, its calibrated confidence, is measured.

    Attributes:
        model: in eval mode.
        question: (T,) int64 token ids or (T, E) token embeddings.
        regions: (R, D) features.
        boxes: (R, 4) x1 y1 x2 y2 in [0, 1] of the image; None if not known.
        size: (1, 2) width and height of the image in pixels; None if not known.
        answer: (1,) int64, its number; of a model that writes, (S,) the ids of its words and their end.
        activation: see `coattn.metrics.calibration.confidences`.
        temperature: the fitted temperature of the confidences.
        filler: (D,) the features that replace a removed region, for example the mean of the training images; None
            masks a removed region.
    """

    model: VQAModel | VQAGenerator
    question: Tensor
    regions: Tensor
    boxes: Tensor | None
    size: Tensor | None
    answer: Tensor
    activation: Activation
    temperature: float
    filler: Tensor | None = None

    def replaced(self, filler: Tensor) -> Ablation:
        """The same with removed regions replaced by `filler` (D,) instead of masked."""
        return replace(self, filler=filler)

    def without_regions(self, kept: np.ndarray) -> np.ndarray:
        """The probability (N,) of the answer where only the regions `kept` (N, R), bool, are shown."""
        return self._measure(kept, np.ones((len(kept), len(self.question)), bool))

    def without_words(self, kept: np.ndarray) -> np.ndarray:
        """The probability (N,) of the answer where only the tokens `kept` (N, T), bool, are asked."""
        return self._measure(np.ones((len(kept), len(self.regions)), bool), kept)

    @torch.inference_mode()
    def _measure(self, regions: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        size = max(1, _BATCH_VALUES // max(self.regions.numel(), 1))
        pieces = [
            self._log_odds(
                torch.from_numpy(regions[start : start + size]), torch.from_numpy(tokens[start : start + size])
            )
            for start in range(0, len(regions), size)
        ]
        # Differences of probabilities near 1 are too small for float32.
        return torch.cat(pieces).double().sigmoid().cpu().numpy() if pieces else np.empty(0)

    def _log_odds(self, kept: Tensor, asked: Tensor) -> Tensor:
        device, count = self.regions.device, len(kept)
        kept, asked = kept.to(device), asked.to(device)
        # (N, R, D): a removed region is masked and zeroed, or replaced by the filler and left visible.
        features = self.regions.expand(count, -1, -1)
        if self.filler is None:
            features, mask = features * kept[:, :, None], kept
        else:
            features = torch.where(kept[:, :, None], features, self.filler.to(features))
            mask = torch.ones_like(kept)
        # The kept tokens move to the front, (N, T) or (N, T, E): a model reads padding only on the right.
        order = asked.long().argsort(dim=1, descending=True, stable=True)
        question_mask = lengths_to_mask(asked.sum(1), asked.shape[1])
        question = self.question[order] * (question_mask if self.question.ndim == 1 else question_mask[:, :, None])
        inputs = {
            "question_mask": question_mask,
            "region_mask": mask,
            "boxes": None if self.boxes is None else self.boxes.to(device).expand(count, -1, -1),
            "image_sizes": None if self.size is None else self.size.to(device).expand(count, -1),
        }
        if isinstance(self.model, VQAGenerator):
            # Teacher forcing: the score of the whole answer, its end included, as the search ranks it.
            answers = self.answer.expand(count, -1)
            begun = torch.cat((torch.full_like(answers[:, :1], BOS), answers[:, :-1]), 1)
            log_probs = self.model(question, features, begun, **inputs).float().log_softmax(-1)
            score = log_probs.gather(2, answers[:, :, None]).sum((1, 2))
            return log_odds(score / length_norm(answers.shape[1], self.model.length_penalty)) / self.temperature
        logits = self.model(question, features, **inputs).logits.float() / self.temperature
        if self.activation == "sigmoid":
            return logits[:, self.answer[0]]
        return log_odds(logits.log_softmax(-1)[:, self.answer[0]])
