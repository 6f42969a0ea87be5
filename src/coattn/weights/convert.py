"""Convert a checkpoint file of another project to a model directory. The projects are listed in `projects.PROJECTS`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coattn._internal.files import read_json, require, sha256_of_file
from coattn.metrics.calibration import Activation
from coattn.nn import VQAModel
from coattn.serialization.card import Section, converted_intro, table, write_card
from coattn.serialization.directory import save_model
from coattn.text.vocabulary import PAD, UNK, Vocabulary
from coattn.text.word_vectors import read_word_vectors

from .dictionaries import check_count, read_answers, read_words, words_of_questions
from .pickles import read_checkpoint
from .projects import PROJECTS, Project, Task


def convert_checkpoint(
    project_name: str,
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    answers: str | os.PathLike[str],
    config: str | os.PathLike[str] | None = None,
    tokens: str | os.PathLike[str] | None = None,
    questions: Sequence[str | os.PathLike[str]] = (),
    vectors: str | os.PathLike[str] | None = None,
    model_name: str | None = None,
    dataset: str | None = None,
    repaired: bool = False,
) -> VQAModel:
    """Write the model directory `out` from a checkpoint file of a project, completely or not at all.

    Args:
        project_name: one of `PROJECTS`.
        checkpoint: the checkpoint file.
        out: the new folder; it must not exist.
        answers: the project's dictionary of answers, JSON.
        config: the project's settings, YAML or JSON, if it has such a file.
        tokens: the project's dictionary of words, JSON. Give it or `questions`.
        questions: the project's question files, in the order in which it reads them, to collect the words again.
        vectors: word vectors (GloVe), for a project that reads them from a file; see `coattn.text.word_vectors`.
        model_name: one of the project's models, if it has several.
        dataset: "vqa", "gqa" or "clevr"; by default the one that the settings or the weights imply.
        repaired: mask padding everywhere. By default padding is visible where the project's code shows it.

    Returns:
        The model.

    Raises:
        ValueError: files or settings do not fit together, or a pickle holds more than weights; the message names the
            file and the value.
        OSError: a file cannot be read, or the directory cannot be written.
    """
    project, out = PROJECTS[project_name], Path(out)
    if out.exists():
        raise ValueError(f"{out}: exists; delete it, or give the model another name")
    if project.models and model_name not in project.models:
        raise ValueError(f"{project_name} has no model {model_name!r}; its models are {', '.join(project.models)}")
    # DCN's checkpoints keep its command line, which holds plain values only.
    allowed = [argparse.Namespace] if project.settings == "checkpoint" else []
    weights, rest = read_checkpoint(checkpoint, allowed=allowed)
    settings = _settings(project, checkpoint, config, rest, model_name)
    where = " with ".join(str(path) for path in (checkpoint, config, vectors) if path)
    task, settings = _task(project, settings, weights, dataset, where)
    load = partial(project.load, repaired=repaired, num_tokens=task.num_tokens, num_regions=task.num_regions)
    if not project.own_vectors:
        question_vocabulary, rows = _words_with_vectors(project, questions, vectors)
        load = partial(load, word_vectors=rows)
    try:
        model = load(weights, settings)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if project.own_vectors:
        question_vocabulary = _words(project, model, tokens, questions)
    num_answers = model.head.num_answers
    assert isinstance(num_answers, int)
    answer_vocabulary = read_answers(answers, num_answers=num_answers)
    source = {
        "project": project.source,
        "model": model_name or project_name,
        "file": Path(checkpoint).name,
        "sha256": sha256_of_file(checkpoint),
        "padding": "repaired" if repaired else "faithful",
    }
    save_model(
        out,
        model,
        answer_vocabulary=answer_vocabulary,
        question_vocabulary=question_vocabulary,
        metric=task.metric,
        activation=_activation(task, settings),
        max_tokens=task.num_tokens,
        extractor={"name": task.extractor, "settings": {}, "weights": None, "versions": {}},
        card=card(out.name, source, model, task, num_words=len(question_vocabulary)),
        extra={"source": source},
    )
    return model


def _words(
    project: Project,
    model: VQAModel,
    tokens: str | os.PathLike[str] | None,
    questions: Sequence[str | os.PathLike[str]],
) -> Vocabulary:
    """The vocabulary of the model's word ids, from a dictionary or from question files."""
    if (tokens is None) == (not questions):
        raise ValueError("the words come from a dictionary (--tokens) or from question files (--questions): give one")
    num_ids = model.question_encoder.num_words
    assert isinstance(num_ids, int)
    # Our first two ids are padding and unknown words, whether or not the project's dictionary lists them.
    num_words = num_ids if project.specials else num_ids - 2
    if tokens is not None:
        words = read_words(tokens, specials=project.specials, num_words=num_words)
    else:
        words = words_of_questions(questions, specials=project.specials, tokenizer=project.tokenizer)
        files = f"{len(questions)} question files ({', '.join(map(str, questions))})"
        check_count(files, len(words), num_words, project.specials)
    return Vocabulary(words[2:] if project.specials else words, tokenizer=project.tokenizer)


