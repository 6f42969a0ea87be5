"""The report of `coattn test`: the scores, and the numbers that a reader needs to judge them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from coattn.datasets.records import Record
from coattn.datasets.results import Results, read_results
from coattn.explain.faithful import summary, table
from coattn.metrics.comparison import Comparison, compare_answers
from coattn.metrics.medical import is_closed
from coattn.metrics.score import column_groups, score, seen_groups
from coattn.metrics.scores import Scores
from coattn.serialization.directory import load_directory
from coattn.text.vocabulary import unknown_words
from coattn.training.data.module import VQADataModule
from coattn.training.evaluation.controls import image_controls
from coattn.training.evaluation.faithfulness import measure_explanations
from coattn.training.task import VQATask

MODEL, TWIN, PRIOR = "model", "question only", "prior"


@dataclass(frozen=True)
class Report:
    """The report on the answers to the test questions.

    Attributes:
        scores: the scores with intervals, by kind of question.
        num_unknown: the number of questions with words that the model does not know.
        prior: the most common training answer; None without training questions, and then `twin`, `comparison` and
            `other_images` are empty too.
        twin: the file with the answers of the question-only twin, if there is one.
        comparison: of the model with its twin and the prior.
        other_images: the score of the model with other images, in percent; see `image_controls`.
        explanations: how faithful the explanations are, if it was asked for; see `coattn.explain.faithful.summary`.
        unexplained: why they could not be measured; empty if they were, or if it was not asked for.
    """

    scores: Scores
    num_unknown: int
    prior: str | None = None
    twin: Path | None = None
    comparison: Comparison | None = None
    other_images: Mapping[str, float] = field(default_factory=dict)
    explanations: dict[str, Any] | None = None
    unexplained: str = ""

    def text(self) -> str:
        """The report for people."""
        unknown = f"{self.num_unknown} of {len(self.scores.by_question)}"
        parts = [self.scores.table(), f"Questions with words that the model does not know: {unknown}."]
        if self.comparison is None:
            parts.append("The data have no training questions: the prior and the controls are left out.")
        else:
            source = "not found; `coattn train` trains one" if self.twin is None else f"from {self.twin}"
            controls = "\n".join(f"  {name:<16} {value:.2f}" for name, value in self.other_images.items())
            parts += [
                f"Comparison, in percent with 95 % intervals. The prior always answers {self.prior!r}. The "
                f"question-only twin is {source}.\n{self.comparison.table()}",
                f"The same model with other images, in percent:\n{controls}",
            ]
        if self.explanations is not None:
            parts.append(f"Faithfulness of explanations\n{table(self.explanations)}")
        if self.unexplained:
            parts.append(f"note: explanations were not measured: {self.unexplained}")
        return "\n\n".join(parts)

    def to_json(self) -> dict[str, Any]:
        """The report as plain values for a JSON file."""
        return {
            "scores": self.scores.to_json(),
            "questions_with_unknown_words": self.num_unknown,
            "prior": self.prior,
            "twin": None if self.twin is None else str(self.twin),
            "comparison": None if self.comparison is None else self.comparison.to_json(),
            "other_images": dict(self.other_images),
            "explanations": self.explanations,
            "unexplained": self.unexplained,
        }


def report_answers(
    task: VQATask,
    data: VQADataModule,
    results: Results,
    root: Path,
    device: torch.device,
    *,
    columns: Sequence[str] = (),
    explained: Path | None = None,
) -> Report:
    """The report on the answers to the test questions.

    Args:
        task: The model, for the controls.
        data: Its data. Without training questions the comparison and the controls are left out.
        results: Its answers to all or some of the test questions.
        root: The folder of its run, where `find_twin` looks for the answers of the twin.
        device: The device of the controls.
        columns: Columns of the questions by which the scores are divided too.
        explained: The model directory whose explanations are measured; None measures none.

    Raises:
        ValueError: No question has such a column.
    """
    split = data.split("test")
    records = [record for record in split.records if record.question_id in results.answers]
    training = data.split("train").records if data.settings.files.train_questions else []
    shown = ("answer_type", "question_type")  # in every score
    groups = {column: column_groups(records, column) for column in columns if column not in shown}
    kinds = ["closed" if is_closed(record) else "open" for record in records]
    if len(set(kinds)) > 1:
        groups["closed or open"] = kinds
    if training:
        groups |= seen_groups(training, records)
    words = data.text.vocabularies.words
    unknown = [bool(unknown_words(record.question, words)) for record in records]
    if any(unknown):
        groups["words"] = ["with unknown words" if some else "all words known" for some in unknown]
    report = Report(score(results, records, split.metric, groups=groups, num_samples=1000), sum(unknown))
    if training:
        compared, twin = {MODEL: results}, find_twin(root)
        answers = {} if twin is None else read_results(twin).answers
        if twin is not None and all(record.question_id in answers for record in records):
            compared[TWIN] = Results({record.question_id: answers[record.question_id] for record in records})
        prior = most_common_answer(training)
        compared[PRIOR] = Results({record.question_id: prior for record in records})
        report = replace(
            report,
            prior=prior,
            twin=twin if TWIN in compared else None,
            comparison=compare_answers(compared, records, split.metric),
            other_images=image_controls(task, data, "test", device),
        )
    if explained is None:
        return report
    try:
        questions = measure_explanations(load_directory(explained), data, "test", device=device)
    except ValueError as error:  # for example too few images; the rest of the report holds
        return replace(report, unexplained=str(error))
    return replace(report, explanations=summary(questions, "test"))


def find_twin(root: Path) -> Path | None:
    """The answers of a question-only twin to the test questions, in RUN/question_only or RUN_question_only, if any."""
    folders = (root / "question_only", root.with_name(f"{root.name}_question_only"))
    files = [folder / "predictions" / "test.json" for folder in folders]
    return next((path for path in files if path.exists()), None)


def most_common_answer(training: Sequence[Record]) -> str:
    """The prior: the most common answer of the training questions."""
    return Counter(record.answer for record in training).most_common(1)[0][0]
