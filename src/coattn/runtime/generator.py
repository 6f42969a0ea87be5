"""An exported model that writes its answers, run by onnxruntime.

Letters: B batch, K beams, N rows, S words of the longest answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from .beam import FoundAnswers, Step, beam_search

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


# The attributes of a `VQAGenerator` that its search needs.
SEARCH = ("num_beams", "max_length", "length_penalty")
MAX_SEARCH = 1024  # beams, and tokens of an answer


class Generator:
    """The two graphs of an exported `VQAGenerator`.

    Args:
        encoder: computes what is the same for every word of an answer.
        decoder: scores the next word.
    """

    def __init__(self, encoder: InferenceSession, decoder: InferenceSession) -> None:
        self._encoder, self._decoder = encoder, decoder

    def start(self, inputs: Mapping[str, np.ndarray], *, num_beams: int = 1) -> tuple[Step, np.ndarray]:
        """Encode questions and images.

        Args:
            inputs: as `coattn.nn.VQAGenerator.encode` takes them, by name; those that the model does not use are left
                out.
            num_beams: K; each question becomes K equal consecutive rows.

        Returns:
            The function that scores the next word of each of the N rows, and the state before the first word.
        """
        names = [output.name for output in self._encoder.get_outputs()]
        known = dict(inputs) | dict(zip(names, self._encoder.run(names, _chosen(self._encoder, inputs)), strict=True))
        known |= {"word": np.zeros(0, np.int64)}
        rows = {name: np.repeat(value, num_beams, 0) for name, value in _chosen(self._decoder, known).items()}

        def step(words: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            log_probs, following = self._decoder.run(None, rows | {"word": words, "state": state})
            return log_probs, following

        return step, rows.pop("state")

    def search(
        self, inputs: Mapping[str, np.ndarray], *, num_beams: int, max_length: int, length_penalty: float
    ) -> FoundAnswers:
        """The K best answers to each question; see `coattn.runtime.beam.beam_search`."""
        step, state = self.start(inputs, num_beams=num_beams)
        return beam_search(step, state, num_beams=num_beams, max_length=max_length, length_penalty=length_penalty)


def _chosen(session: InferenceSession, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inputs of a graph."""
    return {value.name: values[value.name] for value in session.get_inputs()}
