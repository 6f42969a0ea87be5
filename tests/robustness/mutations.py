"""Seeded damage to files: bytes of any file, and values inside JSON, YAML, zip, safetensors and HDF5 files."""

from __future__ import annotations

import io
import json
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import h5py
import yaml

# In JSON text, values that `json.dumps` cannot write: lists nested 100,000 deep, and a number of 5,000 digits.
_UNWRITTEN = {"@deep@": "[" * 100_000 + "]" * 100_000, "@digits@": "9" * 5000}
_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, 2**31, 2**63, 10**30, -(10**30), 1e308, float("nan"), float("inf")),
    *("", "text", "\ud800", "\x1b[2J\n", "../../secret", "x" * 2_000_000),
    *([], [[]], [None], {}, {"a": 1}, [1] * 100_000, *_UNWRITTEN),
)


def mutate(path: Path, random: Random) -> str:
    """Damage a file in one way, chosen by `random`; returns the way in words."""
    content = path.read_bytes()
    ways: list[Callable[[bytes, Random], bytes]] = [_flip, _truncate, _delete, _duplicate, _swap, _blank, _insert]
    inside = _inside(path, content)
    if random.random() < 0.03:
        path.unlink()
        path.mkdir()
        return "a folder in its place"
    if random.random() < 0.03:
        path.write_bytes(b"")
        return "empty"
    if inside is not None and random.random() < 0.6:
        ways = [inside]
    way = random.choice(ways)
    path.write_bytes(way(content, random))
    return way.__name__.strip("_")


def _inside(path: Path, content: bytes) -> Callable[[bytes, Random], bytes] | None:
    """The way to change a value inside of a file, by its content."""
    if content.startswith(b"PK"):
        return _change_zip
    if content.startswith(b"\x89HDF"):
        return _change_hdf5
    if path.suffix == ".safetensors":
        return _change_safetensors
    if path.suffix in (".yaml", ".yml"):
        return _change_yaml
    if path.suffix == ".jsonl":
        return _change_json_line
    try:
        json.loads(content)
    except ValueError:
        return None
    return _change_json


def _flip(content: bytes, random: Random) -> bytes:
    changed = bytearray(content or b"\0")
    for _ in range(random.randint(1, 4)):
        changed[random.randrange(len(changed))] ^= random.randint(1, 255)
    return bytes(changed)


def _truncate(content: bytes, random: Random) -> bytes:
    return content[: random.randrange(len(content) or 1)]


def _span(content: bytes, random: Random) -> tuple[int, int]:
    """The begin and end of a part, which is short in most cases; of a text, often whole lines."""
    if random.random() < 0.4 and (ends := [at + 1 for at, byte in enumerate(content[:100_000]) if byte == 10]):
        borders = [0, *ends]
        first = random.randrange(len(borders))
        return borders[first], borders[min(first + random.randint(1, 3), len(borders) - 1)]
    start = random.randrange(len(content) or 1)
    return start, min(len(content), start + random.choice((1, 2, 4, 16, 256, len(content))))


def _delete(content: bytes, random: Random) -> bytes:
    start, end = _span(content, random)
    return content[:start] + content[end:]


def _duplicate(content: bytes, random: Random) -> bytes:
    start, end = _span(content, random)
    return content[:end] + content[start:]


def _swap(content: bytes, random: Random) -> bytes:
    a, b, c = sorted(random.randrange(len(content) + 1) for _ in range(3))
    return content[:a] + content[b:c] + content[a:b] + content[c:]


def _blank(content: bytes, random: Random) -> bytes:
    start, end = _span(content, random)
    return content[:start] + bytes(end - start) + content[end:]


def _insert(content: bytes, random: Random) -> bytes:
    start, _ = _span(content, random)
    added = random.choice((random.randbytes(8), b"x" * 2_000_000, b"\n" * 1000, "ä€😀".encode(), b',;\t|"'))
    return content[:start] + added + content[start:]


