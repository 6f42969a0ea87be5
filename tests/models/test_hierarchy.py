"""The parts of HieCoAtt: a question at three levels, poolings of both sides, an answer from level to level."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from coattn import models
from coattn.models.hiecoatt import HierarchicalCoAttention, HierarchicalQuestionEncoder, RecursiveHead
from coattn.nn import (
    AlternatingPooling,
    CoAttentionOutput,
    CoAttentionPooling,
    ParallelPooling,
    Question,
)
from coattn.nn.layers import lengths_to_mask

MASK = lengths_to_mask(torch.tensor([4, 2, 0]), 4)
IDS = torch.tensor([[3, 4, 5, 6], [7, 8, 0, 0], [0, 0, 0, 0]])
REGION_MASK = lengths_to_mask(torch.tensor([5, 2, 3]), 5)
POOLINGS = [ParallelPooling, AlternatingPooling]


def encoder() -> HierarchicalQuestionEncoder:
    torch.manual_seed(0)
    return HierarchicalQuestionEncoder(num_words=10, dim=6)


def sides() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(3, 4, 6) * MASK[..., None], torch.randn(3, 5, 8) * REGION_MASK[..., None], MASK, REGION_MASK


def make(kind: type[CoAttentionPooling]) -> CoAttentionPooling:
    torch.manual_seed(2)
    return kind(6, 8, hidden_dim=7)  # type: ignore[call-arg]


def test_a_phrase_hears_its_neighbours_and_the_question_all_before_it() -> None:
    model = encoder()
    before, after = (model(ids, MASK[:1]).levels for ids in (IDS[:1], IDS[:1].where(IDS[:1] != 5, 9)))
    # The third word of four changes: phrases reach one word to either side, the LSTM everything that follows.
    for level, expected in zip(range(3), ([2], [1, 2, 3], [1, 2, 3]), strict=True):
        changed = (before[level] != after[level]).any(-1)[0]
        assert changed.nonzero().flatten().tolist() == expected


def test_levels_ignore_more_padding_and_the_summary_is_the_last_state() -> None:
    model = encoder()
    encoded = model(IDS, MASK)
    longer = model(nn.functional.pad(IDS, (0, 3), value=9), nn.functional.pad(MASK, (0, 3)))
    for level, more in zip(encoded.levels, longer.levels, strict=True):
        torch.testing.assert_close(more[:, :4][MASK], level[MASK], atol=1e-6, rtol=0)
    assert torch.equal(encoded.tokens, encoded.levels[2])
    assert (encoded.tokens[~MASK] == 0).all()
    assert torch.equal(encoded.summary, torch.stack([encoded.tokens[0, 3], encoded.tokens[1, 1], torch.zeros(6)]))


def test_given_embeddings_in_place_of_ids() -> None:
    encoded = HierarchicalQuestionEncoder(question_dim=5, dim=6)(torch.randn(3, 4, 5), MASK)
    assert [level.shape for level in encoded.levels] == [(3, 4, 6)] * 3
    with pytest.raises(ValueError, match="either num_words"):
        HierarchicalQuestionEncoder(dim=6)


@pytest.mark.parametrize("kind", POOLINGS)
def test_a_pooling_gives_what_its_maps_say(kind: type[CoAttentionPooling]) -> None:
    question, regions, question_mask, region_mask = sides()
    out = make(kind)(question, regions, question_mask, region_mask)
    torch.testing.assert_close((out.maps["question"][:, 0] @ question)[:, 0], out.question)
    torch.testing.assert_close((out.maps["regions"][:, 0] @ regions)[:, 0], out.regions)
    for name, weights in out.maps.items():
        mask = question_mask if name.endswith("question") else region_mask
        torch.testing.assert_close(weights.sum(-1)[:, 0, 0], mask.any(1).float())
        assert (weights[:, 0, 0][~mask] == 0).all()


@pytest.mark.parametrize("kind", POOLINGS)
def test_each_side_of_a_pooling_is_guided_by_the_other(kind: type[CoAttentionPooling]) -> None:
    pooling, (question, regions, *both) = make(kind), sides()
    maps = pooling(question, regions, *both).maps
    assert not torch.allclose(pooling(question.flip(-1), regions, *both).maps["regions"][:2], maps["regions"][:2])
    assert not torch.allclose(pooling(question, regions.flip(-1), *both).maps["question"][:2], maps["question"][:2])


def test_alternating_pooling_goes_from_question_to_image_to_question() -> None:
    pooling, (question, regions, *both) = make(AlternatingPooling), sides()
    maps, other = pooling(question, regions, *both).maps, pooling(question, regions.flip(-1), *both).maps
    assert list(maps) == ["first.question", "regions", "question"]
    assert torch.equal(other["first.question"], maps["first.question"])


def test_parallel_pooling_hears_of_padding_only_where_the_affinity_is_not_masked() -> None:
    question, regions, question_mask, region_mask = sides()
    noise = question + torch.randn(3, 4, 6) * ~question_mask[..., None]
    for masked in (True, False):
        torch.manual_seed(2)
        pooling = ParallelPooling(6, 8, hidden_dim=7, mask_affinity=masked)
        before, after = (pooling(q, regions, question_mask, region_mask).regions[:2] for q in (question, noise))
        assert torch.allclose(before, after, atol=1e-6) == masked


def test_what_does_not_fit_is_refused() -> None:
    poolings = [make(ParallelPooling) for _ in range(3)]
    with pytest.raises(ValueError, match="word, phrase, question, got 2"):
        HierarchicalCoAttention(poolings[:2])
    question, *rest = sides()
    with pytest.raises(ValueError, match="word, phrase, question, got 1"):
        HierarchicalCoAttention(poolings)(Question(question, (question,), question[:, 0]), *rest)
    head = RecursiveHead(6, 4, hidden_dim=5, joint_dim=7)
    attended = CoAttentionOutput(question, rest[0], (), {})
    with pytest.raises(ValueError, match="3 pooled pairs, got 0"):
        head(attended, Question(question, (), question[:, 0]), MASK, REGION_MASK)
    with pytest.raises(ValueError, match="'dense'"):
        models.PRESETS["hiecoatt_parallel"](region_dim=8, num_answers=4, num_words=10, coattention="dense")


def test_an_answer_reads_every_level() -> None:
    torch.manual_seed(3)
    head = RecursiveHead(6, 4, hidden_dim=5, joint_dim=7)
    pairs = [(torch.randn(2, 6), torch.randn(2, 6)) for _ in range(3)]
    question = Question(torch.zeros(2, 1, 6), (), torch.zeros(2, 6))

    def logits(pooled: list[tuple[Tensor, Tensor]]) -> Tensor:
        mask = torch.ones(2, 1, dtype=torch.bool)
        return head(CoAttentionOutput(question.tokens, question.tokens, tuple(pooled), {}), question, mask, mask).logits

    before = logits(pairs)
    for level, (q, v) in enumerate(pairs):
        for changed in ((q + 1, v), (q, v + 1)):
            assert not torch.allclose(logits([*pairs[:level], changed, *pairs[level + 1 :]]), before)
