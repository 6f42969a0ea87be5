"""`coattn validate | test | predict`: the answers of a trained model, their scores, and their result files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from coattn._internal.files import write_json
from coattn._internal.progress import progress
from coattn.datasets.results import FORMS, Results, default_name, write_results
from coattn.explain.abstain import Safeguards, check_max_risk
from coattn.metrics.score import column_groups, score
from coattn.serialization.directory import load_directory
from coattn.training.data.module import VQADataModule
from coattn.training.evaluation.answers import CollectAnswers, results_by_question
from coattn.training.evaluation.certify import with_doubts
from coattn.training.evaluation.report import report_answers
from coattn.training.task import VQATask


@dataclass(frozen=True)
class Answering:
    """One run of `coattn validate`, `test` or `predict`.

    Attributes:
        command: "validate", "test" or "predict".
        settings: its settings.
        trainer: runs the model.
        task: the model, and how it answers.
        data: the questions.
        checkpoint: the checkpoint file or the model directory to use.
        root: the folder of the run.
    """

    command: str
    settings: Any
    trainer: Trainer
    task: VQATask
    data: VQADataModule
    checkpoint: Path
    root: Path

    def score(self) -> None:
        """Answer the validation or test questions, write the answers, and print the report on them."""
        split = {"validate": "val", "test": "test"}[self.command]
        if split == "test":  # a mistake in these settings shows before the questions are answered
            for column in self.settings.by:
                column_groups(self.data.split(split).records, column)
            if self.settings.explain and not self._model_directory().is_dir():
                raise ValueError(f"--explain needs the model directory {self._model_directory()}; see --export-only")
        results = self._answer(split)
        if results is None:
            return
        data = self.data.split(split)
        for leak in self.data.leaks(split):
            rank_zero_warn(f"{self.command}: {leak}")
        records = [record for record in data.records if record.question_id in results.answers]
        if split == "test":
            results = self._doubted(results, split)
        path = self.root / "predictions" / f"{split}.json"
        self._write_results(results, split, path)
        if split == "val":
            print(score(results, records, data.metric).table())
            return
        report = report_answers(
            self.task,
            self.data,
            results,
            self.root,
            self.trainer.strategy.root_device,
            columns=self.settings.by,
            explained=self._model_directory() if self.settings.explain else None,
        )
        print(report.text())
        path = path.with_suffix(".report.json")
        write_json(path, report.to_json(), indent=1)
        print(f"\n{path}: the report as JSON")

    def predict(self) -> None:
        """Answer questions whose answers need not be known, and write the answers."""
        form, max_risk, anyway = (self.settings[name] for name in ("format", "max_risk", "answer_anyway"))
        if form == "vqa" and (self.settings.output or "").endswith(".csv"):
            form = "csv"
        if form not in FORMS:
            raise ValueError(f"--format is {form!r}, must be one of {', '.join(FORMS)}")
        check_max_risk(max_risk, anyway)
        if max_risk is not None and form not in ("vqa", "csv"):
            raise ValueError(f"--format {form} has no place for withheld answers; leave out --format or --max-risk")
        if max_risk is not None and not self.checkpoint.is_dir():
            model = self._model_directory()
            raise ValueError(f"--max-risk needs the certificate of a model directory; give --ckpt_path {model}")
        results = self._answer("predict")
        if results is not None:
            results = self._doubted(results, "predict", max_risk=max_risk, answer_anyway=anyway)
            output = self.settings.output or self.root / "predictions" / default_name(self._predicted(), form)
            self._write_results(results, "predict", Path(output), form=form)

    def _model_directory(self) -> Path:
        return self.checkpoint if self.checkpoint.is_dir() else self.root / "model"

    def _doubted(
        self, results: Results, split: str, *, max_risk: float | None = None, answer_anyway: bool = False
    ) -> Results:
        """The answers with the doubts of a model directory about them; unchanged for a checkpoint, which has none."""
        if not self.checkpoint.is_dir():
            return results
        safeguards = Safeguards.load(self.checkpoint)
        if safeguards.missing:
            rank_zero_warn(safeguards.missing)
        return with_doubts(results, safeguards, self.data, split, max_risk=max_risk, answer_anyway=answer_anyway)

    def _answer(self, split: str) -> Results | None:
        """The answers to a split, by question; None on all devices but the first."""
        path: Path | None = self.checkpoint
        if self.checkpoint.is_dir():
            directory = load_directory(self.checkpoint)
            self.data.check_inputs(directory.extractor, directory.text_encoder, directory.max_tokens)
            self.task.model, self.task.temperature = directory.model, directory.temperature
            path = None
        arguments = {"verbose": False} if self.command != "predict" else {"return_predictions": False}
        total = len(self.data.split(split).records)
        shown = self.settings.trainer.enable_progress_bar is not False and self.trainer.is_global_zero
        with progress(self.command, total, unit="questions", shown=shown) as advance:
            collect = CollectAnswers(total, advance)
            self.trainer.callbacks.append(collect)  # type: ignore[attr-defined]
            getattr(self.trainer, self.command)(self.task, datamodule=self.data, ckpt_path=path, **arguments)
        if not self.trainer.is_global_zero:
            return None
        if len(collect.positions) < total:
            rank_zero_warn(
                f"trainer.limit_{split}_batches: only {len(collect.positions)} of {total} questions are answered, "
                "a fixed random sample"
            )
        return results_by_question(self.data, split, collect.numbers, collect.confidences, positions=collect.positions)

    def _write_results(self, results: Results, split: str, path: Path, *, form: str = "vqa") -> None:
        records = [record for record in self.data.split(split).records if record.question_id in results.answers]
        write_results(path, results, records, form=form)
        withheld = sum(doubt.withheld for doubt in results.doubts.values())
        doubted = sum(bool(doubt.reasons) for doubt in results.doubts.values())
        doubts = f"; {doubted} are doubted, {withheld} of them withheld" if doubted else ""
        print(f"{path}: answers of {self.checkpoint} to {len(results.answers)} questions{doubts}")

    def _predicted(self) -> str:
        """The name of the predicted questions, from their file: `val` for `val_questions.json`."""
        files = self.data.settings.files
        asked = files.predict_questions or files.test_questions
        assert asked  # they were answered
        return Path(asked if isinstance(asked, str) else asked[0]).name.split(".")[0].removesuffix("_questions")
