"""Model directories: everything needed to answer questions, in plain files that run no code.

    model.safetensors         the weights
    config.json               the bricks of the model, its metric and calibration, and the records of the image
                              extractor and the text encoder that made its inputs
    question_vocabulary.json  the words of a model that reads token ids (absent for pretrained question embeddings)
    answers.json              the answers, in the order of the logits; for a generator the words of answers
    README.md                 the model card
    extractor.safetensors     optional: the weights of the image extractor, so that asking works offline
    text_encoder/             optional: the pretrained text encoder, likewise; only its config and tokenizer if it was
                              trained with the model, because the model's weights then include its weights
    certificate.json          optional: the confidence needed for each risk, see `coattn.explain.abstain`
    index.safetensors         optional: an index of the training images, see `coattn.explain.image_index`
    faithfulness.json         optional: how faithful explanations are, see `coattn.explain.faithful`

The classes that a config may name are `coattn.serialization.registry.BRICKS`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from coattn._internal.files import (
    aside,
    atomic_folder,
    files_below,
    read_json,
    remove_leftovers,
    require_regular,
    sha256_of_file,
)
from coattn.metrics.calibration import Activation
from coattn.nn import VQAGenerator, VQAModel
from coattn.serialization.config import CONFIG_KEYS, FORMAT, read_config
from coattn.serialization.files import ANSWERS, CARD, CONFIG, EXTRACTOR, FILES, QUESTIONS, TEXT_ENCODER, WEIGHTS
from coattn.serialization.hub import local_model
from coattn.serialization.registry import build, describe
from coattn.serialization.versions import VERSION, rename_parameters
from coattn.text.answer_words import AnswerWords, answers_from_json
from coattn.text.encoders import FinetunedQuestionEncoder
from coattn.text.pretrained_tokenizer import PretrainedTokenizer
from coattn.text.vocabulary import AnswerVocabulary, Vocabulary

LISTED = 10  # names spelled out in an error message

V = TypeVar("V")


@dataclass(frozen=True)
class ModelDirectory:
    """The content of a model directory: a model and everything needed to answer questions with it."""

    folder: Path
    model: VQAModel | VQAGenerator
    question_vocabulary: Vocabulary | PretrainedTokenizer | None
    answer_vocabulary: AnswerVocabulary | AnswerWords
    metric: str
    activation: Activation
    temperature: float
    max_tokens: int | None
    extractor: dict[str, Any]
    text_encoder: dict[str, Any] | None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def extractor_weights(self) -> Path | None:
        """The image extractor's own weights, when the directory carries them."""
        path = self.folder / EXTRACTOR
        return path if path.is_file() else None

    @property
    def text_encoder_folder(self) -> Path | None:
        """The pretrained text encoder, when the directory carries it."""
        path = self.folder / TEXT_ENCODER
        return path if path.is_dir() else None


def load(
    folder: str | os.PathLike[str], *, device: str | torch.device = "cpu", allow_download: bool = False
) -> VQAModel | VQAGenerator:
    """Load the model of a model directory, of either kind, in eval mode on `device`; see `load_directory`."""
    return load_directory(folder, allow_download=allow_download).model.to(device)


