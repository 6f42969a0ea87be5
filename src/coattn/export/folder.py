"""Write an exported folder, and prove that it answers like the model."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from coattn._internal.files import atomic_folder, require, sha256_of_file, write_json
from coattn.features.extract.extractors.base import Extractor
from coattn.features.extract.extractors.build import PLAIN, build_extractor
from coattn.features.extract.extractors.network import GridExtractor
from coattn.models import OriginalPadding
from coattn.nn import VQAGenerator, VQAModel
from coattn.predictor import Predictor
from coattn.runtime import Predictor as ExportedPredictor
from coattn.runtime import folder as layout
from coattn.runtime.generator import SEARCH, Generator
from coattn.runtime.inputs import image_inputs, padded
from coattn.serialization.directory import ModelDirectory, load_directory
from coattn.serialization.files import CARD, CERTIFICATE, IMAGE_INDEX
from coattn.text.vocabulary import Vocabulary

from .changed_answers import ChangedAnswers, count_changed_answers, questions_to_compare, write_changed_answers
from .generator import generator_difference, write_generator
from .image_side import split_image_side
from .onnx import OPSET, ClassifierGraph, ExtractorGraph, classifier_axes, example_inputs, write_graph
from .text_encoder import write_text_encoder, write_tokenizer

TOLERANCE = 1e-4
# (questions, tokens, regions) of the batches that are compared; with several questions one image has no region.
_CHECKED = ((1, 1, 1), (1, 7, 36), (3, 5, 7), (2, 9, 3), (5, 3, 16))


class Parity(NamedTuple):
    """The largest difference of a logit between the model and its export, and the batches that were compared.

    Attributes:
        difference: of a logit.
        batches: questions, tokens and regions of each.
        changed: the answers to the questions of a data set that differ, if they were compared.
        only_features: why the export takes no images but their features; empty if it takes images.
    """

    difference: float
    batches: tuple[tuple[int, int, int], ...]
    changed: ChangedAnswers | None = None
    only_features: str = ""


def export_folder(
    model_folder: str | Path,
    out: str | Path,
    *,
    maps: bool = False,
    int8: bool = False,
    check: str | Path | None = None,
) -> Parity:
    """Export a model directory to a folder that `coattn.runtime` and `coattn serve` answer from without torch.

    Args:
        model_folder: a model directory, as `coattn fit` writes it.
        out: the folder to write; it must not exist.
        maps: write `maps.onnx` too, which returns the attention maps beside the logits.
        int8: store the weights of matrix products as 8-bit integers. Products that read the region features directly
            stay in float32: in int8 that of MCAN changed ten times as many answers; other models were not measured.
        check: a folder that `coattn prepare` wrote, with features; the answers to its test questions are compared,
            and the share that differs is written into the card.

    Returns:
        How far the logits and answers of the export are from those of the model.

    Raises:
        FileExistsError: `out` exists.
        FileNotFoundError, ValueError: `model_folder` is not a readable model directory, or the model cannot be
            exported; the message names the part and the reason.
        ModuleNotFoundError: the extra `export` is not installed.
    """
    out = Path(out)
    if out.exists():
        raise FileExistsError(f"{out}: already exists; choose another folder or remove it")
    directory = load_directory(model_folder)
    if maps and isinstance(directory.model, VQAGenerator):
        raise ValueError(f"{directory.folder}: the attention maps of a model that writes its answers are not exported")
    if isinstance(directory.model, OriginalPadding):
        raise ValueError(
            f"{directory.folder}: a model with its authors' padding (faithful) is not exported; convert its weights "
            "with --repaired"
        )
    if check is not None:
        if not Path(check, "features").exists():
            raise FileNotFoundError(f"{check}: has no features/; --check takes a prepared data set with its features")
        predictor = Predictor(directory, features=Path(check, "features"))
        records = questions_to_compare(predictor, check)
    with atomic_folder(out) as partial:
        parity = _write(directory, partial, maps=maps, int8=int8, checked=check is not None)
        if check is not None:
            changed = count_changed_answers(predictor, ExportedPredictor.load(partial), records)
            write_changed_answers(partial, changed)
            parity = parity._replace(changed=changed)
    return parity


def _write(directory: ModelDirectory, folder: Path, *, maps: bool, int8: bool, checked: bool) -> Parity:
    model = directory.model
    map_names: list[str] = []
    if isinstance(model, VQAGenerator):
        write_generator(model, folder)
    else:
        inputs = example_inputs(model, batch=3, tokens=5, regions=7)
        graph = ClassifierGraph(model, (), packed=not int8)
        write_graph(graph, inputs, classifier_axes(), ["logits"], folder / layout.MODEL)
        if maps:
            with torch.no_grad():
                map_names = list(_run(model, inputs, need_weights=True).maps)
            graph = ClassifierGraph(model, map_names)
            write_graph(graph, inputs, classifier_axes(), ["logits", *map_names], folder / layout.MAPS)
    split_image_side(folder / layout.MODEL, folder / layout.IMAGE_SIDE)
    parity = check_parity(model, folder)
    if parity.difference > TOLERANCE:
        raise ValueError(
            f"{directory.folder}: a logit of the export differs by {parity.difference:.2g}, more than {TOLERANCE}"
        )
    if int8:
        for name in (layout.MODEL, layout.IMAGE_SIDE, layout.DECODER):
            if (folder / name).is_file():
                _quantize(folder / name)
    grid = _write_extractor(directory, folder)
    if grid is None and (name := directory.extractor["name"]) not in PLAIN:
        reason = (
            f"of the image extractors only those without a network, or on a grid, are exported, and {name!r} is neither"
        )
        parity = parity._replace(only_features=reason)
    _write_question_reader(directory, folder)
    write_json(folder / layout.ANSWERS, directory.answer_vocabulary.to_json(), indent=0)
    card = directory.folder / CARD
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    (folder / layout.CARD).write_text(
        f"{text}\n{_card_section(parity, int8=int8, checked=checked)}".lstrip("\n"), encoding="utf-8"
    )
    for name in (CERTIFICATE, IMAGE_INDEX):
        if (directory.folder / name).is_file():
            shutil.copyfile(directory.folder / name, folder / name)
    hashes = {path.name: sha256_of_file(path) for path in sorted(folder.iterdir())}
    config = {
        "format": layout.FORMAT,
        "version": layout.VERSION,
        "precision": "int8" if int8 else "float32",
        "activation": directory.activation,
        "temperature": directory.temperature,
        "max_tokens": directory.max_tokens,
        "metric": directory.metric,
        "extractor": directory.extractor,
        "grid": grid,
        "maps": map_names,
        "search": {name: getattr(model, name) for name in SEARCH} if isinstance(model, VQAGenerator) else None,
        "sha256": hashes,
    }
    write_json(folder / layout.CONFIG, config, indent=1)
    return parity


def _write_question_reader(directory: ModelDirectory, folder: Path) -> None:
    """Write the vocabulary of questions; or the tokenizer of the text encoder, and the encoder if it is frozen."""
    questions = directory.question_vocabulary
    if isinstance(questions, Vocabulary):
        write_json(folder / layout.QUESTIONS, questions.to_json(), indent=0)
        return
    if questions is not None:
        write_tokenizer(questions, directory.max_tokens, folder)
        return
    encoder = Predictor(directory).text_encoder
    assert encoder is not None
    write_tokenizer(encoder.tokenizer, encoder.max_tokens, folder)
    difference = write_text_encoder(encoder, folder)
    if difference > TOLERANCE:
        raise ValueError(
            f"{directory.folder}: the exported text encoder differs by {difference:.2g}, more than {TOLERANCE}"
        )


def _run(model: VQAModel, inputs: Mapping[str, Tensor], *, need_weights: bool = False) -> Any:
    keywords = {name: value for name, value in inputs.items() if name not in ("question", "regions")}
    return model(inputs["question"], inputs["regions"], **keywords, need_weights=need_weights)


def check_parity(model: VQAModel | VQAGenerator, folder: Path) -> Parity:
    """Compare the logits of a model and of its ONNX files on ragged random batches, one image without regions.

    Of a model that writes its answers, the log-probabilities of the words of random answers are compared.
    """
    runtime = require("onnxruntime", "export")
    sessions = {
        name: runtime.InferenceSession((folder / name).read_bytes(), providers=["CPUExecutionProvider"])
        for name in (layout.MODEL, layout.IMAGE_SIDE, layout.DECODER)
        if (folder / name).is_file()
    }
    graph = sessions[layout.MODEL]
    largest = 0.0
    for number, (batch, tokens, regions) in enumerate(_CHECKED):
        inputs = example_inputs(model, batch=batch, tokens=tokens, regions=regions, seed=number)
        arrays = {name: value.numpy() for name, value in inputs.items()}
        images = [
            image_inputs(rows[mask], boxes[mask], size, sessions.get(layout.IMAGE_SIDE))
            for rows, boxes, size, mask in zip(
                *(arrays[name] for name in ("regions", "boxes", "image_sizes", "region_mask")), strict=True
            )
        ]
        arrays |= {name: padded([image[name] for image in images]) for name in images[0]}
        if isinstance(model, VQAGenerator):
            exported = Generator(graph, sessions[layout.DECODER])
            largest = max(largest, generator_difference(model, exported, inputs, arrays))
            continue
        with torch.no_grad():
            expected = _run(model, inputs).logits.numpy()
        values = {value.name: arrays[value.name] for value in graph.get_inputs()}
        largest = max(largest, float(np.abs(graph.run(["logits"], values)[0] - expected).max()))
    return Parity(largest, _CHECKED)


def _write_extractor(directory: ModelDirectory, folder: Path) -> dict[str, Any] | None:
    """Write the network of the image extractor, if it has one that runs on a grid, and return what prepares images."""
    name = directory.extractor["name"]
    if name in PLAIN:
        return None
    weights = directory.extractor_weights
    if weights is None:
        return None
    extractor: Extractor = build_extractor(directory.extractor, weights=weights)
    if not isinstance(extractor, GridExtractor) or type(extractor).prepare is not GridExtractor.prepare:
        return None
    pixels = torch.zeros(2, *extractor.input_size, 3, dtype=torch.uint8)
    path = folder / layout.EXTRACTOR
    write_graph(ExtractorGraph(extractor), {"pixels": pixels}, {"pixels": {0: "batch"}}, ["features"], path)
    return {"size": list(extractor.input_size), "resample": extractor.resample, "boxes": extractor.boxes.tolist()}


def _quantize(path: Path) -> None:
    """Replace the weights of matrix products by 8-bit integers, per output channel."""
    quantization = require("onnxruntime.quantization", "export")
    graph = require("onnx", "export").load(path).graph
    raw = [node.name for node in graph.node if "regions" in node.input]
    logging.disable(logging.WARNING)  # onnxruntime's advice to optimize the graph first, on the root logger
    try:
        quantization.quantize_dynamic(
            path,
            path,
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            op_types_to_quantize=["MatMul", "Gemm"],
            nodes_to_exclude=raw,
        )
    finally:
        logging.disable(logging.NOTSET)


def _card_section(parity: Parity, *, int8: bool, checked: bool) -> str:
    batches = ", ".join(f"{batch} x {tokens} x {regions}" for batch, tokens, regions in parity.batches)
    lines = [
        "## Export",
        "",
        f"ONNX, opset {OPSET}. No logit of the float32 export differs by more than {parity.difference:.1e} from the "
        f"model's on random batches of {batches} (questions x tokens x regions, ragged, one image empty).",
    ]
    if int8:
        lines += ["", "The weights of matrix products are stored as 8-bit integers, which changes logits and answers."]
        if not checked:
            lines += ["How many answers it changes was not measured; `coattn export --check` measures it."]
    if parity.only_features:
        lines += ["", f"Ask it about features, not images: {parity.only_features}."]
    return "\n".join([*lines, ""])
