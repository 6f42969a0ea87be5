"""The model card, the README.md of a model directory: front matter and a list of sections."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from coattn._internal.files import require

TASK = "visual-question-answering"  # the id of the task on the Hugging Face Hub
_ACCURACIES = frozenset(
    {"vqa_accuracy", "soft_accuracy", "multiple_choice", "textvqa", "gqa", "clevr", "vizwiz", "a_okvqa"}
)
_FRONT = re.compile(r"---\n(.*?)^---\n", re.DOTALL | re.MULTILINE)


class Section(NamedTuple):
    """A section of a model card.

    Attributes:
        title: its heading.
        body: Markdown below the heading.
    """

    title: str
    body: str


def write_card(name: str, intro: str, sections: Iterable[Section], *, metadata: Mapping[str, Any] | None = None) -> str:
    """Compose a model card, Markdown.

    Args:
        name: the title.
        intro: Markdown between the title and the first section: the model and its use.
        sections: the sections, in their order.
        metadata: entries of the front matter besides the library and the task, e.g. `{"license": "unknown"}`.
    """
    blocks = [_front_matter(metadata or {}).rstrip(), f"# {name}", intro.strip()]
    blocks += [f"## {section.title}\n\n{section.body.strip()}" for section in sections]
    return "\n\n".join(blocks) + "\n"


def _front_matter(metadata: Mapping[str, Any]) -> str:
    """The front matter of a card, YAML. Values other than plain words are written as JSON, which YAML includes."""
    entries = {"library_name": "coattn", "pipeline_tag": TASK, **metadata}
    texts = {
        key: value if isinstance(value, str) and re.fullmatch(r"[\w./-]+", value) else json.dumps(value)
        for key, value in entries.items()
    }
    return "---\n" + "".join(f"{key}: {text}\n" for key, text in texts.items()) + "---\n"


def hub_metric(metric: str) -> str:
    """The Hub's id of a metric; the metric's own name where the Hub has none."""
    return "accuracy" if metric in _ACCURACIES else metric


def score_metadata(name: str, dataset: str, metric: str, score: float) -> dict[str, Any]:
    """The entries of the front matter that make the Hub show a score.

    Args:
        name: the name of the model.
        dataset: the name of the data set.
        metric: a name in `coattn.metrics.score.METRICS`.
        score: the score on the validation questions, in percent.
    """
    result = {
        "task": {"type": TASK},
        "dataset": {"name": dataset, "type": dataset, "split": "validation"},
        "metrics": [{"type": hub_metric(metric), "name": f"{metric}, in percent", "value": round(score, 2)}],
    }
    return {"metrics": [hub_metric(metric)], "model-index": [{"name": name, "results": [result]}]}


def update_metadata(card: str, metadata: Mapping[str, Any], *, where: str) -> str:
    """The card with these entries in its front matter. Empty values leave the entries of the card as they are.

    Args:
        card: Markdown, with or without front matter.
        metadata: entries by name, among them `license`.
        where: the name of the card in messages.

    Raises:
        ValueError: the front matter of the card is not readable, or there is no license.
        ModuleNotFoundError: the extra `hub` is not installed.
    """
    yaml = require("yaml", "hub")
    found = _FRONT.match(card)
    try:
        known = yaml.safe_load(found[1]) or {} if found else {}
    except yaml.YAMLError as error:
        raise ValueError(f"{where}: the front matter is not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(known, dict):
        raise ValueError(f"{where}: the front matter is not a mapping")
    entries = known | {key: value for key, value in metadata.items() if value}
    if not entries.get("license"):
        raise ValueError(f"{where}: names no license; give one with --license, for example apache-2.0")
    return f"{_front_matter(entries)}\n{card[found.end() if found else 0 :].lstrip()}"


def trained_intro(folder: object) -> str:
    """The introduction of a model that `coattn` trained and wrote to `folder`."""
    return f"""A co-attention model that answers questions about images, trained with `coattn`.

    coattn ask {folder} IMAGE "QUESTION" --map map.png

    import coattn
    predictor = coattn.Predictor.load("{folder}")
    print(predictor.ask(predictor.encode("IMAGE"), "QUESTION", top_k=5))"""


def converted_intro(name: str, extractor: str) -> str:
    """The introduction of a published model that `coattn` converted, which reads the features of `extractor`."""
    return f"""A published model, converted by `coattn` from the checkpoint file of its authors.

    coattn ask {name} IMAGE_ID "QUESTION" --features STORE

It reads features that only its original extractor (`{extractor}`) makes. It answers questions about images of a feature
store with those features, and not about photos."""


def table(rows: Mapping[str, Any]) -> str:
    """Names and values as a Markdown table."""
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])
