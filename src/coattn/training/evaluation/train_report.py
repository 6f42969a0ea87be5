"""The report of `coattn train`: the model beside its question-only twin and the prior, and the next commands."""

from __future__ import annotations

import shlex
from pathlib import Path

from coattn._internal.files import write_json, write_text
from coattn.datasets.prepared import Dataset
from coattn.datasets.records import Record
from coattn.datasets.results import Results, read_results
from coattn.explain.maps import Explanation
from coattn.features.extract.images import find_images
from coattn.metrics.comparison import Comparison, compare_answers
from coattn.predictor import Predictor
from coattn.training.evaluation.report import MODEL, PRIOR, TWIN, most_common_answer
from coattn.training.run import tell
from coattn.visualization.browse import write_page

REPORT, PAGE, STEPS = "report.md", "report.html", "steps.txt"


def report_training(root: Path, dataset: Dataset, split: str, steps: list[list[str]], *, features: Path) -> Comparison:
    """Compare the models and the prior, write the report, and print both with the next commands.

    Args:
        root: The folder of the run, with the models, their predictions, and the prepared data.
        dataset: The prepared data.
        split: The split whose questions judge the models.
        steps: The commands of coattn that did the same until here.
        features: The feature store of the images.
    """
    records = dataset.splits[split]
    common = most_common_answer(dataset.splits["train"])
    results, twin_results = (folder / "predictions" / f"{split}.json" for folder in (root, root / "question_only"))
    answers = {
        MODEL: read_results(results),
        TWIN: read_results(twin_results),
        PRIOR: Results({record.question_id: common for record in records}),
    }
    comparison = compare_answers(answers, records, dataset.metric)
    _write_page(root, dataset, split, answers[MODEL], title=str(results), features=features)

    judged = [str(results)]
    for kind in ("questions", "annotations"):
        judged += [f"--{kind}", str(root / "data" / f"{split}_{kind}.json")]
    shown = [
        "--images",
        str(root / "data" / "images.json"),
        "--model",
        str(root / "model"),
        "--features",
        str(features),
    ]
    shown += ["--train-questions", str(root / "data" / "train_questions.json"), "--out", str(root / PAGE)]
    steps = [*steps, ["score", *judged, "--against", str(twin_results)], ["browse", *judged, *shown]]
    commands = "\n".join(f"coattn {shlex.join(step)}" for step in steps)
    write_text(root / STEPS, f"# The steps of `coattn train`, for the folder in which it was run.\n{commands}\n")
    write_json(root / "scores.json", comparison.to_json(), indent=1)

    explained = (
        f"Accuracy in percent ({dataset.metric}) on the {len(records)} {split} questions, 95 % intervals by image. "
        f"The question-only twin has the same configuration and sees no image. The prior always answers {common!r}."
    )
    if split != "test":
        explained += " These questions also chose the best epoch, which flatters the models."
    following = [
        f'coattn ask {shlex.quote(str(root / "model"))} PHOTO "QUESTION" --map map.png',
        f"coattn inspect {shlex.quote(str(features))}",
    ]
    left_out = "".join(f"\n- left out: {line}" for line in dataset.skipped)
    notes = "".join(f"\n- {note}" for note in dataset.notes)
    write_text(
        root / REPORT,
        f"# {root.resolve().name}\n\n{explained}\n\n{comparison.markdown()}\n\n## Data\n{notes}{left_out}\n\n"
        f"## Steps\n\n```\n{commands}\n```\n\n## Next\n\n```\n" + "\n".join(following) + "\n```\n",
    )
    tell(f"\n{comparison.table()}\n\n{explained}\nreport: {root / REPORT}, steps: {root / STEPS}")
    tell(f"answers to browse: {root / PAGE}\n")
    tell("next:\n  " + "\n  ".join(following))
    return comparison


def _write_page(root: Path, dataset: Dataset, split: str, answers: Results, *, title: str, features: Path) -> None:
    """Write the page of the model's answers, as `coattn browse` does."""
    files = find_images([str(root / "data" / "images.json")])
    predictor = Predictor.load(root / "model", features=features, device="auto")

    def explain(record: Record) -> Explanation:
        image_id = str(record.image_id)
        return predictor.attribute(predictor.encode(image_id, picture=files.get(image_id)), record.question)

    write_page(
        root / PAGE,
        answers,
        dataset.splits[split],
        dataset.metric,
        title=title,
        training=dataset.splits["train"],
        images=files,
        explain=explain,
    )
