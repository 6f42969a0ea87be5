"""`tools/bench convert`: converting bottom-up features into a store, beside decoding their base64 alone."""

from __future__ import annotations

import base64
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.context import Context, Row
from benchmarks.timing import alternate, ratio, seconds, summary
from coattn.features.convert.run import convert

CASE = "bottom-up attention's TSV to float16"
OURS, LIMIT = "coattn", "base64 alone"
_REGIONS, _DIM = 36, 2048


def run(context: Context) -> list[Row]:
    """Two rows from a warm cache. We read, hash, check, write and sync; the limit only decodes text in memory."""
    if context.device == "cuda":
        print("convert is not measured: nothing of it runs on a GPU")
        return []
    megabytes = context.scale.tsv_megabytes
    with TemporaryDirectory(dir=context.folder) as folder:
        path = Path(folder, "features.tsv")
        write_tsv(path, megabytes=megabytes)
        fields = encoded_fields(path)
        runs = {
            OURS: lambda: megabytes / seconds(partial(convert_once, path)),
            LIMIT: lambda: megabytes / seconds(partial(decode, fields)),
        }
        found = alternate(runs, context.scale.reading_rounds)
    return [
        {
            "case": CASE,
            "implementation": OURS,
            "MB/s": summary(found[OURS]),
            "share of limit": ratio(found[OURS], found[LIMIT]),
        },
        {"case": CASE, "implementation": LIMIT, "MB/s": summary(found[LIMIT])},
    ]


def write_tsv(path: Path, *, megabytes: float) -> None:
    """Write a TSV in LXMERT's order of about this size, with features like a detector's: about half are zeros."""
    rng = np.random.default_rng(0)
    rows = [np.maximum(rng.normal(size=(_REGIONS, _DIM)), 0).astype("<f4") for _ in range(8)]
    corners = np.sort(rng.random((_REGIONS, 2, 2)), axis=1).reshape(_REGIONS, 4) * [640, 480, 640, 480]
    numbers, confidences = np.arange(_REGIONS, dtype="<i8"), rng.random(_REGIONS).astype("<f4")
    small = [base64.b64encode(array.tobytes()) for array in (numbers, confidences, numbers, confidences)]
    boxes = base64.b64encode(corners.astype("<f4").tobytes())
    features = [base64.b64encode(array.tobytes()) for array in rows]
    with path.open("wb") as file:
        number = 0
        while file.tell() < megabytes * 1e6:
            name = b"COCO_train2014_%012d" % number
            fields = [name, b"480", b"640", *small, b"%d" % _REGIONS, boxes, features[number % len(features)]]
            file.write(b"\t".join(fields) + b"\n")
            number += 1


def encoded_fields(path: Path) -> list[bytes]:
    """The base64 fields of such a file: all but id, height, width and the number of boxes."""
    lines = path.read_bytes().splitlines()
    return [field for line in lines for place, field in enumerate(line.split(b"\t")) if place not in (0, 1, 2, 7)]


def decode(fields: list[bytes]) -> None:
    """Decode and forget."""
    for field in fields:
        base64.b64decode(field)


def convert_once(path: Path) -> None:
    """Convert like `coattn convert bottom-up-tsv`."""
    with TemporaryDirectory(dir=path.parent) as out:
        convert("bottom-up-tsv", [path], Path(out, "store"), progress=False)
