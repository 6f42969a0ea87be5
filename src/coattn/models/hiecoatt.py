"""HieCoAtt (Lu et al. 2016, arXiv 1606.00061): co-attention at three levels of the question.

Letters: B batch, T question tokens, R regions, D model width, A answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from coattn.nn import (
    AlternatingPooling,
    CoAttentionOutput,
    CoAttentionPooling,
    HeadOutput,
    ParallelPooling,
    Question,
    RegionEncoder,
    VQAModel,
)
from coattn.nn.layers import Dropout
from coattn.nn.maps import POOLING, Maps, prefix_maps
from coattn.nn.question import TokenEmbedding
from coattn.nn.recurrence import Recurrences

from .original_padding import OriginalPadding

LEVELS = ("word", "phrase", "question")


class HierarchicalQuestionEncoder(nn.Module):
    """Word, phrase and question level (Lu et al. 2016, arXiv 1606.00061, section 3.2, eq. 1-2).

    With x the embedded words, zeros at padding and beyond both ends::

        word      w_t = tanh(x_t)
        phrase    p_t = tanh(max(W_1 w_t + b_1, W_2 w_{t-1..t} + b_2, W_3 w_{t-1..t+1} + b_3))
        question  q_t = LSTM(p_1 .. p_t)

    Differences from the paper, all as in the authors' code: tanh follows the embedding, and a window of words is
    centered at its place instead of starting there. The phrase level is not zero at padding (from the biases, and from
    windows that reach a word). Every reader masks it there, except the authors' parallel co-attention.

    Args:
        num_words: see `TokenEmbedding`.
        question_dim: see `TokenEmbedding`; given embeddings pass through a linear map.
        dim: width D of all three levels.
        num_layers: layers of the LSTM.
        dropout: dropout on the word and the phrase level, and between and after the layers of the LSTM.
    """

    def __init__(
        self,
        *,
        num_words: int | None = None,
        question_dim: int | None = None,
        dim: int,
        num_layers: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_words, self.question_dim, self.dim = num_words, question_dim, dim
        self.num_layers, self.dropout = num_layers, dropout
        self.embedding = TokenEmbedding(num_words=num_words, question_dim=question_dim, dim=dim)
        self.windows = nn.ModuleList(nn.Conv1d(dim, dim, size, padding=size // 2) for size in (1, 2, 3))
        self.recurrences = Recurrences(dim, dim, num_layers=num_layers, dropout=dropout)
        self.drop = Dropout(dropout)

    def forward(self, question: Tensor, mask: Tensor) -> Question:
        """Encode `question` (B, T) or (B, T, E) with its mask (B, T), right-padded.

        The tokens are those of the question level; the summary is its last state.
        """
        word = self.drop(self.embedding(question, mask).tanh())  # (B, T, D)
        # A window of two over T places, padded at both ends, has T + 1 results: the last one belongs to no place.
        grams = [window(word.mT)[..., : word.shape[1]] for window in self.windows]  # each (B, D, T)
        phrase = self.drop(torch.stack(grams).amax(0).mT.tanh())  # (B, T, D)
        tokens, summary = self.recurrences(phrase, mask)  # (B, T, D), (B, D)
        tokens = self.drop(tokens)
        return Question(tokens, (word, phrase, tokens), self.drop(summary))


class HierarchicalCoAttention(nn.Module):
    """One co-attention pooling per level of the question, each with its own weights, over the same regions.

    See Lu et al. 2016, arXiv 1606.00061, section 3.3.

    Args:
        poolings: one for each of the word, phrase and question levels.

    Raises:
        ValueError: the number of poolings is not three.
    """

    def __init__(self, poolings: Sequence[CoAttentionPooling]) -> None:
        super().__init__()
        if len(poolings) != len(LEVELS):
            raise ValueError(f"one pooling for each of {', '.join(LEVELS)}, got {len(poolings)}")
        self.poolings = nn.ModuleList(poolings)

    def forward(
        self,
        question: Question,
        regions: Tensor,
        question_mask: Tensor,
        region_mask: Tensor,
        *,
        need_weights: bool = False,
    ) -> CoAttentionOutput:
        """Pool each of `question.levels`, (B, T, question_dim), with `regions` (B, R, region_dim).

        Returns a pair of vectors per level and the unchanged sequences. Maps are named `<level>.pooling.<name>`.

        Raises:
            ValueError: the question encoder returns another number of levels.
        """
        if len(question.levels) != len(LEVELS):
            raise ValueError(f"this co-attention reads the levels {', '.join(LEVELS)}, got {len(question.levels)}")
        pooled, maps = [], Maps()
        for name, pooling, level in zip(LEVELS, self.poolings, question.levels, strict=True):
            q, v, level_maps = pooling(level, regions, question_mask, region_mask)
            pooled.append((q, v))
            if need_weights:
                maps |= prefix_maps(f"{name}.{POOLING}", level_maps)
        return CoAttentionOutput(question.tokens, regions, tuple(pooled), maps)


class RecursiveHead(nn.Module):
    """Answer from several levels, each joined to the result of the level before it (Lu et al. 2016, eq. 7).

    With the pair (q_l, v_l) of each level, word, phrase and question in HieCoAtt (arXiv 1606.00061)::

        h_1 = tanh(W_1 (q_1 + v_1)),  h_l = tanh(W_l [q_l + v_l, h_{l-1}]),  logits = W h_L

    Args:
        dim: width of the vectors of each pair.
        num_answers: size A of the answer vocabulary.
        hidden_dim: width of h_l before the last level.
        joint_dim: width of h_L.
        num_levels: number of levels L.
        dropout: dropout before each linear map.
    """

    def __init__(
        self, dim: int, num_answers: int, *, hidden_dim: int, joint_dim: int, num_levels: int = 3, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.dim, self.num_answers, self.hidden_dim, self.joint_dim = dim, num_answers, hidden_dim, joint_dim
        self.num_levels, self.dropout = num_levels, dropout
        widths = [hidden_dim] * (num_levels - 1) + [joint_dim]
        self.levels = nn.ModuleList(
            nn.Linear(dim + (widths[level - 1] if level else 0), width) for level, width in enumerate(widths)
        )
        self.drop = Dropout(dropout)
        self.classify = nn.Linear(joint_dim, num_answers)

    def forward(
        self, attended: CoAttentionOutput, question: Question, question_mask: Tensor, region_mask: Tensor
    ) -> HeadOutput:
        """Score the answers from `attended.pooled`: logits (B, A), no maps. See `ClassifierHead.forward`.

        Raises:
            ValueError: the co-attention returns another number of pairs.
        """
        if len(attended.pooled) != self.num_levels:
            raise ValueError(f"this head reads {self.num_levels} pooled pairs, got {len(attended.pooled)}")
        hidden: list[Tensor] = []
        for level, (q, v) in zip(self.levels, attended.pooled, strict=True):
            hidden = [level(self.drop(torch.cat((q + v, *hidden), -1))).tanh()]  # (B, hidden_dim or joint_dim)
        return HeadOutput(self.classify(self.drop(hidden[0])), {})


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
    standardized: bool = False,
    faithful: bool = False,
    padded_tokens: int | None = None,
    padded_regions: int | None = None,
) -> VQAModel:
    """HieCoAtt (Lu et al. 2016, arXiv 1606.00061): co-attention at the word, phrase and question level.

    The question is encoded at three levels (`HierarchicalQuestionEncoder`, eq. 1-2). Each level is pooled together with
    the same regions `tanh(W v)`, the cells of a grid: both sides at once (`ParallelPooling`, eq. 3-5) or alternately
    (`AlternatingPooling`, eq. 6). The answer combines the word, phrase and question levels (`RecursiveHead`, eq. 7).
    The numbers are those of the authors' code for VQA (for COCO-QA `joint_dim` is 512). Weights are initialized as by
    torch, not as by Torch7.
    Published: 61.8 % on VQA v1 test-dev and 62.1 % on test-standard, open-ended, with ResNet's features; 60.5 % with
    VGG's (abstract).

    Differences from the paper that the authors' code has too are listed at the bricks. Deliberate differences from that
    code: padding is masked everywhere unless `faithful`, and no gradient passes through the LSTM's steps after a
    question's end (in the original some does). Word vectors from a file must be `dim` wide.

    Args:
        region_dim: width of the region features.
        num_answers: size of the answer vocabulary.
        num_words: size of the question vocabulary, for token ids.
        question_dim: width of given token embeddings. Give exactly one of the two.
        coattention: "parallel" or "alternating".
        dim: model width.
        attention_dim: width inside the co-attention; `dim` when None.
        hidden_dim: width of the answer's encoding at the word and phrase level; `dim` when None.
        joint_dim: width of the answer's encoding at the question level.
        recurrent_layers: layers of the LSTM.
        dropout: dropout throughout.
        standardized: z-score region features with statistics of the training images; the original does not.
        faithful: show padding as the authors' code does: regions are not masked, and parallel co-attention does not
            mask the question's padding in its affinity. Alternating co-attention always masks the question.
        padded_tokens: length to which `faithful` pads or cuts questions, 26 in the original; None keeps their length.
        padded_regions: number to which `faithful` pads or cuts regions; None, as in the original, keeps the full grid.

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
            region_dim, dim=dim, activation="tanh", dropout=dropout, standardized=standardized
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
