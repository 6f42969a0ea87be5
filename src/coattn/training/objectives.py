"""Losses on soft scores, and the objective of each kind of model: one that chooses answers, one that writes them.

Letters: B questions, A answers of the vocabulary, S target answers, L words, V word ids.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coattn.metrics.calibration import Activation, log_odds
from coattn.nn import VQAGenerator, VQAModel
from coattn.nn.decoder import BOS, EOS, PAD
from coattn.text.answer_words import COMMA
from coattn.training.data.batches import Batch
from coattn.training.settings import Loss

# The function from logits to confidences, for each loss.
ACTIVATIONS: dict[str, Literal["sigmoid", "softmax"]] = {"bce": "sigmoid", "cross_entropy": "softmax", "kl": "softmax"}


def answer_losses(logits: Tensor, targets: Tensor, loss: Loss) -> Tensor:
    """The loss of each question. Training takes the mean, or the sum, over the questions of an optimizer step.

    - `bce`: binary cross-entropy of every answer with its soft score, *summed* over the answers: what bottom-up
      top-down attention and its successors train with. Their code then divides by the batch (hengyuan-hu: the mean) or
      by nothing (openvqa, DCN: the sum; learning rate and clipping then go with the batch size).
    - `cross_entropy`: the scores are made to sum to 1; with one answer, minus the log of its probability. A question
      without a known answer has loss 0.
    - `kl`: Kullback-Leibler divergence with the scores as they are, not made to sum to 1: with the data's targets
      "share", what MFB and MFH train with in openvqa.

    Args:
        logits: (B, A).
        targets: (B, A) soft scores in [0, 1].
        loss: which.

    Returns:
        (B,)

    Raises:
        ValueError: unknown loss.
    """
    if loss == "bce":
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(dim=1)
    if loss == "cross_entropy":
        share = targets / targets.sum(dim=1, keepdim=True).clamp(min=1e-6)
        return -(share * F.log_softmax(logits, dim=1)).sum(dim=1)
    if loss == "kl":
        return F.kl_div(F.log_softmax(logits, dim=1), targets, reduction="none").sum(dim=1)
    raise ValueError(f"loss must be one of {', '.join(ACTIVATIONS)}, got {loss!r}")


class Outcome(NamedTuple):
    """A model's answers to a batch.

    Attributes:
        losses: (B,).
        answers: (B,) numbers of the vocabulary, or (B, L) word ids.
        accuracy: (B,) soft scores of these answers, in [0, 1].
        logits: (B, A) of all answers, or (B, 1) log-odds of the written answer; confidences are made of them.
        targets: soft score that belongs to each of the logits.
    """

    losses: Tensor
    answers: Tensor
    accuracy: Tensor
    logits: Tensor
    targets: Tensor


class Objective(Protocol):
    """The loss and the scores of one kind of model. It keeps no model and no tensors."""

    activation: Activation

    def logits(self, model: Any, batch: Batch) -> Tensor:
        """Float32 logits: (B, A) of all answers, or (S, L, V) of all words at each place of the S target answers."""

    def losses(self, model: Any, batch: Batch) -> Tensor:
        """The loss of each question, (B,)."""

    def answers(self, model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """The answers, (B,) or (B, L), and the logits of their confidences, as in `Outcome`."""

    def outcome(self, model: Any, batch: Batch) -> Outcome:
        """The answers with losses, scores and targets."""


def make_objective(model: nn.Module, *, loss: Loss, label_smoothing: float) -> Objective:
    """The objective for this kind of model.

    Raises:
        ValueError: a setting that does not apply to this kind of model.
    """
    if isinstance(model, VQAGenerator):
        if loss != "cross_entropy":
            raise ValueError(
                f"model.loss.name is {loss!r}, but a model that writes its answers trains with 'cross_entropy'"
            )
        return Writing(label_smoothing)
    if label_smoothing:
        raise ValueError(
            f"model.loss.label_smoothing {label_smoothing} is for models that write their answers; remove it"
        )
    return Choosing(loss)


class Choosing:
    """The objective of a classifier over an answer vocabulary, trained on soft scores.

    Args:
        loss: see `answer_losses`.
    """

    def __init__(self, loss: Loss) -> None:
        self.loss, self.activation = loss, ACTIVATIONS[loss]

    def logits(self, model: VQAModel, batch: Batch) -> Tensor:
        """See `Objective`. In an evaluation the questions about an image share its side, see `VQAModel.forward`."""
        images = None
        if not model.training:
            batch, images = batch.images_once()
        return model(**_inputs(batch), images=images).logits.float()

    def losses(self, model: VQAModel, batch: Batch) -> Tensor:
        """See `Objective`."""
        logits = self.logits(model, batch)
        return answer_losses(logits, batch.targets(logits.shape[1]), self.loss)

    def answers(self, model: VQAModel, batch: Batch) -> tuple[Tensor, Tensor]:
        """See `Objective`: the answer with the highest logit."""
        logits = self.logits(model, batch)
        return logits.argmax(dim=1), logits

    def outcome(self, model: VQAModel, batch: Batch) -> Outcome:
        """See `Objective`."""
        logits = self.logits(model, batch)
        targets = batch.targets(logits.shape[1])
        answers = logits.argmax(dim=1)
        accuracy = targets.gather(1, answers[:, None])[:, 0]
        return Outcome(answer_losses(logits, targets, self.loss), answers, accuracy, logits, targets)


class Writing:
    """The objective of a generator, trained on the words of human answers, each weighted by its soft score.

    The loss of a question is the cross-entropy of its answers' words, summed over the words and the end; where there
    are several answers, their mean by soft score. Answers are found by the model's own search.

    Args:
        label_smoothing: this part of each target is spread evenly over all words (Szegedy et al. 2016,
            arXiv 1512.00567, section 7).
    """

    activation: Activation = "sigmoid"

    def __init__(self, label_smoothing: float) -> None:
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
        self.label_smoothing = label_smoothing

    def logits(self, model: VQAGenerator, batch: Batch) -> Tensor:
        """See `Objective`."""
        targets = batch.target_answers
        begun = torch.cat((torch.full_like(targets[:, :1], BOS), targets[:, :-1]), 1)
        return model(**_inputs(batch), answer_tokens=begun, answer_rows=batch.target_rows).float()

    def losses(self, model: VQAGenerator, batch: Batch) -> Tensor:
        """See `Objective`; 0 for a question none of whose answers can be written."""
        scores, rows = batch.target_scores, batch.target_rows
        by_word = F.cross_entropy(
            self.logits(model, batch)[..., EOS:].transpose(1, 2),
            batch.target_answers - EOS,
            ignore_index=PAD - EOS,
            label_smoothing=self.label_smoothing,
            reduction="none",
        )
        nothing = scores.new_zeros(len(batch.positions))
        shares = scores / nothing.index_add(0, rows, scores)[rows]
        return nothing.index_add(0, rows, shares * by_word.sum(1))

    def answers(self, model: VQAGenerator, batch: Batch) -> tuple[Tensor, Tensor]:
        """See `Objective`: the best answer found, padded to the longest that the model may write."""
        answers, scores = self._written(model, batch)
        return answers, log_odds(scores)[:, None]

    def outcome(self, model: VQAGenerator, batch: Batch) -> Outcome:
        """See `Objective`."""
        answers, scores = self._written(model, batch)
        targets, found = _without_commas(batch.target_answers), _without_commas(answers)
        width = max(targets.shape[1], found.shape[1])
        targets, found = (F.pad(tokens, (0, width - tokens.shape[1])) for tokens in (targets, found))
        worth = batch.target_scores * (found[batch.target_rows] == targets).all(1)
        accuracy = worth.new_zeros(len(answers)).index_add(0, batch.target_rows, worth)
        return Outcome(self.losses(model, batch), answers, accuracy, log_odds(scores)[:, None], accuracy[:, None])

    def _written(self, model: VQAGenerator, batch: Batch) -> tuple[Tensor, Tensor]:
        found = model.generate(**_inputs(batch))
        tokens = found.tokens[:, 0]
        return F.pad(tokens, (0, model.max_length + 1 - tokens.shape[1])), found.scores[:, 0].float()


def _inputs(batch: Batch) -> dict[str, Any]:
    """The inputs of both kinds of models."""
    return {
        "question": batch.question.float() if batch.question.is_floating_point() else batch.question,
        "regions": batch.regions.float(),
        "question_mask": batch.question_mask,
        "region_mask": batch.region_mask,
        "boxes": batch.boxes,
        "image_sizes": batch.image_sizes,
    }


def _without_commas(tokens: Tensor) -> Tensor:
    """Answers (S, L) as they are compared: the normal form has no commas (`coattn.text.answer_words.written_form`)."""
    is_comma = tokens == COMMA
    order = is_comma.byte().argsort(dim=1, stable=True)
    return tokens.masked_fill(is_comma, PAD).gather(1, order)
