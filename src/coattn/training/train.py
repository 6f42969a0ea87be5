"""`coattn.train`: from a table of questions and a folder of photos to a trained, tested and compared model.

The files of a run, in its folder:

    data/                    what `coattn prepare` writes, with features/ of `coattn extract`
    settings.yaml            the configuration of the model; question_only.yaml that of its twin
    model/                   the model directory; checkpoints/, logs/ and predictions/ as of `coattn fit`
    question_only/           the same files of the twin, which sees no image
    report.md, scores.json   the comparison of the model with its twin and with the prior
    report.html              the answers of the model, to browse
    steps.txt                each step as the command that does the same
    train.json               the settings that made the models, and whether they are finished
    earlier/N/               finished models of other settings, which later calls have replaced
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from coattn._internal.progress import progress
from coattn._internal.tensors import find_device
from coattn.datasets.bad_records import LeftOut
from coattn.datasets.prepared import Dataset, write_dataset
from coattn.datasets.question_embeddings import embed_questions
from coattn.datasets.report import leak_lines
from coattn.datasets.rows import DELIMITERS
from coattn.datasets.table import read_table
from coattn.features.extract.extractors.descriptor import Descriptor
from coattn.features.extract.images import find_images
from coattn.features.extract.run import Extractor, extract
from coattn.features.store.layout import Skipped
from coattn.features.store.manifest import MANIFEST, Manifest
from coattn.features.store.provenance import same_extractor
from coattn.metrics.comparison import Comparison
from coattn.predictor import Predictor
from coattn.training.evaluation.report import MODEL
from coattn.training.evaluation.train_report import REPORT, report_training
from coattn.training.run import Run, fit_to_data, question_only_twin, read_config, tell
from coattn.visualization.report import draw_report


@dataclass(frozen=True)
class TrainedRun:
    """The result of `coattn.train`.

    Attributes:
        folder: The folder of the run.
        model: The model directory.
        comparison: The scores of the model, of its question-only twin and of the prior, with their differences.
        report: The report, a Markdown file.
    """

    folder: Path
    model: Path
    comparison: Comparison
    report: Path

    @property
    def score(self) -> float:
        """The score of the model on all judged questions, in percent."""
        return self.comparison.scores[MODEL].overall

    def predictor(self) -> Predictor:
        """The trained model, ready for questions about new photos."""
        return Predictor.load(self.model)


def train(
    table: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | None = None,
    epochs: int | None = None,
    seed: int = 0,
    extractor: Extractor | None = None,
    extractor_options: Sequence[str] = (),
    encoder: str | os.PathLike[str] | None = None,
    columns: Mapping[str, str] | None = None,
    val_fraction: float | None = None,
    test_fraction: float | None = None,
    metric: str | None = None,
    encoding: str = "utf-8",
    delimiter: str | None = None,
    skip_bad_rows: bool = False,
) -> TrainedRun:
    """Train a model on a table of questions about photos, test it, and compare it with guesses that see no photo.

    The steps are those of the commands `prepare`, `extract`, `fit`, `test` and `score`, which steps.txt in the folder
    lists. After an interruption the same call resumes. A call with other settings reuses the data, the features and the
    models that still fit; a finished model that does not fit is moved to the subfolder earlier/.

    Args:
        table: A CSV, TSV, JSON or JSONL file with the columns image, question and answer, or a folder of such files.
        out: The folder of the run.
        images: The folder of the photos. Only a table that holds its images needs none.
        config: A configuration, by its file or by its name in `coattn configs`; its file names are replaced. The
            default is the configuration "table" with batch size and epochs chosen by the number of questions.
        epochs: The number of passes over the training questions. The default is that of the configuration.
        seed: Chooses the images that are held out, and seeds training.
        extractor: Describes the photos. The default is the descriptor of colors and edges, which needs no weights.
        extractor_options: The options of `coattn extract` that mean this extractor, for steps.txt.
        encoder: The folder of a pretrained text encoder for the questions. By default words are learned.
        columns: Field ("image", "question", "answer", ...) to the name of its column in the table.
        val_fraction: The share of the images that choose the best epoch. See `coattn prepare table`.
        test_fraction: The share of the images that judge the model.
        metric: The metric that judges. The default follows from the answers.
        encoding: The text encoding of the table.
        delimiter: The delimiter of the table's cells. The default follows from the header.
        skip_bad_rows: Leave defective rows out instead of refusing the table.

    Returns:
        The model directory, the scores with their intervals, and the report.

    Raises:
        ValueError: The table, the photos or the settings cannot be used, or the folder holds an interrupted run with
            other settings. The message names the file and the fix.
        OSError: A file cannot be read or written.
        Stopped: A signal ended the training (128 plus its number is the exit status); its last checkpoint is written.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError("coattn train runs in one process; run its steps (steps.txt) under torchrun instead")
    root, data = Path(out), Path(out, "data")
    base = read_config("table" if config is None else config)
    options: dict[str, Any] = {
        "columns": columns,
        "val_fraction": val_fraction,
        "test_fraction": test_fraction,
        "seed": seed,
        "metric": metric,
        "encoding": encoding,
        "delimiter": delimiter,
        "skip_bad_rows": skip_bad_rows,
    }
    dataset = _read(table, images, options)
    extractor = Descriptor() if extractor is None else extractor
    num_questions = len(dataset.splits["train"])
    settings = fit_to_data(base, num_questions, epochs=epochs, seed=seed, default=config is None)
    runs = [
        Run("model", root, root / "settings.yaml", settings, extractor.record),
        Run("question_only", root / "question_only", root / "question_only.yaml", question_only_twin(settings), {}),
    ]
    identities = [run.identity(dataset, encoder) for run in runs]
    for run, identity in zip(runs, identities, strict=True):
        run.refuse_interrupted(identity)

    steps = [_prepare_step(table, images, options, data)]
    tell(f"[1/5] data: {_write_data(dataset, data)}")
    features, skipped = _extract(dataset, data, extractor)
    steps.append(["extract", str(data / "images.json"), str(features), *extractor_options])
    if skipped:
        dataset = _without_images(dataset, skipped)
        tell(f"      {len(skipped)} images cannot be read; {_write_data(dataset, data)}")
    paths: dict[str, Any] = {"folder": str(data), "features": str(features)}
    if encoder is not None:
        embeddings = _embed(dataset, data, encoder)
        paths["text"] = {"embeddings": str(embeddings)}
        questions = [str(data / f"{split}_questions.json") for split in dataset.splits]
        steps.append(["embed", *questions, str(embeddings), "--encoder", str(encoder)])

    split = _judging_split(dataset)
    for number, (run, identity) in enumerate(zip(runs, identities, strict=True), start=3):
        tell(f"[{number}/5] {run.name.replace('_', '-')}: {run.root / 'model'}")
        identity["unreadable_images"] = sorted(entry.image_id for entry in skipped)
        run.refuse_interrupted(identity)
        steps += run.finish(identity, paths, split)
    tell(f"[5/5] comparison on the {split} questions")
    comparison = report_training(root, dataset, split, steps, features=features)
    return TrainedRun(root, root / "model", comparison, root / REPORT)


