"""`tools/bench extract`: images to stored features, beside two scripts that do one thing after another.

Where all of it runs on the CPU, nothing is faster than all work shared evenly by the cores: what working at the same
time gains is that no core is idle while a thread reads or writes. So the table says how many cores were busy.
"""

from __future__ import annotations

import importlib.util
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.alone import run_alone
from benchmarks.context import Context, Row
from benchmarks.timing import alternate, ratio, seconds, summary

if TYPE_CHECKING:
    from coattn.features.extract.extractors.base import Extractor

NETWORK, SIZE = "MobileNetV2", "640 x 480"
CASE = f"{NETWORK}, {SIZE}"
OURS, REDUCED, ONNX = "coattn", "coattn, reduced decoding", "coattn, onnxruntime"
CONVENTIONAL, BATCHES = "conventional, one by one", "conventional, in batches"


def run(context: Context) -> list[Row]:
    """A row for ours and each conventional way; none where images cannot be read."""
    if importlib.util.find_spec("PIL") is None:
        print("extract is not measured: it needs PIL")
        return []
    name, extractor = make_extractor(context)
    case = f"{name}, {SIZE}"
    busy: dict[str, list[float]] = {}
    runs = make_runs(context, extractor, busy)
    peaks = {} if context.quick else {way: run_alone(context, "extract", case, way)["peak GB"] for way in runs}
    for warm_up in runs.values():
        warm_up()
    busy.clear()
    found = alternate(runs, context.scale.rounds)
    done = operations(extractor)
    rows: list[Row] = []
    for way, rates in found.items():
        row: Row = {"case": case, "implementation": way, "images/s": summary(rates), "cores busy": summary(busy[way])}
        if way not in (CONVENTIONAL, BATCHES):
            row["ratio"] = ratio(rates, found[CONVENTIONAL])
            row["times in batches"] = ratio(rates, found[BATCHES])
        if done:
            row["share of matrix rate"] = summary([rate * done / context.matrix_rates["float32"] for rate in rates])
        rows.append(row | ({"peak GB": peaks[way]} if peaks else {}))
    return rows


def run_once(context: Context, case: str, implementation: str) -> Row:
    """One measurement of one row, for the memory that it takes."""
    return {"images/s": make_runs(context, make_extractor(context)[1], {})[implementation]()}


def make_runs(context: Context, extractor: Extractor, busy: dict[str, list[float]]) -> dict[str, Callable[[], float]]:
    """Measurements of each way, in images per second; `busy` gets how many cores worked meanwhile."""
    from benchmarks.images import draw_images
    from coattn.features.extract.extractors.base import Reading
    from coattn.features.extract.run import extract

    images = draw_images(context.folder / "images", context.scale.images)
    out = context.folder / "extracted"

    def rate(way: str, work: Callable[[], object]) -> float:
        shutil.rmtree(out, ignore_errors=True)
        before = time.process_time()
        taken = seconds(work)
        busy.setdefault(way, []).append((time.process_time() - before) / taken)
        return len(images) / taken

    others: dict[str, Extractor] = {}
    if hasattr(extractor, "input_size"):  # a network, not the descriptor
        others[REDUCED] = Reading(extractor, reduced_decoding=True)
        if context.device == "cpu" and importlib.util.find_spec("onnxscript"):
            others[ONNX] = make_extractor(context, onnxruntime=True)[1]
    works: dict[str, Callable[[], object]] = {
        **{
            way: partial(extract, images, out, one, progress=False) for way, one in ({OURS: extractor} | others).items()
        },
        CONVENTIONAL: partial(one_by_one, images, out, extractor),
        BATCHES: partial(in_batches, images, out, extractor),
    }
    return {way: partial(rate, way, work) for way, work in works.items()}


def operations(extractor: Extractor) -> int:
    """Floating-point operations of the network's matrix products and convolutions for one image; 0 if it has none."""
    from coattn.features.extract.images import load_image

    with FlopCounterMode(display=False) as counter:
        extractor([load_image(np.zeros((480, 640, 3), np.uint8))])
    return counter.get_total_flops()


def make_extractor(context: Context, *, onnxruntime: bool = False) -> tuple[str, Extractor]:
    """MobileNetV2 with random weights, which takes as long as with good ones; without torchvision the descriptor."""
    from coattn.features.extract.extractors.descriptor import Descriptor

    if context.quick:
        return "descriptor", Descriptor()
    try:
        from coattn.features.extract.extractors.torchvision_grid import TorchvisionGrid

        extractor = TorchvisionGrid("mobilenet_v2", weights="none", device=context.device, onnxruntime=onnxruntime)
        return NETWORK, extractor
    except ModuleNotFoundError as error:
        print(f"extract measures the descriptor: {error}")
        return "descriptor", Descriptor()


def one_by_one(images: dict[str, Path], out: Path, extractor: Extractor) -> None:
    """Read an image, run the network on it, write an .npz in float32, and then the next."""
    from coattn.features.extract.images import load_image

    out.mkdir()
    for image_id, path in images.items():
        found = extractor([load_image(path)])[0]
        np.savez(out / f"{image_id}.npz", x=found.features, bbox=found.boxes)


def in_batches(images: dict[str, Path], out: Path, extractor: Extractor) -> None:
    """Read all images, run the network on batches of them, and write everything into one store."""
    from coattn.features.extract.images import load_image
    from coattn.features.extract.run import images_at_once
    from coattn.features.store.writer import StoreWriter

    out.mkdir()
    size = images_at_once(extractor)
    loaded = [load_image(path) for path in images.values()]
    prepared = [extractor.prepare(image) for image in loaded]
    regions = []
    for start in range(0, len(prepared), size):
        regions += extractor.describe(prepared[start : start + size])
    with StoreWriter(out / "store.h5", dim=extractor.dim, record=extractor.record) as writer:
        for image_id, image, found in zip(images, loaded, regions, strict=True):
            writer.add(image_id, found.features, found.boxes, image.size)
