"""`tools/bench train`: training steps of MCAN-small, from stored features to updated weights."""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks import conventional
from benchmarks.alone import run_alone
from benchmarks.context import PRECISIONS, Context, Row
from benchmarks.data import ADAPTIVE, FIXED_100, DataSet, Shape
from benchmarks.features import padding
from benchmarks.machine import synchronise
from benchmarks.ours import Training, Window, operations
from benchmarks.timing import alternate, ratio, summary

SHAPES = {shape.name: shape for shape in (ADAPTIVE, FIXED_100)}
CONVENTIONAL, ONE_BATCH = "conventional, float32", "one batch"


def run(context: Context) -> list[Row]:
    """Both shapes of data in each precision, and one repeated batch, in turns with the conventional training.

    That one takes as long for either shape: it pads everything to 100 regions and 14 tokens.
    """
    ours = {
        (case, f"coattn, {precision}"): OurRuns(context, shape, precision)
        for case, shape in SHAPES.items()
        for precision in context.precisions
    }
    best = ours[FIXED_100.name, f"coattn, {context.precisions[0]}"]
    runs = {key: mine.rate for key, mine in ours.items()}
    runs[FIXED_100.name, ONE_BATCH] = best.rate_of_one_batch
    runs[FIXED_100.name, CONVENTIONAL] = their_rate(context, SHAPES[FIXED_100.name])
    found = alternate(runs, context.scale.rounds)
    theirs = found.pop((FIXED_100.name, CONVENTIONAL))
    repeated = found.pop((FIXED_100.name, ONE_BATCH))
    rows: list[Row] = []
    for (case, name), rates in found.items():
        row: Row = {"case": case, "implementation": name, "questions/s": summary(rates), "ratio": ratio(rates, theirs)}
        if ours[case, name] is best:
            row["loader / one batch"] = ratio(rates, repeated)
        rows.append(row | ours[case, name].facts())
    rows.append({"case": FIXED_100.name, "implementation": CONVENTIONAL, "questions/s": summary(theirs)})
    for row in rows if not context.quick else ():  # a process takes longer to begin than all the rest
        row["peak GB"] = run_alone(context, "train", row["case"], row["implementation"])["peak GB"]
    return rows


class OurRuns:
    """Our training on data of one shape, in one precision."""

    def __init__(self, context: Context, shape: Shape, precision: str) -> None:
        self.context, self.precision, self.varied = context, precision, shape.regions is None
        scale = context.scale
        self.module = training_data(context, shape).module(batch_size=scale.batch_size)
        self.training = Training(self.module, scale.sizes, precision=PRECISIONS[precision], device=context.device)
        self.windows: list[Window] = []

    def rate(self) -> float:
        """Questions per second of a whole epoch where sizes vary, else of some steps."""
        scale = self.context.scale
        steps, warmup = (scale.epoch, scale.epoch_warmup) if self.varied else (scale.steps, scale.warmup)
        self.windows.append(self.training.window(steps, warmup=warmup))
        return self.windows[-1].rate

    def rate_of_one_batch(self) -> float:
        """The same on one batch of the last window, again and again: what the loader costs is left out."""
        scale = self.context.scale
        return self.training.window(scale.steps, warmup=scale.warmup, repeated=True).rate

    def facts(self) -> Row:
        """Padding, and how much of what the machine can multiply was used."""
        shares = []
        for window in self.windows:
            done = sum(3 * n * operations(self.context.scale.sizes, *size) for n, *size in window.shapes)
            shares.append(done / window.seconds / self.context.matrix_rates[self.precision])
        return {"padding": padding(self.module), "share of matrix rate": summary(shares)}


def training_data(context: Context, shape: Shape) -> DataSet:
    """Of exactly one epoch, where its batches differ."""
    return context.scale.data(context.folder, shape, num_batches=context.scale.epoch if shape.regions is None else None)


def their_rate(context: Context, shape: Shape) -> Callable[[], float]:
    """A measurement of the conventional training, in questions per second."""
    scale, data = context.scale, training_data(context, shape)
    batches = conventional.loader(
        data.samples(), batch_size=scale.batch_size, num_workers=scale.num_workers, device=context.device
    )
    trainer = conventional.Trainer(scale.sizes, conventional.forever(batches), context.device)
    for _ in range(scale.warmup):
        trainer.step()

    def rate() -> float:
        start = time.perf_counter()
        questions = sum(trainer.step() for _ in range(scale.steps))
        synchronise(context.device)
        return questions / (time.perf_counter() - start)

    return rate


def run_once(context: Context, case: str, implementation: str) -> Row:
    """One measurement of one row, for the memory that it takes."""
    if implementation == CONVENTIONAL:
        return {"questions/s": their_rate(context, SHAPES[case])()}
    return {"questions/s": OurRuns(context, SHAPES[case], implementation.removeprefix("coattn, ")).rate()}
