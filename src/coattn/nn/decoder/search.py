"""Beam search over the words that a decoder scores.

Letters: B batch, K beams, S words of the longest answer found, V word ids.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import BOS, EOS, PAD, AnswerDecoder, Context, State, map_tensors

NEVER = float("-inf")


class FoundAnswers(NamedTuple):
    """Generated answers, best first.

    Attributes:
        tokens: (B, K, S) int64: each answer's words, then `EOS`, then `PAD`; all `PAD` for rows with fewer than K
            answers.
        scores: (B, K) length-normalized log-probabilities, by which answers are ranked; -inf for a missing answer.
        log_probs: (B, K) log-probability of the whole answer, its end included.
    """

    tokens: Tensor
    scores: Tensor
    log_probs: Tensor

    def add(self, tokens: Tensor, scores: Tensor, log_probs: Tensor) -> FoundAnswers:
        """The K best of these answers and of others (B, K', S)."""
        best = torch.cat((self.scores, scores), 1).topk(self.scores.shape[1], dim=1)
        all_tokens = torch.cat((self.tokens, tokens), 1)
        return FoundAnswers(
            all_tokens.gather(1, best.indices[..., None].expand(-1, -1, tokens.shape[2])),
            best.values,
            torch.cat((self.log_probs, log_probs), 1).gather(1, best.indices),
        )


def length_norm(num_tokens: int, length_penalty: float) -> float:
    """The divisor of a log-probability: `(5 + |Y|)^a / (5 + 1)^a` (Wu et al. 2016, arXiv 1609.08144, eq. 14).

    Args:
        num_tokens: |Y|, the words of the answer and its end.
        length_penalty: a; 0 normalizes nothing, which favors shorter answers.
    """
    return ((5 + num_tokens) / 6) ** length_penalty


@torch.no_grad()
def beam_search(
    decoder: AnswerDecoder, context: Context, *, num_beams: int, max_length: int, length_penalty: float
) -> FoundAnswers:
    """Search for the most probable answers; with one beam the search is greedy.

    Each step keeps the K most probable unfinished answers. An answer is finished when its end is among the K best
    continuations, and a row is finished when K answers are; `length_norm` ranks them. Every answer has at least one
    word, at most `max_length` words, and an end: its probability is that of a whole answer.

    Args:
        decoder: scores the next word.
        context: the context of B questions and images, see `AnswerDecoder.context`.
        num_beams: K.
        max_length: largest number of words of an answer.
        length_penalty: see `length_norm`.

    Raises:
        ValueError: `num_beams` or `max_length` is below 1.
    """
    for name, value in (("num_beams", num_beams), ("max_length", max_length)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    num_rows, device = context.vector.shape[0], context.vector.device
    context = map_tensors(lambda x: x.repeat_interleave(num_beams, 0), context)
    first_beams = torch.arange(num_rows, device=device)[:, None] * num_beams  # (B, 1)
    tokens = torch.full((num_rows, num_beams, max_length + 2), PAD, device=device)  # BOS, the words, EOS
    tokens[..., 0] = BOS
    precision = torch.promote_types(context.vector.dtype, torch.float32)
    # All beams are equal at first, so that only the first one may continue.
    alive = torch.full((num_rows, num_beams), NEVER, device=device, dtype=precision)  # log-probabilities (B, K)
    alive[:, 0] = 0.0
    found = FoundAnswers(
        tokens[..., 1:].clone(), alive.new_full(alive.shape, NEVER), alive.new_full(alive.shape, NEVER)
    )
    state: State = ()
    for step in range(max_length + 1):
        # Log-probability of each beam with each next word: no end before the first word, only the end after the last.
        output = decoder(tokens[..., step].flatten()[:, None], context, state)
        log_probs = F.pad(output.logits[:, -1, EOS:].to(precision).log_softmax(-1), (EOS, 0), value=NEVER)
        totals = alive[..., None] + log_probs.unflatten(0, (num_rows, num_beams))  # (B, K, V)
        if step == 0:
            totals[..., EOS] = NEVER
        if step == max_length:
            totals[..., EOS + 1 :] = NEVER

        # Beams whose end is among the K best continuations are finished.
        best = totals.flatten(1).topk(num_beams, dim=1).values[:, -1:]  # (B, 1)
        done = (found.scores > NEVER).all(1, keepdim=True)
        ends = totals[..., EOS].masked_fill((totals[..., EOS] < best) | done, NEVER)  # (B, K)
        ended = tokens[..., 1:].clone()
        ended[..., step] = EOS
        found = found.add(ended, ends / length_norm(step + 1, length_penalty), ends)
        if step == max_length or bool((found.scores > NEVER).all()):
            break

        # The K best other continuations go on, each with the words and the state of its beam.
        totals[..., EOS] = NEVER
        alive, places = totals.flatten(1).topk(num_beams, dim=1)
        parents = (first_beams + places // totals.shape[2]).flatten()
        tokens = tokens.flatten(0, 1)[parents].unflatten(0, (num_rows, num_beams))
        tokens[..., step + 1] = places % totals.shape[2]
        state = map_tensors(partial(torch.index_select, dim=0, index=parents), output.state)
    missing = (found.scores == NEVER)[..., None]
    return FoundAnswers(found.tokens[..., : step + 1].masked_fill(missing, PAD), found.scores, found.log_probs)
