"""`tools/bench features`: batches of features, from a warm cache to tensors on the device."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks import conventional
from benchmarks.context import Context, Row
from benchmarks.data import ADAPTIVE, FIXED_36, FIXED_100, DataSet, Shape
from benchmarks.machine import synchronise
from benchmarks.timing import alternate, ratio, summary
from coattn.training.batches import Batch
from coattn.training.data import VQADataModule


def run(context: Context) -> list[Row]:
    """Rows for each shape of data."""
    return [row for shape in (ADAPTIVE, FIXED_36, FIXED_100) for row in compare(context, shape)]


def compare(context: Context, shape: Shape) -> list[Row]:
    """A row for each way to read data of this shape; the ratio is to the fastest conventional one."""
    scale, data = context.scale, context.scale.data(context.folder, shape)
    lengths = data.module().split("train").num_regions
    bytes_each = lengths.mean() * scale.sizes.region_dim * 2  # as stored, in float16
    theirs = {_named("conventional", workers): workers for workers in (0, scale.num_workers)}
    ours = {_named("coattn", 0): data.module(batch_size=scale.batch_size)}
    streams = {
        name: stream(our_batches(module, context.device), scale.batches, 1, context.device)
        for name, module in ours.items()
    }
    for name, workers in theirs.items():
        batches = their_batches(data, workers, context)
        streams[name] = stream(batches, scale.their_batches, 2 * workers + 1, context.device)
    found = alternate(streams, scale.rounds)
    fastest = max(theirs, key=lambda name: sum(found[name]))
    rows: list[Row] = []
    for name, rates in found.items():
        row: Row = {"case": shape.name, "implementation": name, "questions/s": summary(rates)}
        if name in ours:
            gigabytes = [rate * bytes_each / 1e9 for rate in rates]
            row |= {
                "ratio": ratio(rates, found[fastest]),
                "GB/s": summary(gigabytes),
                "share of copy rate": summary([rate / context.copy_rate for rate in gigabytes]),
                "padding": padding(ours[name]),
            }
        else:
            row["padding"] = round(1 - float(lengths.mean()) / conventional.NUM_REGIONS, 3)
        rows.append(row)
    return rows


def stream(batches: Iterator[int], count: int, waiting: int, device: str) -> Callable[[], float]:
    """A measurement over `count` batches, in questions per second, of an endless iterator that gives their sizes.

    Before each measurement it draws as many as may be `waiting`, read while others had their turn.
    """

    def rate() -> float:
        for _ in range(waiting):
            next(batches)
        synchronise(device)
        start = time.perf_counter()
        questions = sum(next(batches) for _ in range(count))
        synchronise(device)
        return questions / (time.perf_counter() - start)

    return rate


def our_batches(module: VQADataModule, device: str) -> Iterator[int]:
    """Sizes of our batches, each brought to the device as Lightning does it."""
    for _ in module.train_dataloader():
        pass  # once through, so that the cache is warm
    while True:
        for batch in module.train_dataloader():
            yield len(delivered(module, batch, device).positions)


def delivered(module: VQADataModule, batch: Any, device: str) -> Batch:
    """A batch on the device, by the hooks that Lightning calls."""
    moved = module.transfer_batch_to_device(module.on_before_batch_transfer(batch, 0), torch.device(device), 0)
    return module.on_after_batch_transfer(moved, 0)


def their_batches(data: DataSet, workers: int, context: Context) -> Iterator[int]:
    """Sizes of the conventional batches, each brought to the device."""
    batches = conventional.loader(
        data.samples(), batch_size=context.scale.batch_size, num_workers=workers, device=context.device
    )
    while True:
        for batch in batches:
            yield len(conventional.Sample(*(tensor.to(context.device) for tensor in batch)).question)


def padding(module: VQADataModule) -> float:
    """Share of padding among the regions of an epoch."""
    lengths = module.split("train").num_regions
    batches = [positions for positions, _ in module.order.plan.epoch(0)]
    places = sum(len(positions) * int(lengths[positions].max()) for positions in batches)
    return round(1 - float(lengths.sum()) / places, 3)


def _named(name: str, workers: int) -> str:
    return f"{name}, {workers or 'no'} worker{'s' * (workers != 1)}"
