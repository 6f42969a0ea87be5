"""Writing an answer: greedy and beam search over what a decoder scores.

Letters: B batch, K beams, S words of the longest answer found, V word ids.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import BOS, EOS, PAD, AnswerDecoder, Memory, map_tensors

_NEVER = float("-inf")


class Written(NamedTuple):
    """Answers as they were found, best first.

    Attributes:
        tokens: (B, K, S) int64, each answer's words, then `EOS`, then `PAD`; all `PAD` where there are no K answers.
        scores: (B, K) length-normalised log-probabilities, by which they are ranked; -inf where none was found.
        log_probs: (B, K), the log-probability of the whole answer, its end included.
    """

    tokens: Tensor
    scores: Tensor
    log_probs: Tensor


class _Found(NamedTuple):
    """The finished answers of each row: tokens (B, K, S), scores (B, K), log-probabilities (B, K)."""

    tokens: Tensor
    scores: Tensor
    log_probs: Tensor

    def add(self, tokens: Tensor, scores: Tensor, log_probs: Tensor) -> _Found:
        """The K best of these and some more (B, K', S) with their scores."""
        scores = torch.cat((self.scores, scores), 1)
        kept = scores.topk(self.scores.shape[1], dim=1)
        all_tokens = torch.cat((self.tokens, tokens), 1)
        return _Found(
            all_tokens.gather(1, kept.indices[..., None].expand(-1, -1, tokens.shape[2])),
            kept.values,
            torch.cat((self.log_probs, log_probs), 1).gather(1, kept.indices),
        )


def length_norm(num_tokens: int, length_penalty: float) -> float:
    """What a log-probability is divided by: `(5 + |Y|)^a / (5 + 1)^a` (Wu et al. 2016, arXiv 1609.08144, eq. 14).

    Args:
        num_tokens: |Y|, the words of the answer and its end.
        length_penalty: a; at 0 nothing is normalised, and shorter answers are favoured.
    """
    return ((5 + num_tokens) / 6) ** length_penalty


@torch.no_grad()
def write(decoder: AnswerDecoder, memory: Memory, *, num_beams: int, max_length: int, length_penalty: float) -> Written:
    """Beam search; with one beam it is greedy search.

    Each step keeps the K most probable unfinished answers. An answer is finished when its end is among the K best
    continuations; a row is finished when K answers are, of which the best by `length_norm` come first. Every answer has
    at least one word and at most `max_length`, and ends: its probability is that of a whole answer.

    Args:
        decoder: scores the next word.
        memory: what it knows of B questions and images.
        num_beams: K.
        max_length: most words of an answer.
        length_penalty: see `length_norm`.

    Raises:
        ValueError: `num_beams` or `max_length` is below 1.
    """
    for name, value in (("num_beams", num_beams), ("max_length", max_length)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    num_rows, device = len(memory.fixed), memory.fixed.device
    memory = map_tensors(lambda x: x.repeat_interleave(num_beams, 0), memory)
    first_beams = torch.arange(num_rows, device=device)[:, None] * num_beams  # (B, 1)
    tokens = torch.full((num_rows, num_beams, max_length + 2), PAD, device=device)
    tokens[..., 0] = BOS
    precision = torch.promote_types(memory.fixed.dtype, torch.float32)
    alive = torch.full((num_rows, num_beams), _NEVER, device=device, dtype=precision)
    alive[:, 0] = 0.0  # at first all beams are one
    found = _Found(tokens[..., 1:].clone(), alive.new_full(alive.shape, _NEVER), alive.new_full(alive.shape, _NEVER))
    state: tuple = ()
    for step in range(max_length + 1):
        output = decoder(tokens[..., step].flatten()[:, None], memory, state)
        log_probs = F.pad(output.logits[:, -1, EOS:].to(precision).log_softmax(-1), (EOS, 0), value=_NEVER)
        totals = alive[..., None] + log_probs.unflatten(0, (num_rows, num_beams))  # (B, K, V)
        if step == 0:
            totals[..., EOS] = _NEVER
        if step == max_length:
            totals[..., EOS + 1 :] = _NEVER
        best = totals.flatten(1).topk(num_beams, dim=1).values[:, -1:]
        done = (found.scores > _NEVER).all(1, keepdim=True)
        ends = totals[..., EOS].masked_fill((totals[..., EOS] < best) | done, _NEVER)  # (B, K)
        ended = tokens[..., 1:].clone()
        ended[..., step] = EOS
        found = found.add(ended, ends / length_norm(step + 1, length_penalty), ends)
        if step == max_length or bool((found.scores > _NEVER).all()):
            break
        totals[..., EOS] = _NEVER
        alive, places = totals.flatten(1).topk(num_beams, dim=1)
        parents = (first_beams + places // totals.shape[2]).flatten()
        tokens = tokens.flatten(0, 1)[parents].unflatten(0, (num_rows, num_beams))
        tokens[..., step + 1] = places % totals.shape[2]
        state = map_tensors(partial(torch.index_select, dim=0, index=parents), output.state)
    missing = (found.scores == _NEVER)[..., None]
    return Written(found.tokens[..., : step + 1].masked_fill(missing, PAD), found.scores, found.log_probs)
