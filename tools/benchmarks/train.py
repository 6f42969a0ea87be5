"""`tools/bench train`: training steps of MCAN-small, from stored features to updated weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks import conventional
from benchmarks.alone import run_alone
from benchmarks.context import PRECISIONS, Context, Row
from benchmarks.data import ADAPTIVE, FIXED_36, FIXED_100, DataSet, Shape
from benchmarks.machine import synchronise
from benchmarks.ours import Training, Window, operations
from benchmarks.timing import alternate, ratio, summary
from benchmarks.ways import Way, our_ways
from benchmarks.work import STEP, conventional_shapes, work
from coattn.training.data.batches import Batch

SHAPES = {shape.name: shape for shape in (ADAPTIVE, FIXED_36, FIXED_100)}
FLOAT32, TF32 = "conventional, float32", "conventional, TF32"
ONE_BATCH = "one batch"


def run(context: Context) -> list[Row]:
    """Each shape of data in each way, and one repeated batch, in turns with the conventional training.

    The conventional training is measured once for all shapes, on files of 100 regions: it pads everything to 100
    regions and 14 tokens, so that only its reading depends on the shape.
    """
    _ = training_data(context, FIXED_100).files  # write the files before anything is measured
    # First, while this process is small. With --quick, starting a process would take longer than everything else.
    alone = [name for name, way in our_ways(context).items() if not way.data] + list(their_names(context))
    peaks = (
        {} if context.quick else {name: run_alone(context, "train", FIXED_100.name, name)["peak GB"] for name in alone}
    )
    trainings = {name: make_training(context, way) for name, way in our_ways(context).items()}
    ours = {
        (case, name): OurRuns(context, shape, way, trainings[name])
        for case, shape in SHAPES.items()
        for name, way in our_ways(context).items()
        if way.everywhere or shape is FIXED_100
    }
    fastest = next(key for key in ours if key[0] == FIXED_100.name)
    theirs = {name: their_rate(context, name == TF32) for name in their_names(context)}
    # These two differ by little, so they are measured one after the other.
    pair: dict[Any, Callable[[], float]] = {fastest: ours[fastest].rate, ONE_BATCH: ours[fastest].rate_of_one_batch}
    others = {key: mine.rate for key, mine in ours.items() if key != fastest}
    found = alternate(pair | others | theirs, context.scale.rounds)
    rows: list[Row] = []
    for shape in SHAPES.values():
        for case, name in ours:
            if case == shape.name:
                row: Row = {"case": case, "implementation": name, "questions/s": summary(found[case, name])}
                row["ratio"] = ratio(found[case, name], found[FLOAT32])
                rows.append(row | ours[case, name].facts())
        rows += [their_row(context, shape, name, found[name]) for name in theirs]
    for row in rows:
        if (row["case"], row["implementation"]) == fastest:
            row["loader / one batch"] = ratio(found[fastest], found[ONE_BATCH])
        if row["case"] == FIXED_100.name and row["implementation"] in peaks:
            row["peak GB"] = peaks[row["implementation"]]
    return rows


class OurRuns:
    """Our training on data of one shape, in one way. All shapes share one model and its optimizer, which are large."""

    def __init__(self, context: Context, shape: Shape, way: Way, training: Training) -> None:
        self.context, self.way, self.varied, self.training = context, way, shape is not FIXED_100, training
        batch_size = context.scale.batch_size // way.parts
        self.module = training_data(context, shape).module(**{"batch_size": batch_size, **way.data})
        self.windows: list[Window] = []
        self.batch: Batch | None = None

    def rate(self) -> float:
        """Questions per second of a whole epoch where sizes vary, else of some steps."""
        scale = self.context.scale
        steps, warmup = (scale.epoch, scale.epoch_warmup) if self.varied else (scale.steps, scale.warmup)
        self.training.data = self.module
        self.windows.append(self.training.window(steps, warmup=warmup))
        self.batch = self.training.batch
        return self.windows[-1].rate

    def rate_of_one_batch(self) -> float:
        """Questions per second on one batch of the last window, repeated: the loader costs nothing."""
        scale = self.context.scale
        self.training.batch = self.batch
        return self.training.window(scale.steps, warmup=scale.warmup, repeated=True).rate

    def facts(self) -> Row:
        """Padding, and the share of the machine's matrix rate."""
        shares = []
        for window in self.windows:
            done = sum(STEP * n * operations(self.context.scale.sizes, *size) for n, *size in window.shapes)
            shares.append(done / window.seconds / self.context.matrix_rates[self.way.precision])
        padding = self.module.order.padding
        return {
            "share of matrix rate": summary(shares),
            "padding": round(padding.regions, 3),
            "padding of tokens": round(padding.tokens, 3),
        }


def make_training(context: Context, way: Way) -> Training:
    """A model that is trained in this way, on any data."""
    return Training(
        None,
        context.scale.sizes,
        precision=PRECISIONS[way.precision],
        device=context.device,
        compile=way.compile,
        checkpoint=way.checkpoint,
        parts=way.parts,
    )


def training_data(context: Context, shape: Shape) -> DataSet:
    """A data set of this shape; where its batches differ in size, it has exactly one epoch of them."""
    return context.scale.data(context.folder, shape, num_batches=None if shape is FIXED_100 else context.scale.epoch)


def their_names(context: Context) -> tuple[str, ...]:
    """The conventional training as published, and with a GPU also with its faster products of float32."""
    return (FLOAT32, TF32) if context.device == "cuda" else (FLOAT32,)


def their_rate(context: Context, tf32: bool) -> Callable[[], float]:
    """A measurement of the conventional training on 100 regions, in questions per second."""
    scale = context.scale
    batches = conventional.loader(
        training_data(context, FIXED_100).samples(),
        batch_size=scale.batch_size,
        num_workers=scale.num_workers,
        device=context.device,
    )
    trainer = conventional.Trainer(scale.sizes, conventional.forever(batches), context.device)

    def rate(steps: int = scale.their_steps, warmup: int = scale.their_warmup) -> float:
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        for _ in range(warmup):
            trainer.step()
        start = time.perf_counter()
        questions = sum(trainer.step() for _ in range(steps))
        synchronise(context.device)
        taken = time.perf_counter() - start
        torch.set_float32_matmul_precision("highest")
        return questions / taken

    rate(scale.warmup)
    return rate


def their_row(context: Context, shape: Shape, name: str, rates: list[float]) -> Row:
    """The row of the conventional training on data of a shape, which determines only its padding."""
    split = training_data(context, shape).module().split("train")
    limit = context.matrix_rates["float32"]
    row = work(context.scale.sizes, split, conventional_shapes(split), rates, passes=STEP, limit=limit)
    if name == TF32:
        del row["share of matrix rate"]  # that of TF32 is not measured
    return {"case": shape.name, "implementation": name, "questions/s": summary(rates)} | row


def run_once(context: Context, case: str, implementation: str) -> Row:
    """One measurement of one row, for the memory that it takes."""
    if implementation in their_names(context):
        return {"questions/s": their_rate(context, implementation == TF32)()}
    way = our_ways(context)[implementation]
    return {"questions/s": OurRuns(context, SHAPES[case], way, make_training(context, way)).rate()}
