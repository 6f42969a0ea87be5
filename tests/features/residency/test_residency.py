from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from stores import LENGTHS, write

from coattn.features.residency.buffers import Buffers
from coattn.features.residency.features import Features, open_features
from coattn.features.residency.held import HeldRows
from coattn.features.residency.placement import (
    Placement,
    Residency,
    available_memory,
    free_on_device,
    place,
)
from coattn.features.store.joined import JoinedStore

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
GB = 10**9


@pytest.mark.parametrize(
    ("mode", "size", "on_cuda", "expected"),
    [
        ("mmap", 5, True, (0, 0)),
        ("auto", 5, True, (5, 0)),
        ("auto", 25, True, (20, 5)),  # the rest fits in RAM ...
        ("auto", 40, True, (20, 0)),  # ... or stays on the disk
        ("device", 25, True, (20, 5)),
        ("pinned", 5, True, (0, 5)),
        ("pinned", 15, True, (0, 10)),
        ("auto", 0.25, False, (0, 0.25)),
        ("auto", 0.5, False, (0, 0)),
        ("device", 5, False, (0, 5)),
        ("pinned", 15, False, (0, 10)),
    ],
)
def test_features_go_where_they_fit(mode: str, size: float, on_cuda: bool, expected: tuple[float, float]) -> None:
    found = place(mode, int(size * GB), on_cuda=on_cuda, device_budget=20 * GB, memory_budget=10 * GB)  # type: ignore[arg-type]
    assert found == Placement(expected[0] * GB, expected[1] * GB)


def test_unknown_modes_and_budgets_are_refused(tmp_path: Path) -> None:
    store = write(tmp_path / "a.h5")
    with pytest.raises(ValueError, match="residency must be auto, device, pinned or mmap, got 'gpu'"):
        open_features(store, np.arange(3), "gpu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        open_features(store, np.arange(3), budget=-1)


def test_copied_files_are_unmapped_and_still_can_be_read(tmp_path: Path) -> None:
    store = write(tmp_path / "a.h5")
    before = store.read_flat(np.arange(3)).features
    HeldRows(store, np.arange(3), torch.device("cpu"))
    assert not store._open
    np.testing.assert_array_equal(store.read_flat(np.arange(3)).features, before)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "int8", "mixed"])
