"""How long `coattn extract` takes, in units of reading, computing and writing one after another.

    python tools/benchmark_extract.py                      # MobileNetV2 with random weights on 384 drawn JPEGs, CPU
    python tools/benchmark_extract.py --images photos/ --weights mobilenet_v2.pth --device cuda

Serial is the plain way, in two forms: the network runs image by image, or batch by batch, which is its best; with as
many threads as torch takes by itself. All images are read and shrunk one by one before that; after it the store is
written and synced. Overlapped is `coattn.features.extract.extract`. All use the same functions for each part and are
measured in turns in one process. Aim: at most 0.75 of the serial time.

Where all parts run on the CPU, nothing can be faster than all their work shared evenly by the cores: what is gained is
that no core is idle while one thread reads or writes. That bound is printed too.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.images import draw_images
from coattn.features.extract import extract
from coattn.features.extractors.network import PRECISIONS
from coattn.features.extractors.torchvision_grid import TorchvisionGrid
from coattn.features.images import find_images, load_image
from coattn.features.regions import Extractor
from coattn.features.store import FeatureStore
from coattn.features.writer import StoreWriter


def serial(images: dict[str, Path], out: Path, extractor: Extractor, *, batch_size: int) -> tuple[float, float, float]:
    """Seconds of reading, computing and writing."""
    times = [time.perf_counter()]
    prepared = []
    for name, path in images.items():
        image = load_image(path)
        prepared.append((name, extractor.prepare(image), image.size))
    times.append(time.perf_counter())
    regions = []
    for start in range(0, len(prepared), batch_size):
        regions += extractor.describe([pixels for _, pixels, _ in prepared[start : start + batch_size]])
    times.append(time.perf_counter())
    with StoreWriter(out, dim=extractor.dim, record=extractor.record) as writer:
        for (name, _, size), found in zip(prepared, regions, strict=True):
            writer.add(name, found.features, found.boxes, size)
    times.append(time.perf_counter())
    reading, computing, writing = np.diff(times).tolist()
    return reading, computing, writing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of photos (default: drawn ones)")
    parser.add_argument("--number", type=int, default=384, help="images of a run")
    parser.add_argument("--model", default="mobilenet_v2", help="classification network of torchvision")
    parser.add_argument("--weights", default="none", help="none: random, which takes as long; or a file")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--workers", type=int, help="threads that read images (one for each core)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32", choices=PRECISIONS)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    weights = args.weights if args.weights == "none" else Path(args.weights)
    extractor = TorchvisionGrid(
        args.model, weights=weights, size=(args.size, args.size), device=args.device, precision=args.precision
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.images is None:
            draw_images(folder, min(args.number, 64))
        photos = list(find_images([args.images or folder]).values())
        images = {f"{index}": photos[index % len(photos)] for index in range(args.number)}
        extractor([load_image(photos[0])] * args.batch_size)  # the first call is slower
        sizes = {"image by image": 1, "batch by batch": args.batch_size}
        parts: dict[str, list[tuple[float, float, float]]] = {way: [] for way in sizes}
        overlapped, cores = [], []
        for run in range(args.runs):
            for way, size in sizes.items():
                parts[way].append(serial(images, folder / f"serial{size}_{run}.h5", extractor, batch_size=size))
            start, work = time.perf_counter(), time.process_time()
            options = {"batch_size": args.batch_size, "num_workers": args.workers, "progress": False}
            extract(images, folder / f"out{run}", extractor, **options)
            overlapped.append(time.perf_counter() - start)
            cores.append((time.process_time() - work) / overlapped[-1])
        last = args.runs - 1
        one, other = (FeatureStore(folder / name) for name in (f"serial{args.batch_size}_{last}.h5", f"out{last}"))
        every = np.arange(len(images))
        difference = np.abs(one.gather(every).features.astype(np.float32) - other.gather(every).features).max()
    print(
        f"{len(images)} images, {args.model} at {args.size}x{args.size} on {args.device}, {torch.get_num_threads()} "
        f"threads of torch, {os.cpu_count()} cores; median of {args.runs} runs (fastest)"
    )
    print(f"overlapped {spread(overlapped)}, {np.mean(cores):.2f} cores busy")
    for way, found in parts.items():
        totals = [sum(base) for base in found]
        shares = ", ".join(
            f"{name} {statistics.median(seconds):.2f}"
            for name, seconds in zip(("reading", "computing", "writing"), zip(*found, strict=True), strict=True)
        )
        print(f"serial, {way} {spread(totals)}: {shares}")
        ratios = [ours / total for ours, total in zip(overlapped, totals, strict=True)]
        print(f"  overlapped / serial {statistics.median(ratios):.2f}")
    if args.device == "cpu":
        threads, count = torch.get_num_threads(), os.cpu_count() or 1
        even = [(reading + writing + threads * computing) / count for reading, computing, writing in found]
        bound = statistics.median(work / total for work, total in zip(even, totals, strict=True))
        print(f"  of the best, if all its work were shared evenly by the cores: {bound:.2f}")
    print(f"largest difference of the features: {difference:g}")


def spread(seconds: list[float]) -> str:
    """Median and best."""
    return f"{statistics.median(seconds):.2f} s ({min(seconds):.2f})"


if __name__ == "__main__":
    main()
