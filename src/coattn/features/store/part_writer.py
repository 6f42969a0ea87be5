"""Write one HDF5 file of a feature store."""

from __future__ import annotations

import errno
import json
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np

from coattn._internal.files import atomic_path
from coattn.features.store.layout import FORMAT, VERSION, ColumnBlocks, Skipped

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_HEADER_BYTES = 2**20  # more than HDF5 needs for its headers and the alignment of columns


def write_part(
    path: Path,
    *,
    record: Mapping[str, Any],
    image_ids: Sequence[str],
    lengths: Sequence[int] | np.ndarray,
    sizes: np.ndarray,
    columns: Mapping[str, ColumnBlocks],
    skipped: Sequence[Skipped] = (),
    sources: str = "",
) -> None:
    """Write one file, atomically. Its bytes depend on the arguments alone: HDF5 keeps no time stamps here.

    HDF5 writes only headers. Rows are written as plain bytes into space that is reserved first, because HDF5 can crash
    the process when the disk is full while it closes a file.

    Raises:
        OSError: the file cannot be written; on a full disk the error names `path`.
    """
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype("<i8")
    num_rows = int(offsets[-1])
    small = {
        "offsets": offsets,
        "sizes": np.asarray(sizes, "<i4").reshape(len(image_ids), 2),
        "image_ids": _fixed_text(image_ids),
        **({"skipped": _fixed_text([json.dumps(entry, ensure_ascii=False) for entry in skipped])} if skipped else {}),
    }
    checked = [*columns, "offsets", "sizes"]
    texts = {"format": FORMAT, "extractor": json.dumps(record), "sources": sources, "crc32_of": json.dumps(checked)}
    shapes = {
        **{name: ((num_rows, *row_shape), dtype) for name, (dtype, row_shape, _) in columns.items()},
        **{name: (array.shape, array.dtype) for name, array in small.items()},
        "crc32": ((len(checked),), np.dtype("<u4")),
    }
    total = sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in shapes.values())
    with naming_full_disk(path), atomic_path(path) as partial:
        _reserve(partial, total + _HEADER_BYTES + sum(map(len, texts.values())))
        # Page-aligned columns; rows would otherwise straddle one page more than they must.
        aligned = {"alignment_threshold": 4096, "alignment_interval": 4096}
        with h5py.File(partial, "w", locking=False, **aligned) as file:
            created = {name: _allocate(file, name, shape, dtype) for name, (shape, dtype) in shapes.items()}
            places = {name: dataset.id.get_offset() for name, dataset in created.items()}
            for name, text in texts.items():
                file.attrs[name] = _fixed_text([text])[0]
            file.attrs["version"] = VERSION
            file.attrs["complete"] = True
        _reserve(partial, partial.stat().st_size)
        checksums = {}
        blocks_of = {**{name: blocks for name, (_, _, blocks) in columns.items()}, **{n: [a] for n, a in small.items()}}
        with partial.open("r+b") as plain:
            for name, blocks in blocks_of.items():
                checksums[name] = _write_blocks(plain, places[name], blocks, math.prod(shapes[name][0]))
            _write_blocks(
                plain, places["crc32"], [np.array([checksums[name] for name in checked], "<u4")], len(checked)
            )


def _allocate(file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype) -> h5py.Dataset:
    """A contiguous data set whose place in the file is fixed at once, and which HDF5 does not fill."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    return file.create_dataset(name, shape, dtype, dcpl=properties)


def _write_blocks(file: IO[bytes], place: int | None, blocks: Iterable[np.ndarray], num_values: int) -> int:
    """Write blocks one after another from byte `place` on; returns their checksum."""
    checksum = written = 0
    if place is not None:  # HDF5 gives empty data sets no place
        file.seek(place)
    for block in blocks:
        content = np.ascontiguousarray(block)
        written += content.size
        if content.size:
            data = content.reshape(-1).view(np.uint8).data
            file.write(data)
            checksum = zlib.crc32(data, checksum)
    assert written == num_values, f"{written} values written of {num_values}"
    return checksum


def _reserve(path: Path, num_bytes: int) -> None:
    """Reserve space on the disk, where the system can; a full disk is an error here and not later."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, num_bytes)


def _fixed_text(texts: Sequence[str]) -> np.ndarray:
    """Strings as utf-8 of one length in bytes. HDF5's other kind can send a reader of a damaged file into a loop."""
    data = [text.encode() for text in texts]
    return np.array(data, h5py.string_dtype("utf-8", max(map(len, data), default=0) or 1))


@contextmanager
def naming_full_disk(path: Path) -> Iterator[None]:
    """Name the file in errors of a full disk: those of h5py and of temporary files have no name."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        text = str(error)
        number = getattr(error, "errno", None) or next((n for n in _FULL if f"errno = {n}," in text), None)
        if number not in _FULL:
            raise
        raise OSError(number, os.strerror(number), str(path)) from None