def _read(table: str | os.PathLike[str], images: str | os.PathLike[str] | None, options: dict[str, Any]) -> Dataset:
    """Read the table, holding out images for validation if it has none; `options` then says so."""
    folder = None if images is None else Path(images)
    if folder is not None and not folder.is_dir():
        raise ValueError(f"{images} is not a folder; give the folder of the photos")
    dataset = read_table(Path(table), images=folder, **options)
    if "train" not in dataset.splits:
        raise ValueError(f"{table}: no row is in the split train, only in {', '.join(dataset.splits)}; add such rows")
    if "val" not in dataset.splits and options["val_fraction"] is None:
        options["val_fraction"] = 0.1
        dataset = read_table(Path(table), images=folder, **options)
    if not dataset.images:
        raise ValueError(f"{table}: the photos are missing; give their folder (--images)")
    answers = Counter(record.answer for record in dataset.splits["train"])
    if len(answers) < 2:
        only = next(iter(answers), "")
        raise ValueError(
            f"{table}: all {len(dataset.splits['train'])} training questions have the answer {only!r}; a model needs "
            "two different answers at least"
        )
    _judging_split(dataset)
    return dataset


def _judging_split(dataset: Dataset) -> str:
    """The split whose questions judge the models: test, or val if no test questions with answers are there."""
    for name in ("test", "val"):
        if all(record.answers for record in dataset.splits.get(name, [])) and dataset.splits.get(name):
            return name
    raise ValueError(f"{dataset.source}: no question is left to judge the model; hold out images (--test-fraction 0.1)")


