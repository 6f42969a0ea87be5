"""`tools/bench growth`: how the time of a training step, of reading and of several processes grows, as exponents.

The exponent between two sizes is log(time ratio) / log(size ratio). It is printed beside the one of the arithmetic: if
time grows no faster than the arithmetic, nothing else grows.
"""

from __future__ import annotations

import math
import os
from functools import partial

import torch
from lightning.fabric.utilities.apply_func import move_data_to_device

from benchmarks.alone import run_alone
from benchmarks.context import PRECISIONS, Context, Row
from benchmarks.conventional import Sizes
from benchmarks.data import FIXED_36
from benchmarks.features import our_batches, stream
from benchmarks.ours import Training, operations
from benchmarks.timing import alternate, median_of, summary
from benchmarks.ways import our_ways
from benchmarks.work import STEP
from coattn.training.data.batches import Batch

BEYOND, WORKERS, PROCESSES = "beyond the arithmetic", "workers", "processes"


def run(context: Context) -> list[Row]:
    """A row for each size of each kind; the first says where time grew most beyond the arithmetic."""
    rows = steps(context)
    return [beyond(rows), *rows, *workers(context), *processes(context)]


def beyond(rows: list[Row]) -> Row:
    """The largest excess of an exponent of time over the exponent of its arithmetic."""
    most = max((row["exponent"] - row["of the arithmetic"], row["case"]) for row in rows if "exponent" in row)
    return {"case": BEYOND, "implementation": f"coattn, {most[1]}", "exponent too high by": round(most[0], 2)}


def steps(context: Context) -> list[Row]:
    """Training steps on one batch of each size: questions, regions, tokens."""
    scale, way = context.scale, next(iter(our_ways(context).values()))
    training = Training(
        None, scale.sizes, precision=PRECISIONS[way.precision], device=context.device, compile=way.compile
    )
    shapes = {(kind, size): shape for kind, sizes in scale.growth.items() for size, shape in sizes.items()}

    def measured(shape: tuple[int, int, int]) -> float:
        training.batch = made_batch(scale.sizes, *shape, context.device)
        return training.window(scale.steps, warmup=scale.warmup, repeated=True).seconds / scale.steps

    found = alternate({key: partial(measured, shape) for key, shape in shapes.items()}, scale.rounds)
    rows: list[Row] = []
    for (kind, size), times in found.items():
        questions, regions, tokens = shapes[kind, size]
        row: Row = {"case": kind, "size": size, "ms/question": summary([1000 * t / questions for t in times])}
        row["MFLOP/question"] = round(STEP * operations(scale.sizes, regions, tokens) / 1e6, 2)
        rows.append(row)
    return with_exponents(rows)


def with_exponents(rows: list[Row]) -> list[Row]:
    """The rows, with the exponents between each row and the previous one of the same case."""
    pairs = zip([None, *rows], rows, strict=False)
    return [
        after | (exponents(before, after) if before and before["case"] == after["case"] and before["size"] else {})
        for before, after in pairs
    ]


def exponents(before: Row, after: Row) -> Row:
    """The exponents between two sizes: of the time of a question, and of its arithmetic if that changes."""
    columns = {"ms/question": "exponent", "MFLOP/question": "of the arithmetic"}
    step = math.log(after["size"] / before["size"])
    return {
        name: round(math.log(median_of(after[column]) / median_of(before[column])) / step, 2)
        for column, name in columns.items()
        if column in after
    }


def made_batch(sizes: Sizes, questions: int, regions: int, tokens: int, device: str) -> Batch:
    """A batch of random numbers without padding, on the device."""
    boxes = torch.tensor([0.1, 0.2, 0.6, 0.8]).repeat(questions, regions, 1)
    batch = Batch(
        question=torch.randint(2, sizes.num_words, (questions, tokens)),
        question_mask=torch.ones(questions, tokens, dtype=torch.bool),
        regions=torch.randn(questions, regions, sizes.region_dim).half(),
        region_mask=torch.ones(questions, regions, dtype=torch.bool),
        boxes=boxes,
        image_sizes=torch.full((questions, 2), 480.0),
        images=torch.arange(questions),
        target_rows=torch.arange(questions),
        target_answers=torch.randint(0, sizes.num_answers, (questions,)),
        target_scores=torch.ones(questions),
        positions=torch.arange(questions),
        divisor=float(questions),
    )
    return move_data_to_device(batch, torch.device(device))


def workers(context: Context) -> list[Row]:
    """Reading with 0, 1, 2 and 4 workers."""
    scale, data = context.scale, context.scale.data(context.folder, FIXED_36)
    runs = {
        count: stream(
            our_batches(data.module(batch_size=scale.batch_size, num_workers=count), context.device),
            scale.batches,
            2 * count + 1,
            context.device,
        )
        for count in scale.workers
    }
    found = alternate(runs, scale.rounds)
    return with_exponents([rate_row(WORKERS, count, rates) for count, rates in found.items()])


def rate_row(case: str, size: int, rates: list[float]) -> Row:
    """A row of rates, and of the time of a question that follows from them."""
    times = [1000 / rate for rate in rates]
    return {"case": case, "size": size, "questions/s": summary(rates), "ms/question": summary(times)}


def processes(context: Context) -> list[Row]:
    """Training with 1, 2 and 4 processes, up to the number of cores or GPUs, on the same batch size."""
    devices = torch.cuda.device_count() if context.device == "cuda" else min(len(os.sched_getaffinity(0)), 4)
    counts = [2**n for n in range(3) if 2**n <= devices]
    rows: list[Row] = []
    for count in counts if len(counts) > 1 and not context.quick else []:
        row = run_alone(context, "growth", PROCESSES, str(count))
        rows.append({"case": PROCESSES, "size": count} | row)
    return with_exponents(rows)


def run_once(context: Context, case: str, implementation: str) -> Row:
    """Training on 36 regions with `implementation` processes."""
    count, scale, way = int(implementation), context.scale, next(iter(our_ways(context).values()))
    training = Training(
        scale.data(context.folder, FIXED_36).module(batch_size=scale.batch_size),
        scale.sizes,
        precision=PRECISIONS[way.precision],
        device=context.device,
        compile=way.compile,
        devices=count,
    )
    rates = [training.window(2 * scale.steps, warmup=scale.warmup).rate * count for _ in range(scale.rounds)]
    return rate_row(PROCESSES, count, rates)
