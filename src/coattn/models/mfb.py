"""MFB (Yu et al. 2017, arXiv 1708.01471) and MFH (Yu et al. 2018, arXiv 1708.03619)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coattn.nn import PlainRegionEncoder, RecurrentQuestionEncoder, VQAModel
from coattn.nn.coattention import CoAttentionOutput
from coattn.nn.heads import HeadOutput
from coattn.nn.layers import Dropout, GlimpsePooling
from coattn.nn.maps import POOLING, name_maps
from coattn.nn.question import Question

from .original_padding import OriginalPadding


class FactorizedBilinear(nn.Module):
    """One block of MFB: expand both sides to K * O, multiply, sum over K, signed square root, L2 norm.

    `z = s / ||s||` with `s = sign(p) sqrt|p|`, `p_o = sum_k e_ok` and `e = dropout(P v * P' q)`. A block that follows
    another multiplies its `e` by that one's: MFH's higher order.

    Args:
        question_dim: width of the question vector.
        region_dim: width of the regions.
        joint_dim: width O.
        num_factors: factors K.
        dropout: dropout on the expanded product.
    """

    def __init__(
        self, question_dim: int, region_dim: int, *, joint_dim: int, num_factors: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.joint_dim = joint_dim
        self.question = nn.Linear(question_dim, num_factors * joint_dim)
        self.regions = nn.Linear(region_dim, num_factors * joint_dim)
        self.drop = Dropout(dropout)

    def forward(
        self, question: Tensor, regions: Tensor, mask: Tensor | None = None, before: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Fuse a question (B, question_dim) with each of the regions (B, R, region_dim).

        Args:
            question: (B, question_dim).
            regions: (B, R, region_dim).
            mask: (B, R) bool, True = real; None means that all are real.
            before: (B, R, O * K), the expanded product of the block before.

        Returns:
            z (B, R, O), of norm 1 over all real regions *together*, zeros at padding; and the expanded product
            (B, R, O * K).
        """
        product = self.question(question)[:, None] * self.regions(regions)  # (B, R, O * K)
        expanded = self.drop(product if before is None else product * before)
        pooled = expanded.unflatten(-1, (self.joint_dim, -1)).sum(-1)  # (B, R, O)
        if mask is not None:
            pooled = pooled * mask[:, :, None]
        # The gradient of sign(p) sqrt|p| at an exact zero is NaN; that of this form is 0.
        rooted = pooled.relu().sqrt() - (-pooled).relu().sqrt()
        return F.normalize(rooted.flatten(1)).view_as(rooted), expanded


