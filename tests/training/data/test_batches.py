from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import settings, write_data

from coattn.features.residency.features import Features
from coattn.training.data.batches import Batch, BatchLoader, Draw
from coattn.training.data.module import VQADataModule

MODES = [{"residency": "device"}, {"residency": "device", "residency_budget": 200e-9}, {"residency": "mmap"}]


def module(data: Path, **changes: object) -> VQADataModule:
    return VQADataModule(**settings(data, data)["data"] | changes)


def same(left: list[Batch], right: list[Batch]) -> bool:
    pairs = zip(left, right, strict=True)
    return all(a.divisor == b.divisor and all(map(torch.equal, a[:-1], b[:-1])) for a, b in pairs)


@pytest.mark.parametrize("options", MODES)
@pytest.mark.parametrize("num_workers", [0, 2])
def test_where_features_live_changes_no_batch(options: dict, num_workers: int, tmp_path: Path) -> None:
    write_data(tmp_path, flips=True)
    expected = module(tmp_path, flips=True)
    other = module(tmp_path, flips=True, num_workers=num_workers, **options)
    for loaders in ("train_dataloader", "val_dataloader"):
        assert same(list(getattr(expected, loaders)()), list(getattr(other, loaders)()))


def test_a_batch_that_is_kept_does_not_change(tiny_data: Path) -> None:
    data = module(tiny_data, residency="mmap")
    loader = data.train_dataloader()
    kept = list(loader)
    copies = [Batch(*(part.clone() if torch.is_tensor(part) else part for part in batch)) for batch in kept]
    for _ in loader:
        pass
    assert same(kept, copies)


def test_settings_that_cannot_be_meant_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    for wrong, message in (
        ({"residency": "gpu"}, "residency must be one of auto, device, pinned, mmap, got 'gpu'"),
        ({"residency_budget": -1.0}, "data.memory.budget is -1.0 GB"),
    ):
        with pytest.raises(ValueError, match=message):
            module(tmp_path, **wrong)


def test_a_batch_moves_without_a_copy_of_what_is_there(tiny_data: Path) -> None:
    batch = module(tiny_data).split("train").batch(np.arange(3))
    assert all(mine is theirs for mine, theirs in zip(batch.to(torch.device("cpu")), batch, strict=True))
    moved = batch.to(torch.device("meta"))
    assert moved.divisor == batch.divisor
    assert {part.device.type for part in moved[:-1]} == {"meta"}


def test_a_batch_with_each_image_once_is_the_same_batch(tiny_data: Path) -> None:
    split = module(tiny_data).split("train")
    batch = split.batch(np.arange(len(split.images)))
    once, rows = batch.images_once()
    assert rows is not None
    assert len(once.regions) == len(np.unique(split.images)) < len(batch.regions)
    for mine, theirs in (
        (once.regions, batch.regions),
        (once.region_mask, batch.region_mask),
        (once.boxes, batch.boxes),
    ):
        assert torch.equal(mine[rows], theirs)
    assert split.batch(np.arange(1)).images_once()[1] is None  # no image repeats


@pytest.mark.parametrize(("device", "free"), [("cuda", True), ("mps", False), ("xpu", False)])
def test_the_memory_of_a_batch_is_not_lent_again_before_it_is_copied(
    device: str, free: bool, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, asked = module(tiny_data).split("train").batch(np.arange(3)), set()
    monkeypatch.setattr(torch.Tensor, "to", lambda part, where, non_blocking=False: asked.add((where, non_blocking)))
    batch.to(torch.device(device))
    assert asked == {(torch.device(device), free)}


def reading(data: VQADataModule, *, ahead: bool) -> BatchLoader:
    split = data.split("train")
    return BatchLoader(
        split.dataset, Features(data.features), lambda: data.order.draws(0), len(data.order), ahead=ahead
    )


def test_reading_ahead_changes_nothing_and_ends_with_the_reader(tiny_data: Path) -> None:
    data = module(tiny_data)
    expected = list(reading(data, ahead=False))
    loader, before = reading(data, ahead=True), threading.active_count()
    assert same(list(loader), expected)
    started = iter(loader)
    assert same([next(started), next(started)], expected[:2])
    assert threading.active_count() == before + 1
    started.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    assert same(list(loader), expected)


def test_reading_ahead_uses_all_cores_whatever_other_threads_said(tiny_data: Path) -> None:
    usual, data, used = torch.get_num_threads(), module(tiny_data), []
    try:
        torch.set_num_threads(3)
        loader = reading(data, ahead=True)
        torch.set_num_threads(1)  # as the thread does that makes memory page-locked
        batch = loader._features.batch
        loader._features.batch = lambda images: used.append(torch.get_num_threads()) or batch(images)
        list(loader)
    finally:
        torch.set_num_threads(usual)
    assert set(used) == {3}


def test_an_error_ahead_comes_out(tiny_data: Path) -> None:
    data = module(tiny_data)
    split = data.split("train")
    draws = [Draw(np.arange(2), split.images[:2], 2.0), Draw(np.arange(2), np.array([0, 99]), 2.0)]
    loader = BatchLoader(split.dataset, Features(data.features), lambda: draws, 2, ahead=True)
    with pytest.raises(IndexError, match="99"):
        list(loader)


def by_question(batches: list[Batch]) -> dict[int, tuple]:
    """The inputs of each question, without the padding of its batch."""
    found = {}
    for batch in batches:
        targets = batch.targets(9)
        for row, position in enumerate(batch.positions.tolist()):
            mask = batch.region_mask[row]
            shown = (batch.question[row, batch.question_mask[row]], batch.regions[row, mask], batch.boxes[row, mask])
            found[position] = tuple(part.tolist() for part in (*shown, batch.image_sizes[row], targets[row]))
    return found


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_questions_grouped_by_image_are_the_same_questions(num_ranks: int, tiny_data: Path) -> None:
    data, grouped = module(tiny_data), module(tiny_data, group_by_image=True)
    images = grouped.split("train").images
    batches = []
    for rank in range(num_ranks):
        draws = grouped.order.draws(1, rank, num_ranks)
        split, features = grouped.split("train"), Features(grouped.features)
        batches += list(BatchLoader(split.dataset, features, lambda draws=draws: draws, len(draws)))  # type: ignore[misc]
    assert by_question(batches) == by_question(list(data.train_dataloader()))
    shown = sum(len(set(images[batch.positions])) for batch in batches)
    assert shown <= len(set(images)) + len(batches)  # those on a cut twice, every other image once