def test_batches_are_the_same_wherever_features_live(dtype: str, device: str, tmp_path: Path) -> None:
    store = write(tmp_path / "a.h5", dtype="int8" if dtype == "mixed" else dtype)
    if dtype == "mixed":
        store = JoinedStore([store, write(tmp_path / "b.h5", dtype="float16", seed=1, prefix="b")])  # type: ignore[assignment]
    everything, some = np.arange(len(store)), np.array([0, 3, 4])
    row = store.row_bytes
    sources = {
        "mmap": open_features(store, everything, "mmap", device)[0],
        "device": open_features(store, everything, "device", device)[0],
        "pinned": open_features(store, everything, "pinned", device)[0],
        "a part": open_features(store, everything, "device", device, budget=9 * row)[0],
        "nothing fits": open_features(store, everything, "device", device, budget=2)[0],
        "others": open_features(store, some, "device", device)[0],
        "two places": Features(
            store,
            device,
            on_device=HeldRows(store, some, torch.device(device)),
            in_memory=HeldRows(store, np.array([5, 1]), torch.device("cpu")),
        ),
    }
    random = np.random.default_rng(0)
    for images in (*(random.integers(0, len(store), 7) for _ in range(5)), np.array([1]), everything, np.array([4, 4])):
        expected = store.read_padded(images).features
        for name, source in sources.items():
            source.expect(images)
            got = source.batch(images)
            assert got.device.type == device, name
            assert got.numpy(force=True).dtype == expected.dtype, name
            assert got.numpy(force=True).tobytes() == expected.tobytes(), name


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["pinned", "mmap"])
def test_page_locked_memory_is_lent_again_only_after_it_was_copied(mode: Residency, tmp_path: Path) -> None:
    store = write(tmp_path / "a.h5")
    everything = np.arange(len(store))
    features = open_features(store, everything, mode, "cuda")[0]
    torch.cuda._sleep(1_000_000_000)  # the copies have to queue behind it
    got = [features.batch(everything[[number]]) for number in range(len(store)) for _ in range(20)]
    for number, gathered in enumerate(got):
        expected = store.read_padded(everything[[number // 20]]).features
        assert gathered.numpy(force=True).tobytes() == expected.tobytes()


def test_the_images_used_most_are_held_where_not_all_fit(tmp_path: Path) -> None:
    store = write(tmp_path / "a.h5")
    uses = np.repeat([0, 3, 4, 5], [2, 1, 7, 3])
    budget = (LENGTHS[4] + LENGTHS[5]) * store.row_bytes
    features, said = open_features(store, uses, "device", budget=budget)
    assert features.in_memory is not None
    assert features.in_memory.holds(np.arange(6)).tolist() == [False, False, False, False, True, True]
    assert "of 4 images: 0.00 GB in RAM, 0.00 GB memory-mapped; no more fits" in said
    assert "--dtype int8" in said


def test_what_is_held_is_said_and_not_what_was_planned(tmp_path: Path) -> None:
    for dtype, advice in (
        ("float16", " (int8 takes half of float16: extract or convert with --dtype int8)"),
        ("int8", ""),
    ):
        store = write(tmp_path / f"{dtype}.h5", dtype=dtype)
        features, said = open_features(store, np.arange(6), "device", budget=2)
        assert features.in_memory is None
        assert said == f"features: 0.00 GB of 6 images: 0.00 GB memory-mapped; no more fits{advice}"


def test_what_torch_keeps_for_later_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = {"mem_get_info": (20, 100), "memory_reserved": 60, "memory_allocated": 10}
    for name, value in numbers.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert free_on_device(torch.device("cuda")) == 20 + 50 - 30


def test_the_choice_is_said(tmp_path: Path) -> None:
    store = write(tmp_path / "a.h5")
    said = [open_features(store, np.arange(6), mode)[1] for mode in ("auto", "mmap")]  # type: ignore[arg-type]
    assert said == [
        "features: 0.00 GB of 6 images, in RAM (they are small)",
        "features: 0.00 GB of 6 images, memory-mapped (as asked)",
    ]
    assert available_memory() > 0


def test_a_batch_keeps_its_memory_for_as_long_as_anyone_holds_a_part_of_it(tmp_path: Path) -> None:
    store = write(tmp_path / "a.h5")
    features, _ = open_features(store, np.arange(6), "mmap")
    random = np.random.default_rng(0)
    draws = [random.integers(0, 6, 5) for _ in range(20)]
    held = [features.batch(draw) for draw in draws]
    views = [batch[2:, :1].transpose(0, 1) for batch in held]
    expected = [store.read_padded(draw).features for draw in draws]
    assert all(np.array_equal(batch.numpy(), rows) for batch, rows in zip(held, expected, strict=True))
    del held
    others = [features.batch(draw[::-1].copy()) for draw in draws]
    assert all(
        np.array_equal(view.numpy(), rows[2:, :1].swapaxes(0, 1)) for view, rows in zip(views, expected, strict=True)
    )
    places = {view.untyped_storage().data_ptr() for view in views}
    assert places.isdisjoint(batch.data_ptr() for batch in others)


def test_memory_is_used_again_once_nobody_holds_it() -> None:
    buffers = Buffers()
    places = set()
    for number in range(20):
        batch = buffers.empty((3, 5 + number % 4), torch.float16)
        places.add(batch.data_ptr())
        view = batch[1:]
        del batch
        assert buffers.empty((1,), torch.float32).data_ptr() != view.data_ptr()
    assert len(places) <= 2
    weight = torch.ones(5, requires_grad=True)
    saved = buffers.empty((5,), torch.float32)
    place, loss = saved.data_ptr(), (saved.fill_(3) * weight).sum()
    del saved
    assert buffers.empty((5,), torch.float32).fill_(0).data_ptr() != place, "autograd holds it"
    loss.backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [3] * 5
