"""Describe the folder of a prepared data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coattn._internal.files import read_json
from coattn.datasets.prepared import REPORT
from coattn.datasets.report import build_report
from coattn.datasets.vqa_json import read_vqa

_NAMED = 5  # missing images


def describe_dataset(folder: Path, *, verify: bool = False) -> dict[str, Any]:
    """The report on a prepared folder (see `build_report`), made again from its questions and annotations.

    Args:
        folder: the folder that `coattn prepare` wrote.
        verify: count the images of `images.json` that are missing.

    Raises:
        ValueError: a file is damaged.
        OSError: a file cannot be read.
    """
    last = read_json(folder / REPORT)
    if not isinstance(last, dict) or "prepared" not in last:
        raise ValueError(f"{folder / REPORT}: not the report of a prepared data set; run coattn prepare again")
    splits, metric = {}, ""
    for questions in sorted(folder.glob("*_questions.json")):
        split = questions.name.removesuffix("_questions.json")
        annotations = folder / f"{split}_annotations.json"
        data = read_vqa(questions, annotations if annotations.exists() else None)
        splits[split], metric = data.records, data.metric
    if not splits:
        raise ValueError(f"{folder}: has no questions any more; run coattn prepare again")
    found: dict[str, Any] = {"kind": "prepared data set", "path": str(folder), "metric": metric}
    found |= {"prepared": last["prepared"], "source": last.get("source")} | build_report(splits, metric)
    if verify:
        images = read_json(folder / "images.json") if (folder / "images.json").exists() else {}
        if not isinstance(images, dict) or not all(isinstance(path, str) for path in images.values()):
            raise ValueError(f"{folder / 'images.json'}: not an object of image id to file; run coattn prepare again")
        missing = [image_id for image_id, path in images.items() if not (folder / path).is_file()]
        found["missing_images"] = {"number": len(missing), "first": missing[:_NAMED]}
    return found
