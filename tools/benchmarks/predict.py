"""`tools/bench predict`: the time of one question, and the rate of answers in batches."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn

from benchmarks import conventional
from benchmarks.alone import run_alone
from benchmarks.context import PRECISIONS, Context, Row
from benchmarks.conventional import Sizes
from benchmarks.data import ADAPTIVE, DataSet, make_vocabularies
from benchmarks.machine import synchronise
from benchmarks.ours import make_model, make_trainer
from benchmarks.timing import alternate, ratio, seconds, summary
from benchmarks.work import FORWARD, conventional_shapes, work
from coattn import models
from coattn.nn import VQAModel
from coattn.serialization.directory import ModelDirectory
from coattn.training import VQATask
from coattn.training.data.plan import evaluation_batches

EASY_VQA = Path(__file__).resolve().parents[2] / "configs" / "easy_vqa.yaml"
CONVENTIONAL = "conventional, float32"
_TOKENS = 7


def run(context: Context) -> list[Row]:
    """One question at a time, then batches."""
    return [*latency(context), *evaluation(context)]


def latency(context: Context) -> list[Row]:
    """Milliseconds for one question, features known: MCAN beside the conventional one, and easy-VQA's model."""
    sizes, device = context.scale.sizes, context.device
    mcan = make_model(sizes)
    easy = models.modular(
        **yaml.safe_load(EASY_VQA.read_text())["model"]["sizes"],
        region_dim=56,
        num_words=sizes.num_words,
        num_answers=13,
    )
    question, regions = torch.randint(2, sizes.num_words, (1, _TOKENS)), torch.randn(1, 36, sizes.region_dim)
    theirs = conventional.MCAN(sizes).to(device).eval()
    padded = [
        torch.from_numpy(conventional.padded(rows[0].numpy(), size))[None]
        for rows, size in ((question, conventional.NUM_TOKENS), (regions, conventional.NUM_REGIONS))
    ]
    cases = {
        ("one question, 36 regions", "coattn, model"): asked(mcan, question, regions, device),
        ("one question, 36 regions", CONVENTIONAL): called(theirs, padded, device),
        ("one question, easy-VQA's model", "coattn, model"): asked(easy, question, torch.randn(1, 16, 56), device),
    }
    try:
        cases["one question, 36 regions", "coattn, Predictor"] = by_predictor(mcan, sizes, question, regions, device)
    except ModuleNotFoundError as error:
        print(f"Predictor is not measured: it needs {error.name}")
    for call in cases.values():
        call()
    found = alternate({key: partial(milliseconds, call) for key, call in cases.items()}, context.scale.asked)
    rows: list[Row] = []
    for (case, name), times in found.items():
        row: Row = {"case": case, "implementation": name, "ms": summary(times)}
        if name != CONVENTIONAL and (case, CONVENTIONAL) in found:
            row["ratio"] = ratio(found[case, CONVENTIONAL], times)
        rows.append(row)
    return rows


def milliseconds(call: Callable[[], Any]) -> float:
    """The milliseconds that a call takes."""
    return 1000 * seconds(call)


def asked(model: VQAModel, question: Tensor, regions: Tensor, device: str) -> Callable[[], Any]:
    """Our model's answer to one question; every element is real."""
    model = model.to(device).eval()
    boxes = torch.tensor([0.1, 0.2, 0.6, 0.8]).expand(1, regions.shape[1], 4)

    def call() -> int:
        with torch.inference_mode():
            output = model(
                question.to(device),
                regions.to(device),
                question_mask=torch.ones(question.shape, dtype=torch.bool, device=device),
                region_mask=torch.ones(regions.shape[:2], dtype=torch.bool, device=device),
                boxes=boxes.to(device),
            )
            return int(output.logits.argmax())

    return call


def called(model: nn.Module, inputs: list[Tensor], device: str) -> Callable[[], Any]:
    """The conventional model's answer."""

    def call() -> int:
        with torch.no_grad():
            return int(model(*(tensor.to(device) for tensor in inputs)).argmax())

    return call


