"""HieCoAtt (Lu et al. 2016, arXiv 1606.00061)."""

from __future__ import annotations

from functools import partial
from typing import Literal

from coattn.nn import (
    AlternatingPooling,
    CoAttentionPooling,
    HierarchicalCoAttention,
    HierarchicalQuestionEncoder,
    ParallelPooling,
    RecursiveHead,
    RegionEncoder,
    VQAModel,
)

from .original_padding import OriginalPadding


def hiecoatt(
    *,
    region_dim: int,
    num_answers: int,
    num_words: int | None = None,
    question_dim: int | None = None,
    coattention: Literal["parallel", "alternating"],
    dim: int = 512,
    attention_dim: int | None = None,
    hidden_dim: int | None = None,
    joint_dim: int = 1024,
    recurrent_layers: int = 2,
    dropout: float = 0.5,
    standardised: bool = False,
    faithful: bool = False,
    padded_tokens: int | None = None,
    padded_regions: int | None = None,
) -> VQAModel:
    """HieCoAtt (Lu et al. 2016, arXiv 1606.00061): co-attention at the word, phrase and question level.

    The question at three levels (`HierarchicalQuestionEncoder`, eq. 1-2), each pooled together with the same regions
    `tanh(W v)`, the cells of a grid, at once (`ParallelPooling`, eq. 3-5) or in turns (`AlternatingPooling`, eq. 6),
    and an answer from word to phrase to question (`RecursiveHead`, eq. 7). The numbers are those of the authors' code
    for VQA (512 units in `joint_dim` for COCO-QA); its initialisation, Torch7's, is that of torch. Published: 61.8 % on
    VQA v1 test-dev and 62.1 % on test-standard, open-ended, with ResNet's features; 60.5 % with VGG's (abstract).

    Differences from the paper, as in the authors' code: see the bricks. Deliberate differences from that code: padding
    is masked everywhere unless `faithful`; and no gradient passes through the LSTM's steps after a question's end, as
    some does in its own backward pass. Word vectors from a file must be `dim` wide.

    Args:
        region_dim: width of the region features.
        num_answers: size of the answer vocabulary.
        num_words: size of the question vocabulary, for token ids.
        question_dim: width of given token embeddings. Exactly one of the two is set.
        coattention: "parallel" or "alternating".
        dim: model width.
        attention_dim: width inside the co-attention; `dim` when None.
        hidden_dim: width of the answer's encoding at the word and phrase level; `dim` when None.
        joint_dim: width of the answer's encoding at the question level.
        recurrent_layers: layers of the LSTM.
        dropout: dropout after nearly everything.
        standardised: z-score region features with statistics of the training images, which the original does not.
        faithful: as the authors' code: regions are not masked, and neither is padding of the question in the affinity
            of parallel co-attention. Alternating co-attention does not see that padding in either form.
        padded_tokens: see `coattn.models`; 26 in the original.
        padded_regions: see `coattn.models`; the original knows full grids only.

    Raises:
        ValueError: unknown co-attention, or sizes that do not fit together.
    """
    if coattention not in ("parallel", "alternating"):
        raise ValueError(f"coattention must be parallel or alternating, got {coattention!r}")
    attention_dim = dim if attention_dim is None else attention_dim

    def pooling() -> CoAttentionPooling:
        if coattention == "alternating":
            return AlternatingPooling(dim, dim, hidden_dim=attention_dim, dropout=dropout)
        return ParallelPooling(dim, dim, hidden_dim=attention_dim, mask_affinity=not faithful, dropout=dropout)

    model = VQAModel(
        HierarchicalQuestionEncoder(
            num_words=num_words, question_dim=question_dim, dim=dim, num_layers=recurrent_layers, dropout=dropout
        ),
        region_encoder=RegionEncoder(
            region_dim, dim=dim, activation="tanh", dropout=dropout, standardised=standardised
        ),
        coattention=HierarchicalCoAttention([pooling() for _ in range(3)]),
        head=RecursiveHead(
            dim,
            num_answers,
            hidden_dim=dim if hidden_dim is None else hidden_dim,
            joint_dim=joint_dim,
            dropout=dropout,
        ),
    )
    if not faithful:
        return model
    return OriginalPadding(model, regions=True, num_tokens=padded_tokens, num_regions=padded_regions)


hiecoatt_parallel = partial(hiecoatt, coattention="parallel")
hiecoatt_alternating = partial(hiecoatt, coattention="alternating")
