from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pytest

from coattn.explain.attribution import find_method, neighbors
from coattn.explain.methods import METHODS
from coattn.explain.methods.attention import attention
from coattn.explain.methods.dependence import SHARPNESS, dependence, random_order_values
from coattn.explain.methods.rollout import rollout
from coattn.explain.methods.shapley import NUM_ORDERS, shapley
from coattn.explain.methods.surrogate import surrogate

EFFECTS = np.array([2.0, -1.0, 0.0, 0.5])


def additive(kept: np.ndarray) -> np.ndarray:
    return kept @ EFFECTS + 3.0


@pytest.mark.parametrize("count", [4, 9])
def test_dependence_is_the_effect_of_each_part(count: int) -> None:
    effects = np.resize(EFFECTS, count)
    np.testing.assert_allclose(dependence(lambda kept: kept @ effects + 3.0, count), effects)

    def either(kept: np.ndarray) -> np.ndarray:  # parts 0 and 1 hold the same evidence: left out, neither is missed
        return (kept[:, 0] | kept[:, 1]).astype(float)

    np.testing.assert_allclose(dependence(either, count), [0.5, 0.5, *[0] * (count - 2)], atol=1e-12)

    def both(kept: np.ndarray) -> np.ndarray:  # parts 0 and 1 matter together: alone, neither has an effect
        return (kept[:, 0] & kept[:, 1]).astype(float)

    np.testing.assert_allclose(dependence(both, count), [0.5, 0.5, *[0] * (count - 2)], atol=1e-12)


@pytest.mark.parametrize("sharpness", [0.0, SHARPNESS])
def test_few_parts_are_followed_in_every_order(sharpness: float) -> None:
    value = np.random.default_rng(0).random(size=2**5)

    def of(kept: np.ndarray) -> np.ndarray:
        return value[kept @ (1 << np.arange(5))]

    def one(parts: Sequence[int]) -> float:
        return float(of(np.isin(np.arange(5), parts)[None])[0])

    values, weights = [], []
    for order in permutations(range(5)):
        added = [one(order[:count]) for count in range(6)]
        removed = [one(order[count:]) for count in range(6)]
        steps = {part: (added[k + 1] - added[k] + removed[k] - removed[k + 1]) / 2 for k, part in enumerate(order)}
        values.append([steps[part] for part in range(5)])
        weights.append(np.exp(sharpness * (np.mean(added) - np.mean(removed))))
    found = random_order_values(of, 5, sharpness)
    np.testing.assert_allclose(found, np.average(values, axis=0, weights=weights))
    assert found.sum() == pytest.approx(value[-1] - value[0])


def test_orders_of_equal_weight_are_shapley_values() -> None:
    def majority(kept: np.ndarray) -> np.ndarray:  # of votes 2, 1, 1 and 0, three are needed
        return (kept @ np.array([2, 1, 1, 0]) >= 3).astype(float)

    np.testing.assert_allclose(random_order_values(majority, 4, 0.0), [2 / 3, 1 / 6, 1 / 6, 0], atol=1e-12)
    sharp = random_order_values(majority, 4)
    assert sharp[0] > sharp[1]
    assert sharp[1:] == pytest.approx([sharp[1], sharp[1], 0])


def test_shapley_values_are_exact_for_additive_and_shared_effects() -> None:
    np.testing.assert_allclose(shapley(additive, 4), EFFECTS)
    shares = shapley(lambda kept: (kept[:, 0] & kept[:, 1]).astype(float), 3)
    np.testing.assert_allclose(shares, [0.5, 0.5, 0])  # by symmetry: an order and its reverse are both drawn


@pytest.mark.parametrize(
    ("method", "count", "cost"),
    [(dependence, 4, 2**4), (dependence, 9, 2 * 9 + 2), (shapley, 4, NUM_ORDERS * 3 + 2), (surrogate, 4, 64)],
)
def test_cost_in_passes(method: object, count: int, cost: int) -> None:
    passes = []
    effects = np.resize(EFFECTS, count)
    method(lambda kept: passes.append(len(kept)) or kept @ effects, count)  # type: ignore[operator]
    assert sum(passes) == cost


def test_a_surrogate_finds_the_order_of_effects() -> None:
    found = surrogate(additive, 4)
    assert np.argsort(-found).tolist() == np.argsort(-EFFECTS).tolist()
    np.testing.assert_allclose(found, EFFECTS, atol=0.2)


def test_attention_is_the_mean_of_the_last_pooling() -> None:
    heads = np.array([[[0.5, 0.5, 0.0]], [[0.1, 0.1, 0.8]]])
    np.testing.assert_allclose(attention({"pooling.regions": heads}, "regions"), [0.3, 0.3, 0.4])
    with pytest.raises(ValueError, match="no attention map over the question"):
        attention({"pooling.regions": heads}, "question")


def test_rollout_follows_attention_back_to_the_inputs() -> None:
    maps = {
        "layers.0.regions_to_regions": np.array([[[0.0, 1.0], [0.0, 1.0]]]),
        "layers.0.regions_to_question": np.array([[[1.0, 0.0], [1.0, 0.0]]]),
        "pooling.regions": np.array([[[1.0, 0.0]]]),
    }
    # Region 0 holds itself and region 1 in equal parts; then half of it is replaced by word 0.
    np.testing.assert_allclose(rollout(maps, "regions"), [0.5, 0.5])
    np.testing.assert_allclose(rollout(maps, "question"), [1.0, 0.0])


def test_many_regions_are_grouped_with_their_neighbors() -> None:
    steps = np.arange(12) / 12
    grid = np.array([[x, y, x + 1 / 12, y + 1 / 12] for y in steps for x in steps])
    groups = neighbors(grid, 64)
    assert len(groups) == 64
    assert sorted(np.concatenate(groups).tolist()) == list(range(144))
    centers = (grid[:, :2] + grid[:, 2:]) / 2
    assert max(np.ptp(centers[group], 0).max() for group in groups) <= 2.5 / 12
    assert [group.tolist() for group in neighbors(grid[:3], 64)] == [[0], [1], [2]]


def test_every_method_states_cost_weakness_and_source() -> None:
    for method in METHODS.values():
        assert (method.from_value is None) != (method.from_maps is None)
        assert method.title
        assert method.passes
        assert method.weakness.endswith(".")
        assert any(letter.isdigit() for letter in method.source)
    with pytest.raises(ValueError, match="no method of explanation 'shaply'; did you mean 'shapley'"):
        find_method("shaply")