def by_predictor(model: VQAModel, sizes: Sizes, question: Tensor, regions: Tensor, device: str) -> Callable[[], Any]:
    """The answer by `coattn.Predictor`: from the words of the question to ranked answers.

    Raises:
        ModuleNotFoundError: the package that reads images is not installed.
    """
    from coattn.predictor import EncodedImage, Predictor

    words, answers = make_vocabularies(sizes.num_words, sizes.num_answers)
    directory = ModelDirectory(
        Path("benchmark"), model.eval(), words, answers, "vqa_accuracy", "sigmoid", 1.0, None, {}, None
    )
    predictor = Predictor(directory, device=device)
    boxes = torch.tensor([0.1, 0.2, 0.6, 0.8]).expand(regions.shape[1], 4)
    image = EncodedImage(regions[0], boxes, (640, 480), None)
    text = " ".join(f"w{number - 2}" for number in question[0].tolist())
    return lambda: predictor.ask(image, text)


def evaluation(context: Context) -> list[Row]:
    """Questions per second of answering a split, by Lightning and by the conventional loop."""
    shape, scale = ADAPTIVE, context.scale
    data = evaluation_data(context)
    runs = {f"coattn, {precision}": our_rate(context, data, precision) for precision in context.precisions}
    found = alternate(runs | {CONVENTIONAL: their_rate(context, data)}, scale.rounds)
    rows: list[Row] = []
    for name, rates in found.items():
        row: Row = {"case": f"evaluation, {shape.name}", "implementation": name, "questions/s": summary(rates)}
        if name != CONVENTIONAL:
            row["ratio"] = ratio(rates, found[CONVENTIONAL])
        row |= computed(context, data, name, rates)
        if not context.quick:
            row["peak GB"] = run_alone(context, "predict", row["case"], name)["peak GB"]
        rows.append(row)
    return rows


def computed(context: Context, data: DataSet, name: str, rates: list[float]) -> Row:
    """The share of the machine's matrix rate that was used, and the share of padding."""
    split = data.module().split("predict")
    if name == CONVENTIONAL:
        shapes = conventional_shapes(split)
    else:
        batches = evaluation_batches(split.num_regions, split.num_tokens, split.images, 2 * context.scale.batch_size)
        shapes = [(len(b), int(split.num_regions[b].max()), int(split.num_tokens[b].max())) for b in batches]
    limit = context.matrix_rates["bf16" if "bf16" in name else "float32"]
    return work(context.scale.sizes, split, shapes, rates, passes=FORWARD, limit=limit)


def evaluation_data(context: Context) -> DataSet:
    """Questions for some evaluation batches, twice as large as those of training; five about each image."""
    scale = context.scale
    questions = 2 * scale.eval_batches * scale.batch_size
    images = math.ceil(questions / 5)
    return scale.sized_data(context.folder, ADAPTIVE, num_images=images, num_questions=questions)


def our_rate(context: Context, data: DataSet, precision: str) -> Callable[[], float]:
    """A measurement of answering all questions with Lightning, in questions per second."""
    module = data.module(batch_size=context.scale.batch_size)
    task = VQATask(make_model(context.scale.sizes))

    def rate() -> float:
        clock = _Clock(context.device)
        trainer = make_trainer(context.device, PRECISIONS[precision], clock, devices=1)
        trainer.predict(task, datamodule=module, return_predictions=False)
        return data.num_questions / clock.seconds

    return rate


class _Clock(Callback):
    """Times a prediction loop."""

    def __init__(self, device: str) -> None:
        self.device, self.seconds = device, 0.0

    def on_predict_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.began = time.perf_counter()

    def on_predict_end(self, trainer: Trainer, pl_module: Any) -> None:
        synchronise(self.device)
        self.seconds = time.perf_counter() - self.began


def their_rate(context: Context, data: DataSet) -> Callable[[], float]:
    """A measurement of the conventional loop over some batches, in questions per second."""
    scale = context.scale
    batches = conventional.forever(
        conventional.loader(
            data.samples(), batch_size=scale.batch_size, num_workers=scale.num_workers, device=context.device
        )
    )
    model = conventional.MCAN(scale.sizes).to(context.device).eval()

    def rate() -> float:
        start = time.perf_counter()
        with torch.no_grad():
            for _ in range(scale.their_eval_batches):
                regions, question, _ = (tensor.to(context.device) for tensor in next(batches))
                model(question, regions).argmax(dim=1).cpu()
        return scale.their_eval_batches * scale.batch_size / (time.perf_counter() - start)

    return rate


def run_once(context: Context, case: str, implementation: str) -> Row:
    """One measurement of one row of the evaluation, for the memory that it takes."""
    data = evaluation_data(context)
    if implementation == CONVENTIONAL:
        return {"questions/s": their_rate(context, data)()}
    return {"questions/s": our_rate(context, data, implementation.removeprefix("coattn, "))()}
