"""One self-contained web page that shows the answers of a model, with filters, curves and mistakes."""

from __future__ import annotations

import base64
import io
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from coattn._internal.files import atomic_path
from coattn.datasets.doubt import Doubt
from coattn.datasets.leaks import find_exposures
from coattn.datasets.records import Record
from coattn.datasets.results import Results
from coattn.explain.maps import Explanation
from coattn.features.extract.images import load_image
from coattn.metrics.score import aligned, judge, summarize
from coattn.visualization.attention import draw_map

PICTURE_SIZE, MAX_PICTURES, MAX_PICTURE_BYTES = 176, 400, 4_000_000
MAX_MAPS, WORST_IMAGES, WORST_QUESTIONS = 60, 12, 3  # of the surest mistakes; of the images with the most mistakes

# An image and a question to their explanation; None if the image is not at hand.
Explainer = Callable[[Record], Explanation | None]
Row = Sequence[Any]  # a question of the page, see `page_data`


def write_page(
    path: str | Path,
    results: Results,
    records: Sequence[Record],
    metric: str,
    *,
    title: str,
    training: Sequence[Record] | None = None,
    images: Mapping[str, Path] | None = None,
    explain: Explainer | None = None,
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
        explain: Explains the model's answer to a question, for maps of the mistakes that are shown first. A map is
            left out where the model gives another answer than the results.

    Raises:
        ValueError: Answers and questions do not correspond, an image is damaged, or the model of `explain` gives other
            answers to all mistakes.
        OSError: A file cannot be read or written.
    """
    data = page_data(results, records, metric, title=title, training=training, images=images, explain=explain)
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
    explain: Explainer | None = None,
) -> dict[str, Any]:
    """The data of the page as plain values; see `write_page`. Questions that do not count are left out."""
    judgement = judge(results, records, metric, where=title)
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
        "maps": {} if explain is None else _maps(rows, records, explain),
        "explained": explain is not None,
    }


class _Numbers(dict[str, int]):
    """Numbers of texts, by first appearance."""

    def of(self, text: str) -> int:
        return self.setdefault(text, len(self))


def _mistakes(rows: Sequence[Row]) -> tuple[list[Row], list[list[Row]]]:
    """The wrong rows, the surest first, and those of each image, the image with the most first."""
    wrong = [row for row in rows if row[5] < 0.5]
    by_image: dict[int, list[Row]] = {}
    for row in wrong:
        by_image.setdefault(row[1], []).append(row)
    return sorted(wrong, key=lambda row: -(row[6] or 0)), sorted(by_image.values(), key=lambda found: -len(found))


def _pictures(rows: Sequence[Row], image_ids: Sequence[str], files: Mapping[str, Path]) -> dict[int, str]:
    """Small copies by the number of the image: of the most confident mistakes and worst images."""
    surest, worst = _mistakes(rows)
    some = MAX_PICTURES // 4
    wanted = dict.fromkeys(
        [*(row[1] for row in surest[:some]), *(found[0][1] for found in worst[:some]), *(row[1] for row in surest)]
    )
    found: dict[int, str] = {}
    size = 0
    for image in list(wanted)[:MAX_PICTURES]:
        file = files.get(image_ids[image])
        if file is None:
            continue
        small = load_image(file)
        small.thumbnail((PICTURE_SIZE, PICTURE_SIZE))
        uri = _uri(small)
        size += len(uri)
        if size > MAX_PICTURE_BYTES:
            break
        found[image] = uri
    return found


def _maps(rows: Sequence[Row], records: Sequence[Record], explain: Explainer) -> dict[str, str]:
    """Maps of what answers depend on, by question id: of the mistakes that the page shows first."""
    by_id = {str(record.question_id): record for record in records}
    surest, worst = _mistakes(rows)
    shown = [*surest[:MAX_MAPS], *(row for found in worst[:WORST_IMAGES] for row in found[:WORST_QUESTIONS])]
    wanted = {str(row[0]): row[3] for row in shown}
    found, others = {}, []
    for key, answer in wanted.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the page shows the doubts
            explanation = explain(by_id[key])
        if explanation is None or explanation.attribution is None:
            continue
        if (by_model := explanation.attribution.answer) != answer:
            others.append(f"question {key!r}: {answer!r} in the results, {by_model!r} by the model")
            continue
        found[key] = _uri(draw_map(explanation, PICTURE_SIZE))
    if len(others) > 1 and not found:  # a single one may be a tie, which another device breaks differently
        raise ValueError(
            f"the results are not the answers of this model ({others[0]}); give the model that they are of"
        )
    return found


def _uri(picture: Image.Image) -> str:
    content = io.BytesIO()
    picture.convert("RGB").save(content, "JPEG", quality=72)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()