def change_value(value: Any, random: Random) -> Any:
    """A JSON value with one of its values at any depth replaced, removed, repeated or moved."""
    holders: list[tuple[Any, Any]] = []

    def walk(inner: Any) -> None:
        for key in inner if isinstance(inner, dict) else range(len(inner)) if isinstance(inner, list) else ():
            holders.append((inner, key))
            walk(inner[key])

    walk(value)
    if not holders or random.random() < 0.05:
        return random.choice(_VALUES)
    holder, key = random.choice(holders)
    way = random.choice(("replace", "replace", "replace", "remove", "repeat", "move"))
    if way == "replace":
        holder[key] = random.choice(_VALUES)
    elif way == "remove":
        del holder[key]
    elif isinstance(holder, list):
        item = holder[key] if way == "repeat" else holder.pop(key)
        holder.insert(random.randrange(len(holder) + 1), item)
    else:
        holder[random.choice((f"{key}_2", "", "x" * 1000)) if way == "repeat" else f"moved {key}"] = (
            holder[key] if way == "repeat" else holder.pop(key)
        )
    return value


def _dumped(value: Any) -> bytes:
    text = json.dumps(value)
    for name, written in _UNWRITTEN.items():
        text = text.replace(f'"{name}"', written)
    return text.encode()


def _change_json(content: bytes, random: Random) -> bytes:
    return _dumped(change_value(json.loads(content), random))


def _change_json_line(content: bytes, random: Random) -> bytes:
    lines = content.splitlines()
    place = random.randrange(len(lines))
    lines[place] = _change_json(lines[place], random)
    return b"\n".join(lines)


def _change_yaml(content: bytes, random: Random) -> bytes:
    return yaml.safe_dump(change_value(yaml.safe_load(content), random), allow_unicode=False).encode()


def _change_zip(content: bytes, random: Random) -> bytes:
    """Change one file of an archive, whose checksum is then right."""
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(changed, "w") as written:
        names = archive.namelist()
        chosen = random.choice(names)
        for name in names:
            member = archive.read(name)
            if name == chosen:
                way = random.choice((_flip, _truncate, _delete, _duplicate, _blank))
                member = way(member, random)
            written.writestr(archive.getinfo(name), member)
    return changed.getvalue()


def _change_safetensors(content: bytes, random: Random) -> bytes:
    (length,) = struct.unpack("<Q", content[:8])
    header = _dumped(change_value(json.loads(content[8 : 8 + length]), random))
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def _change_hdf5(content: bytes, random: Random) -> bytes:
    """Change an attribute or an element, or remove or resize a data set."""
    buffer = io.BytesIO(content)
    with h5py.File(buffer, "r+") as file:
        datasets: list[h5py.Dataset] = []
        file.visititems(lambda _, item: datasets.append(item) if isinstance(item, h5py.Dataset) else None)
        if file.attrs and random.random() < 0.4:
            name = random.choice(sorted(file.attrs))
            value = file.attrs[name]
            try:
                file.attrs[name] = _dumped(change_value(json.loads(value), random)).decode()[:60_000].replace("\0", "")
            except (TypeError, ValueError):
                file.attrs[name] = random.choice(("", "text", -1, 1.5, 2**62))
            return _closed(file, buffer)
        chosen = random.choice(datasets)
        name, values = chosen.name, chosen[()]
        way = random.choice(("element", "element", "remove", "shorten", "type"))
        if way == "element" and values.size and values.dtype.kind in "iuf":
            at = random.randrange(values.size)
            high = 2**15 if values.dtype.itemsize > 1 else 100
            values.reshape(-1)[at] = random.choice((0, -1, 7, high - 1) if values.dtype.kind != "u" else (0, 7))
            chosen[...] = values
        else:
            del file[name]
            if way == "shorten" and values.ndim:
                file[name] = values[: len(values) // 2]
            elif way == "type":
                file[name] = values.astype("f8") if values.dtype.kind in "iuf" else 7
        return _closed(file, buffer)


def _closed(file: h5py.File, buffer: io.BytesIO) -> bytes:
    file.close()
    return buffer.getvalue()


def restore(source: Path, target: Path, name: str) -> None:
    """Put back the file `name` of `target` from `source`."""
    path = target / name
    if path.is_dir():
        shutil.rmtree(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source / name, path)
