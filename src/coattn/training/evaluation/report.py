"""The report of `coattn test`: the scores, and the numbers that a reader needs to judge them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from coattn.datasets.records import Record
from coattn.datasets.results import Results, read_results
from coattn.explain.faithful import summary, table
from coattn.metrics.comparison import compare_answers
from coattn.metrics.medical import is_closed
from coattn.metrics.score import column_groups, score, seen_groups
from coattn.serialization.directory import load_directory
from coattn.text.vocabulary import unknown_words
from coattn.training.data import VQADataModule
from coattn.training.evaluation.controls import image_controls
from coattn.training.evaluation.faithfulness import measure_explanations
from coattn.training.task import VQATask

MODEL, TWIN, PRIOR = "model", "question only", "prior"
_EXPLAINED = ["dependence", "attention"]  # the methods that are measured on request


def report_scores(
    task: VQATask,
    data: VQADataModule,
    results: Results,
    root: Path,
    device: torch.device,
    *,
    columns: Sequence[str] = (),
) -> str:
    """The report on the answers to the test questions, as text.

    It contains the scores with intervals and by kind of question, the comparison with the question-only twin and with
    the prior, and the controls with other images. Without training questions only the scores are known.

    Args:
        task: The model, for the controls.
        data: Its data.
        results: Its answers to all or some of the test questions.
        root: The folder of its run, where `find_twin` looks for the answers of the twin.
        device: The device of the controls.
        columns: Columns of the questions by which the scores are divided too.

    Raises:
        ValueError: No question has such a column.
    """
    split = data.split("test")
    records = [record for record in split.records if record.question_id in results.answers]
    training = data.split("train").records if data.settings.files.train_questions else []
    groups = {column: column_groups(records, column) for column in columns}
    kinds = ["closed" if is_closed(record) else "open" for record in records]
    if len(set(kinds)) > 1:
        groups["closed or open"] = kinds
    if training:
        groups |= seen_groups(training, records)
    words = data.text.vocabularies.words
    unknown = ["with unknown words" if unknown_words(record.question, words) else "" for record in records]
    if any(unknown):
        groups["words"] = [kind or "all words known" for kind in unknown]
    parts = [
        score(results, records, split.metric, groups=groups, num_samples=1000).table(),
        f"Questions with words that the model does not know: {sum(map(bool, unknown))} of {len(records)}.",
    ]
    if not training:
        return "\n\n".join([*parts, "The data have no training questions: the prior and the controls are left out."])

    compared, twin = {MODEL: results}, find_twin(root)
    if twin is not None:
        answers = read_results(twin).answers
        if all(record.question_id in answers for record in records):
            compared[TWIN] = Results({record.question_id: answers[record.question_id] for record in records})
    common = most_common_answer(training)
    compared[PRIOR] = Results({record.question_id: common for record in records})
    source = "not found; `coattn train` trains one" if TWIN not in compared else f"from {twin}"
    parts += [
        f"Comparison, in percent with 95 % intervals. The prior always answers {common!r}. The question-only twin is "
        f"{source}.\n{compare_answers(compared, records, split.metric).table()}",
        "The same model with other images, in percent:\n"
        + "\n".join(f"  {name:<16} {value:.2f}" for name, value in image_controls(task, data, "test", device).items()),
    ]
    return "\n\n".join(parts)


def find_twin(root: Path) -> Path | None:
    """The answers of a question-only twin to the test questions, in RUN/question_only or RUN_question_only, if any."""
    folders = (root / "question_only", root.with_name(f"{root.name}_question_only"))
    files = [folder / "predictions" / "test.json" for folder in folders]
    return next((path for path in files if path.exists()), None)


def most_common_answer(training: Sequence[Record]) -> str:
    """The prior: the most common answer of the training questions."""
    return Counter(record.answer for record in training).most_common(1)[0][0]


def report_explanations(folder: Path, data: VQADataModule, device: torch.device) -> str:
    """The faithfulness of the explanations of a model directory on test questions, as text; see `explain-test`."""
    questions = measure_explanations(load_directory(folder), data, "test", _EXPLAINED, device=device)
    return f"Faithfulness of explanations\n{table(summary(questions, 'test'))}"
