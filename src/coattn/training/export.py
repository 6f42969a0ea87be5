"""From a finished run to a model directory: the best weights, calibrated, with a card that says how good they are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from coattn.serialization.card import Section, score_metadata, table, trained_intro, write_card
from coattn.serialization.directory import load_directory, save_model
from coattn.serialization.files import EXTRACTOR, TEXT_ENCODER
from coattn.serialization.versions import rename_parameters
from coattn.text.answer_words import AnswerWords
from coattn.text.pretrained_tokenizer import PretrainedTokenizer
from coattn.text.vocabulary import Vocabulary
from coattn.training.checkpoints import read_checkpoint
from coattn.training.data.module import VQADataModule
from coattn.training.evaluation.answers import Evaluation, evaluate
from coattn.training.evaluation.certify import make_safeguards
from coattn.training.settings import flat
from coattn.training.task import VQATask


def export_model(
    folder: str | os.PathLike[str],
    task: VQATask,
    data: VQADataModule,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    device: torch.device | str = "cpu",
) -> Evaluation | None:
    """Write a trained model as a model directory; an older one in its place is replaced.

    Args:
        folder: where to.
        task: the trained task, whose model is written.
        data: its data. With validation questions, the temperature is fitted on them.
        checkpoint: take the weights from this checkpoint first.
        device: where to validate.

    Returns:
        How good it is; None without validation questions.
    """
    if checkpoint is not None:
        task.load_state_dict(rename_parameters(read_checkpoint(checkpoint)["state_dict"]))
    device = torch.device(device)
    evaluation = evaluate(task, data, "val", device) if data.has_validation else None
    embeddings, words = data.text.embeddings, data.text.vocabularies.words
    if data.settings.vocabulary_from is not None and isinstance(words, Vocabulary):
        words = words.trained_on(record.question for record in data.split("train").records)

    def certify(new: Path) -> None:
        make_safeguards(load_directory(new), data, device=device).save()

    save_model(
        folder,
        task.model.cpu(),
        answer_vocabulary=data.text.vocabularies.answers,
        question_vocabulary=words,
        metric=data.split("train").metric,
        activation=task.objective.activation,
        temperature=1.0 if evaluation is None else evaluation.temperature,
        max_tokens=data.text.max_tokens,
        extractor=data.features.record,
        extractor_weights=data.features.asset(EXTRACTOR),
        text_encoder=data.text.encoder_record,
        text_encoder_folder=None if embeddings is None else embeddings.asset(TEXT_ENCODER),
        card=model_card(Path(folder), task, data, evaluation),
        extra={} if data.text.word_vectors_record is None else {"word_vectors": data.text.word_vectors_record},
        finish=None if evaluation is None else certify,
    )
    return evaluation


def model_card(folder: Path, task: VQATask, data: VQADataModule, evaluation: Evaluation | None) -> str:
    """The README.md of a model directory, Markdown."""
    preset = task.hparams.get("preset") or "own composition"
    num_parameters = f"{sum(p.numel() for p in task.model.parameters()):,}"
    model = f"""{table({"preset": preset, **_sizes(task), "parameters": num_parameters})}

It {_answers(data)} and knows {_words(data)}.
Image features come from the extractor `{data.features.record["name"]}`."""
    sections = [
        Section("Model", model),
        Section("Data", table(_data(data))),
        Section("Scores", _scores(evaluation, data.leaks("val"))),
        Section("Training", table(_recipe(task, data))),
    ]
    name, metadata = folder.resolve().parent.name, {}
    if evaluation is not None:
        questions = data.settings.files.val_questions or ""
        first = questions if isinstance(questions, str) else questions[0]
        dataset = Path(first).resolve().parent.name
        metadata = score_metadata(name, dataset, evaluation.scores.metric, evaluation.scores.overall)
    return write_card(name, trained_intro(folder), sections, metadata=metadata)


def _scores(evaluation: Evaluation | None, leaks: Sequence[str]) -> str:
    if evaluation is None:
        return (
            "There were no validation questions: these are the last weights, nothing is known of their accuracy, and "
            "the confidences are not calibrated (temperature 1)."
        )
    scores = evaluation.scores
    rows = {f"**all {len(scores.by_question)} questions**": f"**{scores.overall:.2f}**"}
    for kind, accuracies in (("answer type", scores.by_answer_type), ("question type", scores.by_question_type)):
        counts = scores.counts[kind]
        rows |= {f"{kind}: {name} ({counts[name]})": f"{value:.2f}" for name, value in accuracies.items()}
    before, after = 100 * evaluation.error_before, 100 * evaluation.error_after
    temperature, number = f"{evaluation.temperature:.3f}", evaluation.num_calibration
    return f"""On the validation questions, in percent ({scores.metric}). The weights were chosen by this score.

{table(rows)}

{" ".join(f"{leak}." for leak in leaks)}

Logits are divided by a temperature of {temperature}, fitted on {number} of these questions, to make confidences.
Expected calibration error on the same: {before:.2f} % without, {after:.2f} % with it."""


def _data(data: VQADataModule) -> dict[str, Any]:
    rows: dict[str, Any] = {"features": data.settings.features}
    for name in ("train", "val"):
        if files := getattr(data.settings.files, f"{name}_questions"):
            split = data.split(name)
            images = len({record.image_id for record in split.records})
            rows[name] = f"{files}: {len(split.records)} questions on {images} images"
    if (vectors := data.text.word_vectors_record) is not None:
        share = f"{100 * vectors['share_of_question_words']:.1f} % of the words in the training questions"
        words = f"{vectors['words_found']} of {vectors['words']} words, {share}"
        rows["word vectors"] = f"{vectors['file']}: {words}; the others began as random vectors of like size"
    return rows


def _sizes(task: VQATask) -> dict[str, Any]:
    text = {f"text encoder: {name}": value for name, value in task.hparams["text_encoder"].items() if value}
    return dict(task.hparams["sizes"] or {}) | text


def _recipe(task: VQATask, data: VQADataModule) -> dict[str, Any]:
    """The settings of the training that were set, by their names in a YAML file."""
    model = {name: value for name, value in task.hparams.items() if name in ("loss", "optimizer", "schedule")}
    answers, size = data.settings.answers, data.settings.batches.size
    settings = {f"model.{name}": value for name, value in flat(model).items()}
    if task.trainer_changes:
        settings["changed on the way"] = "; ".join(task.trainer_changes)
    settings |= {"data.answers.targets": answers.targets, "data.answers.known_only": answers.known_only}
    return {name: value for name, value in (settings | {"data.batches.size": size}).items() if value is not None}


def _answers(data: VQADataModule) -> str:
    answers = data.text.vocabularies.answers
    if isinstance(answers, AnswerWords):
        return f"writes its answers with {len(answers.words)} words (`answers.json`)"
    return f"chooses among {len(answers)} answers (`answers.json`)"


def _words(data: VQADataModule) -> str:
    words = data.text.vocabularies.words
    if isinstance(words, PretrainedTokenizer):
        record = data.text.encoder_record or {}
        return f"the language of the text encoder it was trained with, `{record['weights']['id']}` ({record['name']})"
    if words is not None:
        return f"{len(words.words)} words (`question_vocabulary.json`)"
    assert data.text.embeddings is not None
    return f"the language of the text encoder `{data.text.embeddings.record['name']}`"
