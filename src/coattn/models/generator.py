"""Stacks of co-attention layers whose answers are written word by word."""

from __future__ import annotations

from collections.abc import Sequence

from coattn.nn import VQAGenerator
from coattn.nn.decoder import DECODERS

from .stacks import stack


def generator(
    *,
    region_dim: int,
    num_answer_words: int,
    num_words: int | None = None,
    question_dim: int | None = None,
    layers: Sequence[str] = ("question_self", "self_guided"),
    num_layers: int = 1,
    share_weights: bool = False,
    dim: int = 256,
    num_heads: int = 4,
    ffn_dim: int | None = None,
    dropout: float = 0.1,
    question_encoder: str = "lstm",
    embedding_dim: int = 300,
    bidirectional: bool = False,
    recurrent_layers: int = 1,
    question_positions: int = 0,
    boxes: bool = False,
    region_positions: int = 0,
    standardized: bool = True,
    feature_dropout: float = 0.0,
    decoder: str = "lstm",
    attention: str = "additive",
    decoder_dim: int | None = None,
    decoder_heads: int = 1,
    decoder_layers: int = 1,
    max_length: int = 20,
    num_beams: int = 5,
    length_penalty: float = 0.6,
) -> VQAGenerator:
    """A stack of co-attention layers, and a decoder that attends to both sides again for each word of the answer.

    Args:
        region_dim: width of the region features.
        num_answer_words: size of the vocabulary of answer words, including its special ids.
        num_words: size of the question vocabulary, for token ids.
        question_dim: width of given token embeddings. Give exactly one of the two.
        layers: names of layers, see `stack`; encoder-decoder modular co-attention by default.
        num_layers: number of consecutive layers for each name in `layers`.
        share_weights: layers of one name are one layer, applied repeatedly (recurrent stacking).
        dim: model width of both sides.
        num_heads: attention heads per layer.
        ffn_dim: inner width of feed-forward steps; `4 * dim` when None.
        dropout: dropout throughout.
        question_encoder: "lstm", "gru" or "none".
        embedding_dim: width of word embeddings under a recurrence.
        bidirectional: recurrence in both directions.
        recurrent_layers: layers of the recurrence.
        question_positions: learned positions when `question_encoder` is "none"; 0 for none.
        boxes: add the regions' box geometry; the model then needs boxes.
        region_positions: learned positions for grids of fixed size, one for each region at most; 0 for none.
        standardized: z-score region features with statistics of the training images.
        feature_dropout: dropout on the region features, before the linear map.
        decoder: "lstm" or "transformer".
        attention: attention of the decoder to question and regions: "additive", "dot", or "none" for the classical
            encoder-decoder with one fixed context vector.
        decoder_dim: width of the decoder; `dim` when None.
        decoder_heads: attention heads of the decoder; must divide its width.
        decoder_layers: number of layers of the decoder.
        max_length: largest number of words of an answer in `generate`.
        num_beams: number of beams in `generate`.
        length_penalty: length penalty in `generate`, see `coattn.nn.decoder.length_norm`.

    Raises:
        ValueError: unknown names, or sizes that do not fit together.
    """
    if decoder not in DECODERS:
        raise ValueError(f"decoder must be one of {', '.join(DECODERS)}, got {decoder!r}")
    encoders = stack(
        layers=layers,
        region_dim=region_dim,
        num_answers=1,  # the head is not used
        num_words=num_words,
        question_dim=question_dim,
        num_layers=num_layers,
        share_weights=share_weights,
        dim=dim,
        num_heads=num_heads,
        ffn_dim=ffn_dim,
        dropout=dropout,
        question_encoder=question_encoder,
        embedding_dim=embedding_dim,
        bidirectional=bidirectional,
        recurrent_layers=recurrent_layers,
        question_positions=question_positions,
        boxes=boxes,
        region_positions=region_positions,
        standardized=standardized,
        feature_dropout=feature_dropout,
    )
    return VQAGenerator(
        encoders.question_encoder,
        region_encoder=encoders.region_encoder,
        coattention=encoders.coattention,
        decoder=DECODERS[decoder](
            dim,
            dim,
            num_answer_words,
            dim=dim if decoder_dim is None else decoder_dim,
            attention=attention,
            num_heads=decoder_heads,
            num_layers=decoder_layers,
            dropout=dropout,
        ),
        max_length=max_length,
        num_beams=num_beams,
        length_penalty=length_penalty,
    )