def save_model(
    folder: str | os.PathLike[str],
    model: VQAModel | VQAGenerator,
    *,
    answer_vocabulary: AnswerVocabulary | AnswerWords,
    question_vocabulary: Vocabulary | PretrainedTokenizer | None = None,
    metric: str,
    activation: Activation,
    temperature: float = 1.0,
    max_tokens: int | None = None,
    extractor: Mapping[str, Any],
    extractor_weights: str | os.PathLike[str] | None = None,
    text_encoder: Mapping[str, Any] | None = None,
    text_encoder_folder: str | os.PathLike[str] | None = None,
    card: str = "",
    extra: Mapping[str, Any] | None = None,
    finish: Callable[[Path], object] | None = None,
) -> None:
    """Write a model directory, completely or not at all. An existing model directory of that name is replaced.

    Args:
        folder: the directory; an existing one that is not a model directory is refused and left unchanged.
        model: a model of bricks; saved as float32.
        answer_vocabulary: the answers, in the order of the logits; for a generator the words of answers.
        question_vocabulary: the words, for a model that reads token ids; or the tokenizer of its text encoder.
        metric: the metric of its answers, a name of `coattn.metrics.score.METRICS`.
        activation, temperature: conversion of logits to confidences, see `coattn.metrics.calibration.confidences`.
        max_tokens: length to which longer questions are cut, as in training; None for no limit.
        extractor: the record of the image extractor (name, settings, weights, versions).
        text_encoder: the record of the pretrained text encoder whose embeddings the model reads or that is part of it.
        extractor_weights, text_encoder_folder: their files, to answer about new images and questions offline.
        card: the model card, Markdown.
        extra: further plain values to keep.
        finish: adds further files to the new directory, whose path it is given, before the directory takes its place.

    Raises:
        ValueError: the folder exists and is not a model directory; or the model is not made of bricks, or does not fit
            the vocabularies.
    """
    from safetensors.torch import save

    config = {
        "format": FORMAT,
        "version": VERSION,
        "model": describe(model),
        "metric": metric,
        "activation": activation,
        "temperature": float(temperature),
        "max_tokens": max_tokens,
        "extractor": dict(extractor),
        "text_encoder": None if text_encoder is None else dict(text_encoder),
        "extra": dict(extra or {}),
    }
    _check_vocabularies(model, answer_vocabulary, question_vocabulary, str(folder))
    if question_vocabulary is None and text_encoder is None:
        raise ValueError(f"{folder}: the model reads embeddings of questions: give the record of their text_encoder")
    target = Path(folder).resolve()
    if aside(target).exists() and not target.exists():
        aside(target).rename(target)  # an export was interrupted between two renames
    if target.exists():
        _check_replaceable(target)
    with atomic_folder(target, replace=True) as partial:
        (partial / WEIGHTS).write_bytes(save(_tensors(model)))
        _write(partial / ANSWERS, json.dumps(answer_vocabulary.to_json(), ensure_ascii=False, indent=0))
        if isinstance(question_vocabulary, PretrainedTokenizer):
            question_vocabulary.save(partial / TEXT_ENCODER)
        elif question_vocabulary is not None:
            _write(partial / QUESTIONS, json.dumps(question_vocabulary.to_json(), ensure_ascii=False, indent=0))
        _write(partial / CARD, card)
        if extractor_weights is not None:
            _link_or_copy(str(extractor_weights), str(partial / EXTRACTOR))
        if text_encoder_folder is not None:
            shutil.copytree(text_encoder_folder, partial / TEXT_ENCODER, copy_function=_link_or_copy)
        files = [path.relative_to(partial).as_posix() for path in files_below(partial)]
        config["sha256"] = {name: sha256_of_file(partial / name) for name in files if name != CARD}
        _write(partial / CONFIG, json.dumps(config, ensure_ascii=False, indent=1))
        if finish is not None:
            finish(partial)


def load_directory(folder: str | os.PathLike[str], *, allow_download: bool = False) -> ModelDirectory:
    """Read and check a model directory without running code from it. The model is in eval mode on the CPU.

    Args:
        folder: the model directory, or the name "hf://user/name@revision" of a model on the Hugging Face Hub.
        allow_download: download a model of the Hub that is not on this machine; see `coattn.serialization.hub`.

    Raises:
        FileNotFoundError: the folder, or one of its files, is missing.
        ValueError: a key, class, argument or tensor is missing, unknown, or of the wrong type or shape; the message
            names the file and its faults.
    """
    folder = local_model(folder, allow_download=allow_download)
    config = read_config(folder)
    tensors = rename_parameters(_read_tensors(folder / WEIGHTS), version=config["version"])
    model = _assemble(config["model"], tensors, folder)

    answers = _read_vocabulary(answers_from_json, folder / ANSWERS)
    questions = read_question_vocabulary(folder, config)
    _check_vocabularies(model, answers, questions, str(folder))
    # The weights of the extractor and of a frozen encoder are compared with their records when they are used.
    small = [name for name in config["sha256"] if name == WEIGHTS or not name.endswith(".safetensors")]
    if damaged := damaged_files(folder, config, small):
        raise ValueError(
            f"{folder / damaged[0]}: damaged: its SHA-256 is not the one in {CONFIG}; copy or export the model again"
        )
    kept = {key: config[key] for key in CONFIG_KEYS if key not in ("format", "version", "model", "sha256")}
    return ModelDirectory(folder, model.eval(), questions, answers, **kept)


def damaged_files(folder: Path, config: Mapping[str, Any], names: Iterable[str] | None = None) -> list[str]:
    """Files of a model directory whose SHA-256 is not the one in its config, or that are missing.

    Args:
        folder: the model directory.
        config: from `read_config`.
        names: the files to compare; all that have a hash by default.
    """
    names = config["sha256"] if names is None else names
    return [
        name
        for name in names
        if not (folder / name).is_file() or sha256_of_file(folder / name) != config["sha256"][name]
    ]