class FactorizedCoAttention(nn.Module):
    """MFB's co-attention (arXiv 1708.01471): the question attends to itself, then guides the attention to the regions.

    `q = [sum_t a_t q_t]` with `a = softmax(MLP(q_t))`; `v = [sum_r b_r v_r]` with `b = softmax(MLP(z_r))`,
    `z = MFB(v_r, q)`; glimpses are concatenated. Deliberate difference: padding is masked in the softmaxes and in the
    norm of z, which is taken over all regions together.

    Args:
        question_dim: width of the question tokens.
        region_dim: width of the regions.
        hidden_dim: width inside the MLPs.
        joint_dim: width O of z.
        num_factors: factors K.
        question_glimpses: maps over the question.
        region_glimpses: maps over the regions.
        dropout: dropout in the MLPs and on the expanded product.
    """

    def __init__(
        self,
        question_dim: int,
        region_dim: int,
        *,
        hidden_dim: int,
        joint_dim: int,
        num_factors: int,
        question_glimpses: int = 1,
        region_glimpses: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.question_dim, self.region_dim, self.hidden_dim = question_dim, region_dim, hidden_dim
        self.joint_dim, self.num_factors, self.dropout = joint_dim, num_factors, dropout
        self.question_glimpses, self.region_glimpses = question_glimpses, region_glimpses
        self.question_pooling = GlimpsePooling(
            question_dim, hidden_dim=hidden_dim, num_glimpses=question_glimpses, dropout=dropout
        )
        self.fuse = FactorizedBilinear(
            question_glimpses * question_dim,
            region_dim,
            joint_dim=joint_dim,
            num_factors=num_factors,
            dropout=dropout,
        )
        self.region_pooling = GlimpsePooling(
            joint_dim, hidden_dim=hidden_dim, num_glimpses=region_glimpses, dropout=dropout
        )

    def forward(
        self,
        question: Question,
        regions: Tensor,
        question_mask: Tensor,
        region_mask: Tensor,
        *,
        need_weights: bool = False,
    ) -> CoAttentionOutput:
        """Pool the tokens of `question`, then `regions` (B, R, region_dim).

        The pooled pair is (B, question_glimpses * question_dim) and (B, region_glimpses * region_dim). Maps:
        `pooling.question` (B, G, 1, T), `pooling.regions` (B, G, 1, R).
        """
        regions = regions.to(question.tokens.dtype)
        # The question attends to itself.
        pooled_question, question_map = self.question_pooling(question.tokens, question_mask)
        # The regions are pooled by scores of their fusion with the pooled question.
        fused, _ = self.fuse(pooled_question, regions, region_mask)  # (B, R, O)
        pooled_regions, region_map = self.region_pooling(regions, region_mask, fused)
        maps = name_maps(POOLING, question=question_map, regions=region_map) if need_weights else {}
        return CoAttentionOutput(question.tokens, regions, ((pooled_question, pooled_regions),), maps)


class FactorizedHead(nn.Module):
    """Fuse the pooled pair by a chain of `FactorizedBilinear` blocks, concatenate their z, classify.

    Args:
        question_dim: width of the pooled question.
        region_dim: width of the pooled regions.
        num_answers: size A of the answer vocabulary.
        joint_dim: width O of each block.
        num_factors: factors K.
        num_blocks: number of blocks: 1 for MFB, more for MFH of that order.
        dropout: dropout on the expanded products.
    """

    def __init__(
        self,
        question_dim: int,
        region_dim: int,
        num_answers: int,
        *,
        joint_dim: int,
        num_factors: int,
        num_blocks: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.question_dim, self.region_dim, self.num_answers = question_dim, region_dim, num_answers
        self.joint_dim, self.num_factors, self.num_blocks, self.dropout = joint_dim, num_factors, num_blocks, dropout
        self.blocks = nn.ModuleList(
            FactorizedBilinear(question_dim, region_dim, joint_dim=joint_dim, num_factors=num_factors, dropout=dropout)
            for _ in range(num_blocks)
        )
        self.classify = nn.Linear(num_blocks * joint_dim, num_answers)

    def forward(
        self, attended: CoAttentionOutput, question: Question, question_mask: Tensor, region_mask: Tensor
    ) -> HeadOutput:
        """Score the answers, logits (B, A), from the one pooled pair of `attended`."""
        ((pooled_question, pooled_regions),) = attended.pooled
        joint, expanded = [], None
        for block in self.blocks:
            z, expanded = block(pooled_question, pooled_regions[:, None], before=expanded)
            joint.append(z[:, 0])  # (B, O)
        return HeadOutput(self.classify(torch.cat(joint, -1)), {})


def mfb(
    *,
    region_dim: int,
    num_answers: int,
    num_words: int | None = None,
    question_dim: int | None = None,
    embedding_dim: int = 300,
    dim: int = 1024,
    hidden_dim: int = 512,
    joint_dim: int = 1000,
    num_factors: int = 5,
    num_blocks: int = 1,
    question_glimpses: int = 2,
    region_glimpses: int = 2,
    dropout: float = 0.1,
    faithful: bool = False,
    padded_tokens: int | None = None,
    padded_regions: int | None = None,
) -> VQAModel:
    """MFB with co-attention (arXiv 1708.01471) as implemented by openvqa; with two blocks MFH (arXiv 1708.03619).

    An LSTM over the word vectors, question attention, image attention guided by it, and factorized bilinear pooling of
    the two; a linear classifier. Equations: `FactorizedBilinear`, `FactorizedCoAttention`. Published by openvqa: MFB
    65.35 % and MFH 66.18 % on VQA v2 val, trained on train; 68.29 % and 69.11 % on test-dev, trained on train+val. (The
    authors report 65.09 % and 66.12 % on test-dev, with grid features and Visual Genome.) Deliberate differences:
    padding is masked in both attentions and in the norm over all regions. As in openvqa, the image attention
    sums the features after dropout.

    Args:
        region_dim: width of the region features.
        num_answers: size of the answer vocabulary.
        num_words: size of the question vocabulary, for token ids.
        question_dim: width of given token embeddings. Give exactly one of the two.
        embedding_dim: width of word embeddings.
        dim: width of the question tokens.
        hidden_dim: width inside the attentions' MLPs.
        joint_dim: width of the bilinear pooling, O.
        num_factors: factors of the bilinear pooling, K.
        num_blocks: blocks of the last bilinear pooling: 1 for MFB, 2 for MFH as published.
        question_glimpses: maps over the question.
        region_glimpses: maps over the regions.
        dropout: dropout throughout, on the region features too.
        faithful: show padding as the authors' code does: it is masked nowhere.
        padded_tokens: length to which `faithful` pads or cuts questions; None keeps their length.
        padded_regions: number to which `faithful` pads or cuts regions; None keeps their number.
    """
    model = VQAModel(
        RecurrentQuestionEncoder(
            num_words=num_words,
            question_dim=question_dim,
            embedding_dim=embedding_dim,
            dim=dim,
            dropout=dropout,
        ),
        region_encoder=PlainRegionEncoder(region_dim, dropout=dropout),
        coattention=FactorizedCoAttention(
            dim,
            region_dim,
            hidden_dim=hidden_dim,
            joint_dim=joint_dim,
            num_factors=num_factors,
            question_glimpses=question_glimpses,
            region_glimpses=region_glimpses,
            dropout=dropout,
        ),
        head=FactorizedHead(
            question_glimpses * dim,
            region_glimpses * region_dim,
            num_answers,
            joint_dim=joint_dim,
            num_factors=num_factors,
            num_blocks=num_blocks,
            dropout=dropout,
        ),
    )
    if not faithful:
        return model
    return OriginalPadding(model, question=True, regions=True, num_tokens=padded_tokens, num_regions=padded_regions)


# MFH of order two, as published; every size of `mfb` can be given.
mfh = partial(mfb, num_blocks=2)
