"""How long `coattn extract` takes, in units of reading, computing and writing one after another.

    python tools/benchmark_extract.py                      # MobileNetV2 with random weights on 384 drawn JPEGs, CPU
    python tools/benchmark_extract.py --images photos/ --weights mobilenet_v2.pth --device cuda

Serial is the plain way: read and shrink all images one by one; then run the network over them, batch by batch, with as
many threads as torch takes by itself; then write and sync the store. It waits for nothing but the disk: this is its
best. Overlapped is `coattn.features.extract.extract`. Both use the same functions for each part and are measured in
turns in one process. Where all parts run on the CPU, nothing can be faster than all their work shared evenly by the
cores: what is gained is that no core is idle while one thread reads or writes. Aim: at most 0.75 of the serial time.
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
        found = list(find_images([args.images or folder]).values())
        images = {f"{index}": found[index % len(found)] for index in range(args.number)}
        extractor([load_image(found[0])] * args.batch_size)  # the first call is slower
        parts, overlapped, cores = [], [], []
        for run in range(args.runs):
            parts.append(serial(images, folder / f"serial{run}.h5", extractor, batch_size=args.batch_size))
            start, work = time.perf_counter(), time.process_time()
            extract(
                images,
                folder / f"out{run}",
                extractor,
                batch_size=args.batch_size,
                num_workers=args.workers,
                progress=False,
            )
            overlapped.append(time.perf_counter() - start)
            cores.append((time.process_time() - work) / overlapped[-1])
        last = args.runs - 1
        one, other = FeatureStore(folder / f"serial{last}.h5"), FeatureStore(folder / f"out{last}")
        every = np.arange(len(images))
        difference = np.abs(one.gather(every).features.astype(np.float32) - other.gather(every).features).max()
    ratios = [ours / sum(base) for ours, base in zip(overlapped, parts, strict=True)]
    print(
        f"{len(images)} images, {args.model} at {args.size}x{args.size} on {args.device}, {torch.get_num_threads()} "
        f"threads of torch, {os.cpu_count()} cores; median of {args.runs} runs (fastest)"
    )
    for label, seconds in zip(("reading", "computing", "writing"), zip(*parts, strict=True), strict=True):
        print(f"{label:<11} {statistics.median(seconds):6.2f} s ({min(seconds):.2f})")
    totals = [sum(base) for base in parts]
    print(f"serial      {statistics.median(totals):6.2f} s ({min(totals):.2f})")
    print(
        f"overlapped  {statistics.median(overlapped):6.2f} s ({min(overlapped):.2f}), {np.mean(cores):.2f} cores busy"
    )
    print(f"ratio       {statistics.median(ratios):6.2f}   ({min(overlapped) / min(totals):.2f})")
    print(f"largest difference of the features: {difference:g}")


if __name__ == "__main__":
    main()
