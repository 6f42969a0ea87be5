"""How long `coattn convert bottom-up-tsv` takes, in units of decoding the same file's base64 and nothing else.

    python tools/benchmark_convert.py                      # a file of 100 MB in a temporary folder, float16
    python tools/benchmark_convert.py --dtype int8 --megabytes 400

Both are measured in turns in one process; the decoding has its text in memory, the conversion reads the file, hashes
it, checks it, and writes and syncs the store. Aim: at most 3 times.
"""

from __future__ import annotations

import argparse
import base64
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from coattn.features.convert import convert

REGIONS, DIM = 36, 2048


def write_tsv(path: Path, *, megabytes: float) -> None:
    """A TSV in LXMERT's order of about that size, of features like a detector's: about half of them zeros."""
    rng = np.random.default_rng(0)
    rows = [np.maximum(rng.normal(size=(REGIONS, DIM)), 0).astype("<f4") for _ in range(8)]
    corners = np.sort(rng.random((REGIONS, 2, 2)), axis=1).reshape(REGIONS, 4) * [640, 480, 640, 480]
    numbers, confidences = np.arange(REGIONS, dtype="<i8"), rng.random(REGIONS).astype("<f4")
    small = [base64.b64encode(array.tobytes()) for array in (numbers, confidences, numbers, confidences)]
    boxes = base64.b64encode(corners.astype("<f4").tobytes())
    features = [base64.b64encode(array.tobytes()) for array in rows]
    with path.open("wb") as file:
        number = 0
        while file.tell() < megabytes * 1e6:
            name = b"COCO_train2014_%012d" % number
            fields = [name, b"480", b"640", *small, b"%d" % REGIONS, boxes, features[number % len(features)]]
            file.write(b"\t".join(fields) + b"\n")
            number += 1


def decode(lines: list[bytes]) -> float:
    """Seconds to decode all base64 of the lines."""
    fields = [field for line in lines for place, field in enumerate(line.split(b"\t")) if place not in (0, 1, 2, 7)]
    start = time.perf_counter()
    for field in fields:
        base64.b64decode(field)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=100)
    parser.add_argument("--dtype", default="float16", choices=("float16", "float32", "int8"))
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tsv = Path(folder, "features.tsv")
        write_tsv(tsv, megabytes=args.megabytes)
        lines = tsv.read_bytes().splitlines()
        decoding, converting = [], []
        for run in range(args.runs):
            decoding.append(decode(lines))
            start = time.perf_counter()
            convert("bottom-up-tsv", [tsv], Path(folder, f"out{run}"), dtype=args.dtype, progress=False)
            converting.append(time.perf_counter() - start)
    ratios = [ours / base for ours, base in zip(converting, decoding, strict=True)]
    print(f"{len(lines)} images, {args.megabytes:g} MB, {args.dtype}; median of {args.runs} runs (fastest)")
    print(f"base64 alone  {statistics.median(decoding):6.2f} s ({min(decoding):.2f})")
    print(f"conversion    {statistics.median(converting):6.2f} s ({min(converting):.2f})")
    print(f"ratio         {statistics.median(ratios):6.2f}   ({min(converting) / min(decoding):.2f})")


if __name__ == "__main__":
    main()