def _words_with_vectors(
    project: Project, questions: Sequence[str | os.PathLike[str]], vectors: str | os.PathLike[str] | None
) -> tuple[Vocabulary, Tensor]:
    """The words of question files that have a vector in a file, and the vectors (V, E) by id; zeros if unknown."""
    if vectors is None or not questions:
        raise ValueError(
            "this project's checkpoints hold no word vectors: give them (--vectors, GloVe's text file) and the "
            "question files whose words the model knows (--questions)"
        )
    words = words_of_questions(questions, specials=(), tokenizer=project.tokenizer)
    found = read_word_vectors(vectors, Vocabulary(words))
    known = [i for i in range(UNK + 1, len(found.values)) if found.found[i]]
    vocabulary = Vocabulary([words[i - UNK - 1] for i in known], tokenizer=project.tokenizer)
    return vocabulary, found.values[torch.tensor([PAD, UNK, *known])]


def _settings(
    project: Project,
    checkpoint: str | os.PathLike[str],
    config: str | os.PathLike[str] | None,
    rest: Mapping[str, Any],
    model_name: str | None,
) -> dict[str, Any]:
    """The project's settings, from their file or from the checkpoint."""
    if project.settings == "none":
        return {}
    if config is not None:
        return read_settings(config, project.models[model_name] if model_name else {}, model_name)
    beside = rest.get("args")
    if project.settings == "file" or not isinstance(beside, argparse.Namespace):
        raise ValueError(f"{checkpoint}: its weights do not imply all settings of this project: give them (--config)")
    return vars(beside)


def read_settings(path: str | os.PathLike[str], implied: Mapping[str, Any], model_name: str | None) -> dict[str, Any]:
    """Read the settings of a YAML or JSON file, and add those that the name of the model implies.

    Raises:
        ValueError: the file does not hold settings, or holds those of another model.
        OSError: the file cannot be read.
    """
    if Path(path).suffix.lower() == ".json":
        settings = read_json(path)
    else:
        yaml = require("yaml", "train")
        try:
            settings = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not readable as YAML ({' '.join(str(error).split()):.120})") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{path}: settings must be names with values, got {str(settings)[:40]!r}")
    for key, value in implied.items():
        if settings.get(key, value) != value:
            raise ValueError(f"{path}: {key} is {settings[key]!r}, but the model {model_name} has {value!r}")
    return {**settings, **implied}


def _task(
    project: Project, settings: dict[str, Any], weights: Mapping[str, Tensor], dataset: str | None, where: str
) -> tuple[Task, dict[str, Any]]:
    """The project's task for the data set, and the settings with the data set's name."""
    seen = "clevr" if "adapter.grid_linear.weight" in weights and "adapter.frcn_linear.weight" not in weights else "vqa"
    name = dataset or settings.get("DATASET") or seen
    if name not in project.tasks:
        raise ValueError(f"{where}: the data set {name!r} is not one of {', '.join(project.tasks)}")
    task = project.tasks[name]
    try:
        num_regions = settings["FEAT_SIZE"][name]["FRCN_FEAT_SIZE"][0]
        if isinstance(num_regions, int) and num_regions > 0:
            task = task._replace(num_regions=num_regions)
    except (KeyError, TypeError, IndexError):
        pass  # openvqa's YAML files omit it, which means the default
    return task, settings | {"DATASET": name}


def _activation(task: Task, settings: Mapping[str, Any]) -> Activation:
    """The activation that fits the training loss: on VQA, KL divergence for MFB and MFH, else binary cross-entropy."""
    loss = settings.get("LOSS_FUNC") or ("kld" if settings.get("MODEL_USE") == "mfb" else "bce")
    return "softmax" if task.softmax or loss in ("kld", "ce") else "sigmoid"


def card(name: str, source: Mapping[str, str], model: VQAModel, task: Task, *, num_words: int) -> str:
    """The model card of a converted checkpoint, Markdown."""
    padding = {
        "faithful": "Faithful: the model sees padding wherever the original code shows it to the model.",
        "repaired": "Repaired: padding is masked everywhere, unlike in some of the original code.",
    }[source["padding"]]
    facts = {key: source[key] for key in ("project", "model", "file", "sha256")} | {
        "parameters": f"{sum(parameter.numel() for parameter in model.parameters()):,}",
        "answers": model.head.num_answers,
        "word ids": num_words,
    }
    origin = f"""{table(facts)}

{padding}

The names and layouts of its tensors are taken from the project's source. This conversion has never been run on the
released files by coattn's authors: compare its accuracy with the published one first. The confidences are not
calibrated (temperature 1)."""
    sections = [
        Section("Source", origin),
        Section("License", "Unknown: the weights are under the terms of the project they come from."),
    ]
    return write_card(name, converted_intro(name, task.extractor), sections, metadata={"license": "unknown"})
