"""The record of an extractor, which a store and a model both keep, and the comparison of two records.

A record is `{"name": str, "settings": {...}, "weights": {"id": str, "sha256": str} | None, "versions": {...}}`.
Versions are informative and do not affect whether two records match. They are the versions of libraries; converted
features have instead `sources`, the files they were read from, `[{"file": str, "sha256": str}, ...]`, and `cut_boxes`,
the number of boxes that were cut at the border of their image.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]


def check_record(record: Any, where: str) -> None:
    """Check that a value read from a file is the record of an extractor.

    Raises:
        ValueError: it is not; the message begins with `where` and names the wrong field.
    """
    if not isinstance(record, Mapping):
        raise ValueError(f"{where}: the extractor record is not an object")
    weights, versions = record.get("weights"), record.get("versions", {})
    fields = isinstance(versions, Mapping)
    sources, cut_boxes = (versions.get("sources", []), versions.get("cut_boxes", 0)) if fields else (None, None)
    right = {
        "name": isinstance(record.get("name"), str),
        "settings": isinstance(record.get("settings"), Mapping),
        "weights": "weights" in record and (weights is None or _has_texts(weights, "id", "sha256")),
        "versions": fields,
        "versions.sources": isinstance(sources, list) and all(_has_texts(one, "file", "sha256") for one in sources),
        "versions.cut_boxes": isinstance(cut_boxes, int),
    }
    if wrong := [field for field, fine in right.items() if not fine]:
        raise ValueError(f"{where}: the extractor record is damaged, its {wrong[0]} is missing or of a wrong type")


def _has_texts(value: Any, *keys: str) -> bool:
    return isinstance(value, Mapping) and all(isinstance(value.get(key), str) for key in keys)


def same_extractor(a: Record, b: Record) -> bool:
    """Whether two records name the same extractor: equal name, settings and hash of the weights."""
    return _identity(a) == _identity(b)


def require_same_extractor(wanted: Record, found: Record, *, wanted_by: str, found_in: str) -> None:
    """Refuse features of another extractor. With the same width they would go unnoticed and make every answer wrong.

    Raises:
        ValueError: the records differ. The message names each differing field with both values.
    """
    ours, theirs = _identity(wanted), _identity(found)
    if ours == theirs:
        return
    differing = [
        f"{field} {json.dumps(ours.get(field))} there, {json.dumps(theirs.get(field))} here"
        for field in sorted(ours.keys() | theirs.keys())
        if ours.get(field) != theirs.get(field)
    ]
    raise ValueError(
        f"{found_in}: its features were made by another extractor than {wanted_by} was made with "
        f"({'; '.join(differing)}); extract the images again with the same extractor"
    )


def joined_record(records: Sequence[Record]) -> dict[str, Any]:
    """Record of several stores or shards of one extractor: the first record, with the sources of all.

    A folder that was converted in parts gets one hash over the hashes of its parts.
    """
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        for source in record.get("versions", {}).get("sources", ()):
            found.setdefault(source["file"], {})[source["sha256"]] = source
    if not found:
        return dict(records[0])
    sources = [
        next(iter(parts.values()))
        if len(parts) == 1
        else {"file": file, "sha256": hashlib.sha256("".join(parts).encode()).hexdigest(), "parts": len(parts)}
        for file, parts in found.items()
    ]
    cut_boxes = sum(record["versions"].get("cut_boxes", 0) for record in records)
    return {**records[0], "versions": {**records[0]["versions"], "sources": sources, "cut_boxes": cut_boxes}}


def _identity(record: Record) -> dict[str, Any]:
    """The compared fields, flat. They pass through JSON, so that a record equals its stored copy."""
    weights = record["weights"]
    flat = {"name": record["name"], "weights.sha256": weights and weights["sha256"]}
    return json.loads(json.dumps(flat | _flat(record["settings"], "settings.")))


def _flat(settings: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return found
