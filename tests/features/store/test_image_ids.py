from __future__ import annotations

import pickle
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coattn.features.store.image_ids import ImageIds

COLLIDING = ["plumless", "buckeroo"]


@given(names=st.lists(st.text(st.characters(codec="utf-8"), max_size=4)), others=st.lists(st.text(max_size=4)))
def test_ids_are_those_of_a_list(names: list[str], others: list[str]) -> None:
    ids = ImageIds.of(names)
    assert ids == names
    assert (len(ids), list(ids), ids[1:], ids[::-1]) == (len(names), names, names[1:], names[::-1])
    places = {name: place for place, name in reversed(list(enumerate(names)))}
    asked = [*others, *names]
    assert ids.find_all(asked).tolist() == [ids.find(name) for name in asked] == [places.get(n, -1) for n in asked]
    assert ids.first_repeated() == next((name for place, name in enumerate(names) if name in names[:place]), None)
    known = ImageIds.of([name for name in others if name.isascii()])
    assert ids.shared(known) == [name for name in names if name in list(known)]
    assert pickle.loads(pickle.dumps(ids)) == ImageIds.joined([ImageIds.of(names[:2]), ImageIds.of(names[2:])]) == ids


def test_ids_with_equal_checksums_are_told_apart() -> None:
    assert len({zlib.crc32(name.encode()) for name in COLLIDING}) == 1
    ids = ImageIds.of(["first", *COLLIDING])
    assert ids.find_all([*COLLIDING, "last"]).tolist() == [1, 2, -1]
    assert ids.first_repeated() is None
    assert ImageIds.of(COLLIDING[:1]).shared(ImageIds.of(COLLIDING[1:])) == []


def test_ids_that_are_not_utf8_are_refused() -> None:
    text = "aé".encode()
    assert ImageIds(text, np.array([0, 1, 3])) == ["a", "é"]
    with pytest.raises(ValueError, match="in the middle of a character"):
        ImageIds(text, np.array([0, 2, 3]))
    with pytest.raises(UnicodeDecodeError):
        ImageIds(text[:2], np.array([0, 2]))
