from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from coattn.training.data.batches import Ragged
from coattn.training.data.order import draw_flips
from coattn.training.data.plan import BatchPlan, evaluation_batches, padding_share, share


@st.composite
def plans(draw: st.DrawFn) -> BatchPlan:
    accumulate = draw(st.integers(1, 3))
    lengths = draw(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), min_size=accumulate, max_size=200))
    regions, tokens = np.array(lengths).T
    size, pool, seed = draw(st.integers(2, 12)), draw(st.integers(1, 8)), draw(st.integers(0, 2**40))
    return BatchPlan(regions, tokens, size, seed=seed, accumulate=accumulate, pool=pool)


@given(plans(), st.integers(0, 3))
@hypothesis_settings(max_examples=60, deadline=None)
def test_epoch_is_partition_into_full_steps(plan: BatchPlan, epoch: int) -> None:
    batches = plan.epoch(epoch)
    assert len(batches) == len(plan)
    assert sorted(np.concatenate([batch for batch, _ in batches])) == list(range(len(plan.regions)))
    assert all(0 < len(batch) <= plan.batch_size for batch, _ in batches)
    for first in range(0, len(batches), plan.accumulate):
        step = batches[first : first + plan.accumulate]
        # Lightning divides by `accumulate`: together the batches weigh each of the step's questions the same.
        assert all(divisor * plan.accumulate == sum(len(batch) for batch, _ in step) for _, divisor in step)


@given(plans(), st.integers(1, 4))
@hypothesis_settings(max_examples=60, deadline=None)
def test_shares_of_all_ranks_make_the_batch(plan: BatchPlan, num_ranks: int) -> None:
    for batch, _ in plan.epoch(0):
        if len(batch) < num_ranks:
            with pytest.raises(ValueError, match="cannot be shared"):
                share(batch, 0, num_ranks)
        else:
            shares = [share(batch, rank, num_ranks) for rank in range(num_ranks)]
            assert sorted(np.concatenate(shares)) == sorted(batch)
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_accumulating_cuts_the_same_steps() -> None:
    random = np.random.default_rng(0)
    sizes = random.integers(1, 30, 500), random.integers(1, 9, 500)
    whole = BatchPlan(*sizes, 64, seed=5)
    halves = BatchPlan(*sizes, 32, seed=5, accumulate=2)
    cut = [batch for batch, _ in halves.epoch(2)]
    for index, (batch, _) in enumerate(whole.epoch(2)):
        assert np.array_equal(batch, np.concatenate(cut[2 * index : 2 * index + 2]))


def test_order_is_stable_and_differs_between_epochs_and_seeds() -> None:
    plan = BatchPlan(np.full(10, 4), np.full(10, 3), 4, seed=7)
    # Written down: this order must never change, or checkpoints in the midst of an epoch go on wrongly.
    assert [batch.tolist() for batch, _ in plan.epoch(1)] == ORDER
    assert [batch.tolist() for batch, _ in plan.epoch(2)] != ORDER
    other = BatchPlan(plan.regions, plan.tokens, 4, seed=8)
    assert [batch.tolist() for batch, _ in other.epoch(1)] != ORDER


ORDER: list[list[int]] = [[4, 5, 1], [2, 6, 9, 3], [8, 0, 7]]


def test_pooling_saves_padding() -> None:
    random = np.random.default_rng(0)
    regions, tokens = random.integers(10, 100, 6400), random.integers(3, 15, 6400)

    def padding(pool: int) -> tuple[float, float]:
        return padding_share(
            regions, tokens, [batch for batch, _ in BatchPlan(regions, tokens, 64, pool=pool).epoch(0)]
        )

    assert min(padding(1)) > 0.35
    assert padding(16)[0] < 0.1
    assert padding(64)[0] < 0.06
    assert padding(64)[1] < 0.25


def test_batches_come_in_no_order_of_size() -> None:
    regions = np.repeat(np.arange(1, 33), 64)
    largest = [regions[batch].max() for batch, _ in BatchPlan(regions, regions, 16).epoch(0)]
    assert abs(np.corrcoef(largest, np.arange(len(largest)))[0, 1]) < 0.3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size must be"),
        ({"seed": -1}, "seed must not"),
        ({"accumulate": 11, "batch_size": 1}, "cannot be cut"),
    ],
)
def test_plan_refuses(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BatchPlan(**{"regions": np.ones(10), "tokens": np.ones(10), "batch_size": 2} | change)


def test_evaluation_takes_everything_once_largest_first() -> None:
    regions, tokens = np.array([3, 9, 5, 9, 1]), np.array([1, 2, 3, 4, 5])
    batches = evaluation_batches(regions, tokens, np.arange(5), 2)
    assert [batch.tolist() for batch in batches] == [[3, 1], [2, 0], [4]]
    assert evaluation_batches(regions[:0], tokens[:0], regions[:0], 2) == []


def test_evaluation_keeps_the_questions_of_an_image_together() -> None:
    images = np.array([7, 2, 7, 4, 2, 4])  # all of one size; image 4 has the longest question, then 7, then 2
    tokens = np.array([5, 3, 2, 1, 4, 9])
    (batch,) = evaluation_batches(np.full(6, 36), tokens, images, 6)
    assert images[batch].tolist() == [4, 4, 7, 7, 2, 2]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.integers(1, 3))
@hypothesis_settings(max_examples=60, deadline=None)
def test_padded_rows_are_the_rows(lengths: list[int], width: int) -> None:
    rows = np.arange(1, sum(lengths) * width + 1).reshape(-1, width)
    ragged = Ragged(rows, np.cumsum([0, *lengths]))
    padded, mask = ragged.padded(np.arange(len(lengths)))
    assert padded.shape == (len(lengths), max(*lengths, 1), width)
    assert mask.sum(axis=1).tolist() == lengths
    assert np.array_equal(padded[mask], rows)
    assert not padded[~mask].any()


def test_ragged_takes_rows_in_the_order_asked() -> None:
    ragged = Ragged.build([[1, 2], [], [3], [4, 5, 6]], np.int32)
    places, lengths = ragged.places(np.array([3, 1, 0, 3]))
    assert ragged.values[places].tolist() == [4, 5, 6, 1, 2, 4, 5, 6]
    assert lengths.tolist() == [3, 0, 2, 3]
    assert ragged.padded(np.array([2, 0]))[0].tolist() == [[3, 0], [1, 2]]
    assert ragged.lengths.tolist() == [2, 0, 1, 3]


def test_flips_are_half_and_keyed() -> None:
    flips = draw_flips(4000, seed=1, epoch=2)
    assert 0.46 < flips.mean() < 0.54
    assert np.array_equal(flips[:100], draw_flips(100, seed=1, epoch=2))
    assert not np.array_equal(flips, draw_flips(4000, seed=1, epoch=3))
    assert not np.array_equal(flips, draw_flips(4000, seed=2, epoch=2))
