"""Token embeddings of questions, computed once and kept in a feature store: rows are tokens, the id is the question.

The folder is one of shards as `coattn extract` makes it, with the encoder itself beside them in `text_encoder/`. An
interrupted run continues where it stopped.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from coattn.datasets.row_records import cell_text
from coattn.datasets.rows import read_rows, read_text
from coattn.datasets.table_columns import find_columns
from coattn.datasets.vqa_json import read_vqa
from coattn.features.store.manifest import MANIFEST, Manifest, Unit
from coattn.features.store.provenance import same_extractor
from coattn.features.store.reader import StoreWriter, index_folder, read_shard
from coattn.text.encoders import TextEncoder

TEXT_ENCODER = "text_encoder"
_QUESTIONS_PER_SHARD = 1024


class Embedded(NamedTuple):
    """How many questions were encoded now, and how many were there already."""

    done: int
    found: int


def read_questions(
    paths: Iterable[str | Path], *, columns: Mapping[str, str] = MappingProxyType({}), encoding: str = "utf-8"
) -> list[str]:
    """The distinct questions of files, in their order: official JSON, text (one per line), or a table.

    Args:
        paths: the files.
        columns: of a table, {"question": NAME}; by default it is found by its name.
        encoding: of texts and tables.

    Raises:
        ValueError: a file is not what it should be, a table has no column of questions, or there is no question at all.
        OSError: a file cannot be read.
    """
    questions: dict[str, None] = {}
    for path in map(Path, paths):
        if path.suffix == ".txt":
            texts = [line.strip() for line in read_text(path, encoding).split("\n")]
        elif path.suffix in (".csv", ".tsv", ".jsonl"):
            table = read_rows(path, encoding=encoding)
            column = find_columns(path, table, columns, needed=("question",))["question"]
            texts = [cell_text(row.cells.get(column), "question") for row in table.rows]
        else:
            texts = [record.question for record in read_vqa(path, None).records]
        questions |= dict.fromkeys(text for text in texts if text)
    if not questions:
        raise ValueError(f"there is no question in {', '.join(map(str, paths))}")
    return list(questions)


def embed_questions(
    questions: Sequence[str],
    out: str | Path,
    encoder: TextEncoder,
    *,
    dtype: str = "float16",
    batch_size: int = 64,
    progress: Callable[[int], object] = lambda count: None,
) -> Embedded:
    """Encode questions into the store `out`.

    Args:
        questions: distinct texts; a store looks them up by exactly this text.
        out: folder; absent, empty, or of an earlier run with the same questions and encoder.
        encoder: the text encoder.
        dtype: "float32" holds the exact output of `encoder`, "float16" the output rounded to 1 part in 2048.
        batch_size: questions that run at once.
        progress: called with the number of questions after each shard.

    Raises:
        ValueError: `out` holds something else.
        OSError: it cannot be written.
    """
    folder = Path(out)
    starts = range(0, len(questions), _QUESTIONS_PER_SHARD)
    units = [
        Unit(f"shard-{number:05}.h5", dict.fromkeys(questions[start : start + _QUESTIONS_PER_SHARD], ""))
        for number, start in enumerate(starts)
    ]
    plan = Manifest(extractor=encoder.record, dim=encoder.dim, dtype=dtype, flips=False, units=units)
    _open_folder(folder, plan, encoder)
    found = 0
    for unit in units:
        if (folder / unit.shard).exists():
            read_shard(folder, plan, unit)
            found += len(unit.images)
        else:
            _write_shard(folder, plan, unit, encoder, batch_size)
        progress(len(unit.images))
    index_folder(folder, plan)
    return Embedded(len(questions) - found, found)


def _open_folder(folder: Path, plan: Manifest, encoder: TextEncoder) -> None:
    """Make the folder, or check that it was begun with the same plan."""
    if (folder / MANIFEST).exists():
        there = Manifest.read(folder)
        if not same_extractor(there.extractor, plan.extractor) or there.dtype != plan.dtype:
            raise ValueError(
                f"{folder} holds embeddings of another encoder, --max-tokens or --dtype; give another folder"
            )
        if there.units != plan.units:
            raise ValueError(f"{folder} holds the embeddings of other questions; give another folder")
    elif folder.exists() and any(
        path.name != TEXT_ENCODER for path in folder.iterdir() if not path.name.startswith(".")
    ):
        raise ValueError(f"{folder} exists and is no store of question embeddings; give another folder")
    folder.mkdir(parents=True, exist_ok=True)
    if not encoder.is_saved_in(folder / TEXT_ENCODER):
        shutil.rmtree(folder / TEXT_ENCODER, ignore_errors=True)  # a damaged copy
        encoder.save(folder / TEXT_ENCODER)
    if not (folder / MANIFEST).exists():
        plan.write(folder)


def _write_shard(folder: Path, plan: Manifest, unit: Unit, encoder: TextEncoder, batch_size: int) -> None:
    texts = list(unit.images)
    with StoreWriter(folder / unit.shard, dim=plan.dim, dtype=plan.dtype, record=plan.extractor) as writer:
        for text, rows in zip(texts, encoder.encode(texts, batch_size=batch_size), strict=True):
            writer.add(text, rows.numpy())