def _write_data(dataset: Dataset, folder: Path) -> str:
    """Write the prepared data, and say in one line what they are."""
    report = write_dataset(dataset, folder, draw=draw_report)
    splits = ", ".join(f"{name} {part['questions']}" for name, part in report["splits"].items())
    left_out = f"; {len(dataset.skipped)} left out, see {folder / 'report.json'}" if dataset.skipped else ""
    notes = "".join(f"\n      note: {note}" for note in [*leak_lines(report), *dataset.notes])
    return f"{folder}, {len(dataset.images)} images, questions: {splits}; judged by {dataset.metric}{left_out}{notes}"


def _without_images(dataset: Dataset, skipped: Sequence[Skipped]) -> Dataset:
    """The data set without the questions about images that cannot be read."""
    reasons = {entry.image_id: entry.reason for entry in skipped}
    if len(reasons) == len(dataset.images):
        first = skipped[0]
        raise ValueError(
            f"none of the {len(reasons)} images can be read, for example {first.image_id!r}: {first.reason}"
        )
    splits = {
        name: kept
        for name, records in dataset.splits.items()
        if (kept := [record for record in records if str(record.image_id) not in reasons])
    }
    if "train" not in splits:
        raise ValueError("no image of the training questions can be read; repair the images, or take others")
    left_out = [LeftOut(f"image {image_id}", reason) for image_id, reason in reasons.items()]
    return replace(dataset, splits=splits, skipped=[*dataset.skipped, *left_out])


def _folder_that_fits(folder: Path, record: Mapping[str, Any], items: Mapping[str, Any]) -> Path:
    """The first of `folder`, `folder_2`, ... that is new, or holds these images or questions by this extractor."""
    for number in count(1):
        place = folder if number == 1 else folder.with_name(f"{folder.name}_{number}")
        if not (place / MANIFEST).exists():
            break
        there = Manifest.read(place)
        if same_extractor(there.extractor, record) and list(there.images) == list(items):
            break
    return place


def _extract(dataset: Dataset, data: Path, extractor: Extractor) -> tuple[Path, list[Skipped]]:
    """Describe the photos; return the folder of their features, and the photos that cannot be read."""
    features = _folder_that_fits(data / "features", extractor.record, dataset.images)
    tell(f"[2/5] features: {features}, by the extractor {extractor.record['name']}")
    found = extract(find_images([str(data / "images.json")]), features, extractor)
    tell(f"      {found.done} images, {found.found_done} of them were described before")
    return features, found.skipped


def _embed(dataset: Dataset, data: Path, encoder: str | os.PathLike[str]) -> Path:
    """Run the text encoder over all questions and return the folder of their embeddings."""
    from coattn.text.encoders import TextEncoder

    loaded = TextEncoder.load(encoder, device=find_device("auto"))
    questions = list(dict.fromkeys(record.question for records in dataset.splits.values() for record in records))
    folder = _folder_that_fits(data / "embeddings", loaded.record, dict.fromkeys(questions))
    with progress("embed", len(questions), unit="questions") as advance:
        embed_questions(questions, folder, loaded, progress=advance)
    return folder


def _prepare_step(table: object, images: object, options: Mapping[str, Any], data: Path) -> list[str]:
    """The command `coattn prepare` that writes the same data."""
    step = ["prepare", "table", str(table), str(data)]
    given = {"images": images, **options}
    delimiters = {sign: name for name, sign in DELIMITERS.items()}
    for name, value in given.items():
        flag = f"--{name.replace('_', '-')}"
        if name == "columns":
            step += [word for field, column in (value or {}).items() for word in ("--column", f"{field}={column}")]
        elif name == "skip_bad_rows":
            step += [flag] if value else []
        elif value is not None and (name, value) not in (("encoding", "utf-8"), ("seed", 0)):
            step += [flag, delimiters.get(value, str(value)) if name == "delimiter" else str(value)]
    return step
