"""`tools/bench extract`: images to stored features, beside the script that everybody writes: image by image."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.context import Context, Row
from benchmarks.timing import alternate, ratio, seconds, summary

if TYPE_CHECKING:
    from coattn.features.regions import Extractor


def run(context: Context) -> list[Row]:
    """A row for ours and the conventional way; none where images cannot be read."""
    try:
        from benchmarks.images import draw_images
        from coattn.features.extract import extract
    except ModuleNotFoundError as error:
        print(f"extract is not measured: it needs {error.name}")
        return []
    name, extractor = make_extractor(context)
    images = draw_images(context.folder / "images", context.scale.images)
    out = context.folder / "extracted"

    def rate(work: Callable[[], object]) -> float:
        shutil.rmtree(out, ignore_errors=True)
        return len(images) / seconds(work)

    ours, theirs = partial(extract, images, out, extractor, progress=False), partial(one_by_one, images, out, extractor)
    rate(ours)  # the first time takes longer
    runs = {"coattn": partial(rate, ours), "conventional, one by one": partial(rate, theirs)}
    found = alternate(runs, context.scale.rounds)
    rows: list[Row] = [
        {"case": f"{name}, 640 x 480", "implementation": way, "images/s": summary(rates)}
        for way, rates in found.items()
    ]
    rows[0]["ratio"] = ratio(*found.values())
    return rows


def make_extractor(context: Context) -> tuple[str, Extractor]:
    """MobileNetV2 with random weights, which takes as long as with good ones; without torchvision the descriptor."""
    from coattn.features.extractors.descriptor import Descriptor

    if context.quick:
        return "descriptor", Descriptor()
    try:
        from coattn.features.extractors.torchvision_grid import TorchvisionGrid

        return "MobileNetV2", TorchvisionGrid("mobilenet_v2", weights="none", device=context.device)
    except ModuleNotFoundError as error:
        print(f"extract measures the descriptor: {error}")
        return "descriptor", Descriptor()


def one_by_one(images: dict[str, Path], out: Path, extractor: Extractor) -> None:
    """Read an image, run the network on it, write an .npz in float32, and then the next."""
    from coattn.features.images import load_image

    out.mkdir()
    for image_id, path in images.items():
        found = extractor([load_image(path)])[0]
        np.savez(out / f"{image_id}.npz", x=found.features, bbox=found.boxes)
