"""The model card, the README.md of a model directory: front matter and a list of sections."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Section(NamedTuple):
    """A section of a model card.

    Attributes:
        title: its heading.
        body: Markdown below the heading.
    """

    title: str
    body: str


def write_card(name: str, intro: str, sections: Iterable[Section], *, metadata: Mapping[str, str] | None = None) -> str:
    """Compose a model card, Markdown.

    Args:
        name: the title.
        intro: Markdown between the title and the first section: the model and its use.
        sections: the sections, in their order.
        metadata: lines of the front matter besides the library and the task, e.g. `{"license": "unknown"}`.
    """
    lines = {"library_name": "coattn", "pipeline_tag": "visual-question-answering", **(metadata or {})}
    front = "\n".join(f"{key}: {value}" for key, value in lines.items())
    blocks = [f"---\n{front}\n---", f"# {name}", intro.strip()]
    blocks += [f"## {section.title}\n\n{section.body.strip()}" for section in sections]
    return "\n\n".join(blocks) + "\n"


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
