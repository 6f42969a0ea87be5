"""`tools/bench epochs`: an epoch of training on as many images and questions as VQA v2 has, and what 13 would take."""

from __future__ import annotations

import time

from benchmarks.context import PRECISIONS, Context, Row
from benchmarks.data import ADAPTIVE, FIXED_100, Shape
from benchmarks.ours import Training
from benchmarks.ways import our_ways

NUM_IMAGES, NUM_QUESTIONS, NUM_EPOCHS = 82_783, 443_757, 13


def run(context: Context) -> list[Row]:
    """A row for each shape of data; none where an epoch would take hours."""
    if not context.scale.vqa_v2:
        print("epochs are not measured: one would take hours here; see the arithmetic in the README")
        return []
    return [epoch(context, shape) for shape in (FIXED_100, ADAPTIVE)]


def epoch(context: Context, shape: Shape) -> Row:
    """One whole epoch, its beginning apart: opening the store, encoding the questions, bringing features to a GPU."""
    scale = context.scale
    name, way = next(iter(our_ways(context).items()))
    images, questions = (max(2, round(scale.vqa_v2 * number)) for number in (NUM_IMAGES, NUM_QUESTIONS))
    data = scale.sized_data(context.folder, shape, num_images=images, num_questions=questions)
    _ = data.store, data.records
    start = time.perf_counter()
    module = data.module(batch_size=scale.batch_size, **way.data)
    training = Training(
        module, scale.sizes, precision=PRECISIONS[way.precision], device=context.device, compile=way.compile
    )
    window = training.window(len(module.order), warmup=scale.warmup)
    whole = time.perf_counter() - start
    data.store.unlink()  # it may be as large as the disk
    seconds = window.seconds / scale.vqa_v2
    begin = whole - window.seconds
    return {
        "case": f"VQA v2's numbers, {shape.name}",
        "implementation": name,
        "images": images,
        "questions": questions,
        "questions/s": round(window.rate, 1),
        "beginning, s": round(begin, 1),
        "epoch, s": round(seconds, 1),
        f"{NUM_EPOCHS} epochs, min": round((begin + NUM_EPOCHS * seconds) / 60, 2),
    }
