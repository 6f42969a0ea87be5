"""Decoders: an attended question and image to an answer, one word after the other, and the search for the best."""

from .base import BOS, EOS, PAD, AnswerDecoder, DecoderOutput, Memory, map_tensors
from .lstm import LSTMDecoder
from .search import Written, length_norm, write
from .transformer import TransformerDecoder

# By name, for presets.
DECODERS: dict[str, type[LSTMDecoder] | type[TransformerDecoder]] = {
    "lstm": LSTMDecoder,
    "transformer": TransformerDecoder,
}

__all__ = [
    "BOS",
    "DECODERS",
    "EOS",
    "PAD",
    "AnswerDecoder",
    "DecoderOutput",
    "LSTMDecoder",
    "Memory",
    "TransformerDecoder",
    "Written",
    "length_norm",
    "map_tensors",
    "write",
]
