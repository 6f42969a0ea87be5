"""The curves of `coattn explain-test` as a picture: the answer's probability as regions are shown, and removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from coattn.visualization.canvas import Box, Canvas, text_width
from coattn.visualization.color import FAINT, INK, MUTED

MARGIN, GAP, HEIGHT = 34, 64, 260
COLORS = ("#c43d1b", "#2b6cb0", "#2a8c4a", "#7d54b2", "#8a8c12", "#8c5a3c")
GRAY = "#9aa5b0"


def draw_faithfulness(report: Mapping[str, Any]) -> Image.Image:
    """Two charts for each way of removal, side by side, with one color for each method and gray for random orders.

    Args:
        report: of `coattn.explain.faithful.summary`.
    """
    canvas = Canvas(960)
    width = (canvas.width - 2 * MARGIN - GAP) / 2
    names = list(report["methods"])
    what = f"{report['questions']} {report['split']} questions on {report['images']} images"
    canvas.text(MARGIN, MARGIN, "How the predicted answer depends on the regions", 18, weight="bold")
    canvas.text(MARGIN, MARGIN + 24, f"Mean probability of the answer, {what}", 12.5, color=MUTED)
    x, y = float(MARGIN), MARGIN + 54
    for number, name in enumerate([*names, "random"]):
        label = f"{name} {report['methods'][name]['mask']['score']:+.1f}" if name in names else "random orders"
        if x + 24 + text_width(label, 12.5) > canvas.width - MARGIN:
            x, y = float(MARGIN), y + 22
        canvas.chip(Box(x, y - 3, 18, 6), _color(names, name, number), radius=3)
        canvas.text(x + 24, y, label, 12.5)
        x += text_width(label, 12.5) + 48
    y += 26
    for way, random in report["random"].items():
        for side, title in enumerate(("insertion", "deletion")):
            box = Box(MARGIN + side * (width + GAP) + 24, y + 26, width - 24, HEIGHT)
            verb = "shown" if title == "insertion" else f"removed by {way}"
            canvas.text(box.x, y + 8, f"Most important regions {verb} first", 13, weight="bold")
            for share in (0, 0.25, 0.5, 0.75, 1):
                level = box.y + box.height * (1 - share)
                canvas.line(np.array([[box.x, level], [box.x + box.width, level]]), FAINT, 1)
                canvas.text(box.x - 8, level, f"{100 * share:.0f} %", 11, color=MUTED, align="right")
                place = box.x + box.width * share
                canvas.text(place, box.y + box.height + 14, f"{100 * share:.0f} %", 11, color=MUTED, align="center")
            for number, name in reversed(list(enumerate([*names, "random"]))):
                curve = np.array((report["methods"][name][way]["curves"] if name in names else random)[title])
                steps = np.linspace(0, 1, len(curve))
                points = np.stack((box.x + steps * box.width, box.y + (1 - curve) * box.height), 1)
                canvas.line(points, _color(names, name, number), 2.6 if number == 0 else 1.8)
        y += HEIGHT + 72
    canvas.text(
        MARGIN, y - 16, "Share of the regions shown or removed. Scores: points above random orders.", 12.5, color=INK
    )
    return canvas.finish(y + 8)


def _color(names: list[str], name: str, number: int) -> str:
    return COLORS[number % len(COLORS)] if name in names else GRAY
