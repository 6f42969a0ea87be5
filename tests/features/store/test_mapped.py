from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import LENGTHS, RECORD, write

from coattn.features.store.joined import JoinedStore
from coattn.features.store.reader import FeatureStore


@given(
    positions=st.lists(st.integers(0, len(LENGTHS) - 1), max_size=9),
    dtype=st.sampled_from(["float16", "float32", "int8"]),
    dim=st.sampled_from([1, 3, 4, 12]),  # rows that are whole words, and rows that are not
    given_buffer=st.booleans(),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_padded_rows_are_those_of_each_image(
    tmp_path: Path, positions: list[int], dtype: str, dim: int, given_buffer: bool
) -> None:
    store = write(tmp_path / "a.h5", dtype=dtype, dim=dim)
    longest = max([LENGTHS[position] for position in positions], default=0) or 1
    out = np.full(len(positions) * longest * dim + 5, 77, store.read_dtype) if given_buffer else None
    got = store.read_padded(np.array(positions, int), out=out)
    assert got.features.shape == (len(positions), longest, dim)
    assert got.features.dtype == store.read_dtype
    assert got.lengths.tolist() == [LENGTHS[position] for position in positions]
    for row, position in enumerate(positions):
        one, length = store.read(position), LENGTHS[position]
        np.testing.assert_array_equal(got.features[row, :length].astype(np.float32), one.features)
        np.testing.assert_array_equal(got.boxes[row, :length], one.boxes)
        np.testing.assert_array_equal(got.sizes[row], one.size)
        assert not got.features[row, length:].any()
        assert not got.boxes[row, length:].any()
    if out is not None:
        assert (out[-5:] == 77).all()
        assert got.features.size == 0 or np.shares_memory(got.features, out)


def test_bits_are_kept(tmp_path: Path) -> None:
    """Values of no arithmetic: NaN with a payload, negative zero."""
    write(tmp_path / "a.h5", dim=4)
    store = FeatureStore(tmp_path / "a.h5", check_finite=False)
    with (tmp_path / "a.h5").open("r+b") as file:
        file.seek(store.parts[0].columns["features"].offset)
        file.write(bits := np.array([0x7E01, 0x8000, 0xFC00, 0x0001], "<u2").tobytes())
    assert store.read_padded(np.array([0])).features[0, 0].tobytes() == bits
    assert store.read_flat(np.array([2, 0])).features[1].tobytes() == bits


def test_joined_stores_read_as_one(tmp_path: Path) -> None:
    whole, parts = (
        write(tmp_path / "whole.h5"),
        [write(tmp_path / f"{name}.h5", prefix=prefix) for name, prefix in (("a", ""), ("b", "b"))],
    )
    joined, number = JoinedStore(parts), len(LENGTHS)
    order = np.array([number + 5, 3, number, 3, 0])
    assert all(map(np.array_equal, joined.read_flat(order), whole.read_flat(order % number)))
    assert all(map(np.array_equal, joined.read_padded(order), whole.read_padded(order % number)))
    assert joined.index("b4") == number + 4
    assert "9" not in joined
    with pytest.raises(ValueError, match="no features of image '9'"):
        joined.index("9")
    for mine, theirs in zip(joined.statistics(order), whole.statistics(order % number), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    other = write(tmp_path / "other.h5", record={**RECORD, "name": "foreign"})
    with pytest.raises(ValueError, match="another extractor"):
        JoinedStore([whole, other])


def test_joined_stores_of_several_types_give_float32(tmp_path: Path) -> None:
    stores = [write(tmp_path / f"{dtype}.h5", dtype=dtype, prefix=dtype) for dtype in ("float16", "int8", "float32")]
    joined = JoinedStore(stores)
    positions = np.array([3, len(LENGTHS) + 3, 2 * len(LENGTHS) + 3])
    expected = np.stack([store.read(3).features for store in stores])
    got = joined.read_padded(positions).features
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(joined.read_flat(positions).features, expected.reshape(-1, 12))
    assert joined.read_padded(positions[:1]).features.dtype == np.float32, "whichever images come together"


def test_threads_share_a_store_with_few_maps(tmp_path: Path) -> None:
    joined = JoinedStore([write(tmp_path / f"{number}.h5", prefix=f"{number}.", seed=number) for number in range(6)])
    expected, most = joined.read_flat(np.arange(len(joined))), 2
    joined.unmap()
    joined._most_open = most

    def same(seed: int) -> bool:
        order = np.random.default_rng(seed).permutation(len(joined))
        found = [joined.read_flat(order[place : place + 1]).features for place in np.argsort(order)]
        return np.array_equal(np.concatenate(found), expected.features)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(same, range(12)))
    # Threads that open files at the same moment exceed the limit together; the next file that is opened corrects it.
    for number in range(len(joined.parts)):
        joined._opened(number)
    joined._most_open = 1
    missing = next(number for number in range(len(joined.parts)) if number not in joined._open)
    joined._opened(missing)
    assert list(joined._open) == [missing]
