"""Decoders: an attended question and image to an answer, one word after the other, and the search for the best."""

from .base import BOS, EOS, PAD, AnswerDecoder, Context, DecoderOutput, map_tensors
from .lstm import LSTMDecoder
from .search import FoundAnswers, beam_search, length_norm
from .transformer import TransformerDecoder

# By name, for the builder of generators.
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
    "Context",
    "DecoderOutput",
    "FoundAnswers",
    "LSTMDecoder",
    "TransformerDecoder",
    "beam_search",
    "length_norm",
    "map_tensors",
]
