"""One self-contained web page that shows the answers of a model, with filters, curves and mistakes."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from coattn._internal.files import atomic_path
from coattn.datasets.leaks import find_exposures
from coattn.datasets.records import Record
from coattn.datasets.results import Doubt, Results
from coattn.metrics.score import aligned, judge, summarize

PICTURE_SIZE, MAX_PICTURES, MAX_PICTURE_BYTES = 176, 400, 4_000_000


def write_page(
    path: str | Path,
    results: Results,
    records: Sequence[Record],
    metric: str,
    *,
    title: str,
    training: Sequence[Record] | None = None,
    images: Mapping[str, Path] | None = None,
) -> None:
    """Write the page. It loads nothing from elsewhere, and its rows are drawn on demand.

    Args:
        path: The HTML file.
        results: The answers, one to each question.
        records: The questions with the human answers.
        metric: A name in `coattn.metrics.score.METRICS`.
        title: The heading of the page.
        training: The training questions, to say which images and questions training has seen.
        images: Image id to image file. Small copies of those with mistakes are embedded.

    Raises:
        ValueError: Answers and questions do not correspond, or an image is damaged.
        OSError: A file cannot be read or written.
    """
    data = page_data(results, records, metric, title=title, training=training, images=images)
    # "<" could end the element that holds the data
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    template = resources.files("coattn.visualization").joinpath("browse.html").read_text(encoding="utf-8")
    with atomic_path(path) as partial:
        partial.write_text(template.replace("__DATA__", text), encoding="utf-8")


def page_data(
    results: Results,
    records: Sequence[Record],
    metric: str,
    *,
    title: str,
    training: Sequence[Record] | None = None,
    images: Mapping[str, Path] | None = None,
) -> dict[str, Any]:
    """The data of the page as plain values; see `write_page`. Questions that do not count are left out."""
    judgement = judge(results, records, metric)
    scores = summarize(judgement, results, records, metric)
    answers = {str(question_id): answer for question_id, answer in results.answers.items()}
    doubts = {str(question_id): doubt for question_id, doubt in results.doubts.items()}
    confidence = aligned(results.confidences, records)
    exposures = None if training is None else find_exposures(training, records)
    types, image_ids, reasons = _Numbers(), _Numbers(), _Numbers()
    rows = []
    for place in np.flatnonzero(~np.isnan(judgement.worth)).tolist():
        record, key = records[place], str(records[place].question_id)
        doubt = doubts.get(key, Doubt())
        rows.append(
            [
                record.question_id,
                image_ids.of(str(record.image_id)),
                record.question,
                answers[key],
                record.answer,
                round(float(judgement.worth[place]), 4),
                None if confidence is None else round(float(confidence[place]), 4),
                types.of(record.question_type or record.answer_type),
                0 if exposures is None else exposures[place].image + 2 * exposures[place].question,
                reasons.of(" ".join(doubt.reasons)) if doubt.reasons else -1,
                int(doubt.withheld),
            ]
        )
    counted = f"{len(rows)} questions on {len(image_ids)} images"
    return {
        "title": title,
        "summary": f"{metric} {scores.overall:.2f} % on {counted}",
        "metric": metric,
        "overall": scores.overall,
        "exposed": exposures is not None,
        "types": list(types),
        "images": list(image_ids),
        "reasons": list(reasons),
        "rows": rows,
        "pictures": _pictures(rows, list(image_ids), images or {}),
    }


class _Numbers(dict[str, int]):
    """Numbers of texts, by first appearance."""

    def of(self, text: str) -> int:
        return self.setdefault(text, len(self))


def _pictures(rows: Sequence[Sequence[Any]], image_ids: Sequence[str], files: Mapping[str, Path]) -> dict[int, str]:
    """Small JPEG copies as data URIs, by the number of the image: of the most confident mistakes and worst images."""
    wrong = [row for row in rows if row[5] < 0.5]
    surest = sorted(wrong, key=lambda row: -(row[6] or 0))
    worst = [image for image, _ in Counter(row[1] for row in wrong).most_common(MAX_PICTURES // 4)]
    wanted = dict.fromkeys([*(row[1] for row in surest[: MAX_PICTURES // 4]), *worst, *(row[1] for row in surest)])
    found: dict[int, str] = {}
    size = 0
    for image in list(wanted)[:MAX_PICTURES]:
        file = files.get(image_ids[image])
        if file is None:
            continue
        try:
            with Image.open(file) as opened:
                small = ImageOps.exif_transpose(opened).convert("RGB")
        except (OSError, Image.DecompressionBombError) as error:
            raise ValueError(f"{file}: not a readable image ({error}); repair it, or leave out --images") from None
        small.thumbnail((PICTURE_SIZE, PICTURE_SIZE))
        content = io.BytesIO()
        small.save(content, "JPEG", quality=72)
        uri = "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()
        size += len(uri)
        if size > MAX_PICTURE_BYTES:
            break
        found[image] = uri
    return found
