"""All data sets that `coattn prepare` reads, by name."""

from __future__ import annotations

from coattn.datasets import (
    aerial,
    clevr,
    coco_qa,
    daquar,
    documents,
    easy_vqa,
    gqa,
    llava,
    lxmert,
    medical,
    multiple_choice,
    pathvqa,
    photo_lists,
    shapes,
    sort_of_clevr,
    table,
    vqa,
    vqa_med,
)
from coattn.datasets.reader import Reader

READERS: dict[str, Reader] = {
    **vqa.READERS,
    **gqa.READERS,
    "clevr": clevr.READER,
    "coco-qa": coco_qa.READER,
    "daquar": daquar.READER,
    **photo_lists.READERS,
    **documents.READERS,
    **multiple_choice.READERS,
    **medical.READERS,
    "pathvqa": pathvqa.READER,
    "vqa-med": vqa_med.READER,
    **aerial.READERS,
    "lxmert": lxmert.READER,
    "llava": llava.READER,
    "easy-vqa": easy_vqa.READER,
    "sort-of-clevr": sort_of_clevr.READER,
    "shapes": shapes.READER,
    "table": table.READER,
}


def checked_table() -> str:
    """The table of data sets for docs/data.md, in Markdown: name, data set, and what the reader was checked on."""
    rows = [
        f"| `{name}` | {reader.description.splitlines()[0]} | {reader.checked} |" for name, reader in READERS.items()
    ]
    return "\n".join(["| name | data set | checked on |", "|---|---|---|", *rows])