def _assemble(config: dict[str, Any], tensors: dict[str, Tensor], folder: Path) -> VQAModel | VQAGenerator:
    """Build the model of `config` with `tensors`. All shapes are compared before memory is allocated."""
    num_values = sum(tensor.numel() for tensor in tensors.values())
    _check_sizes(config, num_values, f"{folder / CONFIG}: model")
    with torch.device("meta"), _Uninitialized():
        model = build(config, where=f"{folder / CONFIG}: model")
    if not isinstance(model, VQAModel | VQAGenerator):
        raise ValueError(f"{folder / CONFIG}: model: a {type(model).__name__} is a part of a model, not a VQAModel")
    expected = model.state_dict()
    problems = [f"missing {name} {_kind(expected[name])}" for name in expected if name not in tensors]
    problems += [f"unexpected {name} {_kind(tensors[name])}" for name in tensors if name not in expected]
    problems += [
        f"{name} is {_kind(tensors[name])}, the config needs {_kind(tensor)}"
        for name, tensor in expected.items()
        if name in tensors and _kind(tensors[name]) != _kind(tensor)
    ]
    if problems:
        more = f"; and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
        raise ValueError(f"{folder / WEIGHTS}: does not fit {CONFIG}: {'; '.join(problems[:LISTED])}{more}")
    model.load_state_dict(tensors, assign=True)
    assert not any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()]), "a buffer is not saved"
    return model


class _Uninitialized(TorchFunctionMode):
    """Skips the functions of `torch.nn.init`: on the meta device they import torch's compiler, which takes seconds."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return function(*args, **(kwargs or {}))


def _check_sizes(value: Any, limit: int, where: str) -> None:
    """Refuse sizes that no model of `limit` numbers can have, before a module of that size is built."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_sizes(item, limit, f"{where}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_sizes(item, limit, f"{where}[{index}]")
    elif isinstance(value, int) and abs(value) > limit:
        raise ValueError(f"{where}: {value} exceeds the count of all numbers in {WEIGHTS}, {limit}")


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _tensors(model: VQAModel | VQAGenerator) -> dict[str, Tensor]:
    return {
        name: (tensor.float() if tensor.is_floating_point() else tensor).detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
    }


def _read_vocabulary(from_json: Callable[[Any], V], path: Path) -> V:
    try:
        return from_json(read_json(path))
    except ValueError as error:
        raise ValueError(error if str(path) in str(error) else f"{path}: {error}") from None


def read_question_vocabulary(
    folder: str | os.PathLike[str], config: Mapping[str, Any]
) -> Vocabulary | PretrainedTokenizer | None:
    """The vocabulary or tokenizer of the model in `folder` with this config; None if it reads embeddings.

    Raises:
        FileNotFoundError: its file is missing.
        ValueError: its file is damaged.
    """
    folder = Path(folder)
    model = config["model"].get("model", config["model"])  # inside of OriginalPadding
    encoder = model.get("question_encoder") if isinstance(model, dict) else None
    if isinstance(encoder, dict) and encoder.get("class") == FinetunedQuestionEncoder.__name__:
        if not (folder / TEXT_ENCODER).is_dir():
            raise FileNotFoundError(f"{folder / TEXT_ENCODER}: the tokenizer of the model's text encoder is missing")
        return PretrainedTokenizer.load(folder / TEXT_ENCODER)
    return _read_vocabulary(Vocabulary.from_json, folder / QUESTIONS) if config["text_encoder"] is None else None


def _check_vocabularies(
    model: VQAModel | VQAGenerator,
    answers: AnswerVocabulary | AnswerWords,
    questions: Vocabulary | PretrainedTokenizer | None,
    where: str,
) -> None:
    if isinstance(model, VQAGenerator) != isinstance(answers, AnswerWords):
        kind = "answers to choose from" if isinstance(model, VQAGenerator) else "words to write answers with"
        raise ValueError(f"{where}: {len(answers)} {kind}, which a {type(model).__name__} cannot use")
    num_answers = model.decoder.num_answer_words if isinstance(model, VQAGenerator) else model.head.num_answers
    if len(answers) != num_answers:
        what = "answer word ids" if isinstance(model, VQAGenerator) else "answers"
        raise ValueError(f"{where}: {len(answers)} {what}, but the model scores {num_answers}")
    num_words = None if questions is None else len(questions)
    wanted = model.question_encoder.num_words
    if num_words != wanted:
        raise ValueError(
            f"{where}: a question vocabulary of {num_words} ids, but the model reads {wanted} "
            "(None: the embeddings of a text encoder)"
        )


def _read_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    require_regular(path)
    try:
        # Copy: a mapped file may change while the model is used, and unaligned tensors are slow and round differently.
        return {name: tensor.clone() for name, tensor in load_file(path).items()}
    except SafetensorError as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error})") from None


def _check_replaceable(target: Path) -> None:
    leftovers = {path.name for path in target.glob(".*.partial")}
    names = {entry.name for entry in target.iterdir()} - leftovers if target.is_dir() else None
    if names is None or (names and not {CONFIG, WEIGHTS} <= names):
        raise ValueError(f"{target}: exists and is not a model directory; give another name")
    if foreign := sorted(names - FILES):
        raise ValueError(f"{target}: replacing this model would delete {', '.join(foreign[:LISTED])}; move it first")
    remove_leftovers(target / "*")


def _write(path: Path, text: str) -> None:
    path.write_text(text + "\n", encoding="utf-8")


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
