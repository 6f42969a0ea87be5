"""Beam search in numpy: the twin of `coattn.nn.decoder.search`.

Letters: B batch, K beams, N = B * K rows, S words of the longest answer found, V word ids.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from coattn.text.answer_words import BOS, EOS, PAD

NEVER = float("-inf")

# From the last words (N,) and the state (N, ...) to the log-probabilities (N, V) of the next words and the next state.
Step = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


class FoundAnswers(NamedTuple):
    """Generated answers, best first; see `coattn.nn.decoder.FoundAnswers`.

    Attributes:
        tokens: (B, K, S) int64.
        scores: (B, K) length-normalized log-probabilities; -inf for a missing answer.
        log_probs: (B, K).
    """

    tokens: np.ndarray
    scores: np.ndarray
    log_probs: np.ndarray


def beam_search(
    step: Step, state: np.ndarray, *, num_beams: int, max_length: int, length_penalty: float
) -> FoundAnswers:
    """Search for the most probable answers, as `coattn.nn.decoder.beam_search` does.

    Args:
        step: scores the next words of N rows; the rows of a question are consecutive.
        state: (N, ...), the state before the first word.
        num_beams: K.
        max_length: largest number of words of an answer.
        length_penalty: see `coattn.nn.decoder.length_norm`.
    """
    num_rows = len(state) // num_beams
    first_beams = np.arange(num_rows)[:, None] * num_beams  # (B, 1)
    tokens = np.full((num_rows, num_beams, max_length + 2), PAD)  # BOS, the words, EOS
    tokens[..., 0] = BOS
    # All beams are equal at first, so that only the first one may continue.
    alive = np.full((num_rows, num_beams), NEVER, np.float32)  # log-probabilities (B, K)
    alive[:, 0] = 0.0
    found = FoundAnswers(tokens[..., 1:].copy(), np.full_like(alive, NEVER), np.full_like(alive, NEVER))
    for place in range(max_length + 1):
        # Log-probability of each beam with each next word: no end before the first word, only the end after the last.
        log_probs, state = step(tokens[..., place].reshape(-1), state)
        totals = alive[..., None] + log_probs.reshape(num_rows, num_beams, -1)  # (B, K, V)
        if place == 0:
            totals[..., EOS] = NEVER
        if place == max_length:
            totals[..., EOS + 1 :] = NEVER

        # Beams whose end is among the K best continuations are finished.
        flat = totals.reshape(num_rows, -1)
        worst = np.take_along_axis(flat, _best(flat, num_beams)[:, -1:], 1)  # (B, 1)
        done = (found.scores > NEVER).all(1, keepdims=True)
        ends = np.where((totals[..., EOS] < worst) | done, np.float32(NEVER), totals[..., EOS])  # (B, K)
        ended = tokens[..., 1:].copy()
        ended[..., place] = EOS
        norm = np.float32(((5 + place + 1) / 6) ** length_penalty)
        found = _kept(found, FoundAnswers(ended, ends / norm, ends))
        if place == max_length or (found.scores > NEVER).all():
            break

        # The K best other continuations go on, each with the words and the state of its beam.
        totals[..., EOS] = NEVER
        places = _best(flat, num_beams)
        alive = np.take_along_axis(flat, places, 1)
        parents = (first_beams + places // totals.shape[2]).reshape(-1)
        tokens = tokens.reshape(len(parents), -1)[parents].reshape(tokens.shape)
        tokens[..., place + 1] = places % totals.shape[2]
        state = state[parents]
    tokens = np.where((found.scores == NEVER)[..., None], PAD, found.tokens[..., : place + 1])
    return found._replace(tokens=tokens)


def _kept(found: FoundAnswers, others: FoundAnswers) -> FoundAnswers:
    """The K best of the answers `found` (B, K, S) and of others."""
    tokens, scores, log_probs = (np.concatenate(pair, 1) for pair in zip(found, others, strict=True))
    best = _best(scores, found.scores.shape[1])
    return FoundAnswers(
        np.take_along_axis(tokens, best[..., None], 1),
        np.take_along_axis(scores, best, 1),
        np.take_along_axis(log_probs, best, 1),
    )


def _best(values: np.ndarray, number: int) -> np.ndarray:
    """The places (B, number) of the largest of the values (B, n), in descending order; NaN comes last."""
    places = np.argpartition(-values, number - 1, axis=1)[:, :number]
    order = np.argsort(-np.take_along_axis(values, places, 1), axis=1, kind="stable")
    return np.take_along_axis(places, order, 1)
