"""The share of questions whose answer differs between a model and its export."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from coattn._internal.files import read_json, sha256_of_file, write_json
from coattn.datasets.records import Record
from coattn.datasets.vqa_json import read_vqa
from coattn.predictor import Predictor
from coattn.runtime import EncodedImage
from coattn.runtime import Predictor as ExportedPredictor
from coattn.runtime.folder import CARD, CONFIG

_CHUNK = 64  # questions whose images are held at once


class ChangedAnswers(NamedTuple):
    """Number of questions whose best answer differs between a model and its export."""

    num_changed: int
    num_questions: int

    def __str__(self) -> str:
        share = 100 * self.num_changed / self.num_questions
        return f"{share:.3g} % of the answers differ from the model's ({self.num_changed:,} of {self.num_questions:,})"


def questions_to_compare(model: Predictor, data: str | Path) -> list[Record]:
    """The questions of a data set whose answers are compared; their images are known to have features.

    Args:
        model: the model, with the features of the images.
        data: a folder that `coattn prepare` wrote; the questions are those of `test_questions.json`, or of
            `val_questions.json` if there is none.

    Raises:
        FileNotFoundError: the folder has neither file.
        ValueError: a file is damaged or empty, or an image has no features.
    """
    paths = [Path(data, f"{split}_questions.json") for split in ("test", "val")]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        raise FileNotFoundError(f"{data}: has neither {paths[0].name} nor {paths[1].name}; run coattn prepare first")
    records = read_vqa(path, None).records
    if not records:
        raise ValueError(f"{path}: has no questions")
    assert model.features is not None
    for image_id in {record.image_id for record in records}:
        model.features.index(image_id)
    return records


def count_changed_answers(model: Predictor, exported: ExportedPredictor, records: Sequence[Record]) -> ChangedAnswers:
    """Compare the best answers of a model and of its export to questions of `questions_to_compare`."""
    num_changed = 0
    # Questions about an image are neighbors in the file, so that each image is read once or few times.
    for start in range(0, len(records), _CHUNK):
        batch = records[start : start + _CHUNK]
        images = {record.image_id: model.encode(record.image_id) for record in batch}
        arrays = {}
        for name, image in images.items():
            boxes = torch.zeros(len(image.features), 4) if image.boxes is None else image.boxes
            arrays[name] = EncodedImage(image.features.numpy(), boxes.numpy(), image.size, None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the reasons to doubt an answer
            expected = model.ask_many([(images[record.image_id], record.question) for record in batch], top_k=1)
            found = exported.ask_many([(arrays[record.image_id], record.question) for record in batch], top_k=1)
        num_changed += sum(mine[0].text != theirs[0].text for mine, theirs in zip(expected, found, strict=True))
    return ChangedAnswers(num_changed, len(records))


def write_changed_answers(folder: Path, changed: ChangedAnswers) -> None:
    """Add the share of changed answers to the card of an exported folder."""
    card, config = folder / CARD, read_json(folder / CONFIG)
    card.write_text(f"{card.read_text(encoding='utf-8')}\n{changed}.\n", encoding="utf-8")
    config["sha256"][CARD] = sha256_of_file(card)
    write_json(folder / CONFIG, config, indent=1)
