"""`tools/bench features`: batches of features, from a warm cache to tensors on the device."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

import torch

from benchmarks import conventional
from benchmarks.alone import run_alone
from benchmarks.context import Context, Row
from benchmarks.data import ADAPTIVE, FIXED_36, FIXED_100, DataSet, Shape
from benchmarks.machine import synchronise
from benchmarks.ours import make_trainer
from benchmarks.timing import alternate, ratio, summary
from coattn.training.data.batches import Batch
from coattn.training.data.module import VQADataModule

SHAPES = {shape.name: shape for shape in (ADAPTIVE, FIXED_36, FIXED_100)}
_WARMUP = 5


def run(context: Context) -> list[Row]:
    """Rows for each shape of data."""
    return [row for shape in SHAPES.values() for row in compare(context, shape)]


def compare(context: Context, shape: Shape) -> list[Row]:
    """A row for each way to read data of this shape; the ratio is to the fastest conventional one."""
    scale, data = context.scale, context.scale.data(context.folder, shape)
    ours, theirs = our_modules(context, data), their_workers(context)
    _ = data.files  # made here, and not in what is measured
    alone = [] if context.quick or shape is not FIXED_100 else [*ours, *theirs]
    peaks = {name: run_alone(context, "features", shape.name, name)["peak GB"] for name in alone}
    streams = {name: our_stream(context, module) for name, module in ours.items()}
    streams |= {name: their_stream(context, data, workers) for name, workers in theirs.items()}
    streams |= {limit: getattr(context, limit) for limit in {limit_of(name, context.device) for name in ours}}
    found = alternate(streams, scale.reading_rounds)
    fastest = max(theirs, key=lambda name: sum(found[name]))
    lengths = next(iter(ours.values())).split("train").num_regions
    rows: list[Row] = []
    for name in [*ours, *theirs]:
        rates = found[name]
        row: Row = {"case": shape.name, "implementation": name, "questions/s": summary(rates)}
        if name in ours:
            bytes_each = lengths.mean() * scale.sizes.region_dim * 2  # as stored, in float16
            gigabytes = [rate * bytes_each / 1e9 for rate in rates]
            row |= {
                "ratio": ratio(rates, found[fastest]),
                "GB/s": summary(gigabytes),
                "share of limit": ratio(gigabytes, found[limit_of(name, context.device)]),
                "padding": round(ours[name].order.padding.regions, 3),
            }
        else:
            row["padding"] = round(1 - float(lengths.mean()) / conventional.NUM_REGIONS, 3)
        rows.append(row | ({"peak GB": peaks[name]} if peaks else {}))
    return rows


def run_once(context: Context, case: str, implementation: str) -> Row:
    """One measurement of one row, for the memory that it takes."""
    data = context.scale.data(context.folder, SHAPES[case])
    theirs = their_workers(context)
    if implementation in theirs:
        return {"questions/s": their_stream(context, data, theirs[implementation])()}
    return {"questions/s": our_stream(context, our_modules(context, data)[implementation])()}


def our_modules(context: Context, data: DataSet) -> dict[str, VQADataModule]:
    """Our ways to read, by their name in tables."""
    batch_size = context.scale.batch_size
    return {name: data.module(batch_size=batch_size, residency=where) for name, where in residencies(context).items()}


def our_stream(context: Context, module: VQADataModule) -> Callable[[], float]:
    """A measurement of our reading."""
    return stream(our_batches(module, context.device), context.scale.batches, _WARMUP, context.device)


def their_workers(context: Context) -> dict[str, int]:
    """The conventional ways to read, by their name in tables: the number of workers."""
    return {f"conventional, {_workers(number)}": number for number in context.scale.their_workers}


def their_stream(context: Context, data: DataSet, workers: int) -> Callable[[], float]:
    """A measurement of the conventional reading."""
    make = partial(their_batches, data, workers, context)
    return stream(make, context.scale.their_batches, 2 * workers + 1, context.device)


def residencies(context: Context) -> dict[str, str]:
    """The residencies of our features, by their name in tables."""
    if context.device == "cuda":
        return {"coattn, on the GPU": "device", "coattn, in RAM": "pinned", "coattn, mapped": "mmap"}
    return {"coattn, in RAM": "pinned", "coattn, mapped": "mmap"}


def limit_of(name: str, device: str) -> str:
    """The rate, an attribute of `Context`, that bounds one of our ways to read: plain copies, or uploads to a GPU.

    A share above 1 is possible: batches fit the caches in part, and the arrays of the plain copies do not.
    """
    return "copy_rate" if "GPU" in name or device == "cpu" else "upload_rate"


def stream(make: Callable[[], Generator[int, None, None]], count: int, warmup: int, device: str) -> Callable[[], float]:
    """A measurement over `count` batches after `warmup`, in questions per second.

    `make` returns a generator of batch sizes, which is closed in the end, so that its workers do not read on while
    others take their turn.
    """

    def rate() -> float:
        batches = make()
        for _ in range(warmup):
            next(batches)
        synchronise(device)
        start = time.perf_counter()
        questions = sum(next(batches) for _ in range(count))
        synchronise(device)
        taken = time.perf_counter() - start
        batches.close()
        return questions / taken

    return rate


def our_batches(module: VQADataModule, device: str) -> Callable[[], Generator[int, None, None]]:
    """A function that returns a generator of our batch sizes; each batch is moved to the device as by Lightning."""
    module.trainer = make_trainer(device, "32-true", devices=1)  # the module asks it for the device
    loader = module.train_dataloader()
    for _ in loader:
        pass  # once through, so that the cache is warm

    def batches() -> Generator[int, None, None]:
        while True:
            for batch in loader:
                yield len(delivered(module, batch, device).positions)

    return batches


def delivered(module: VQADataModule, batch: Any, device: str) -> Batch:
    """A batch on the device, by the hooks that Lightning calls."""
    moved = module.transfer_batch_to_device(module.on_before_batch_transfer(batch, 0), torch.device(device), 0)
    return module.on_after_batch_transfer(moved, 0)


def their_batches(data: DataSet, workers: int, context: Context) -> Generator[int, None, None]:
    """The sizes of the conventional batches; each batch is moved to the device."""
    batches = conventional.loader(
        data.samples(), batch_size=context.scale.batch_size, num_workers=workers, device=context.device
    )
    while True:
        for batch in batches:
            yield len(conventional.Sample(*(tensor.to(context.device) for tensor in batch)).question)


def _workers(number: int) -> str:
    return f"{number or 'no'} worker{'s' * (number != 1)}"
