from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import multiprocessing

from coattn.datasets.records import Record
from coattn.datasets.results import Results
from coattn.metrics.confidence import calibration_error, confidence_statistic
from coattn.metrics.score import score

pytest.importorskip("torchmetrics")

from coattn.metrics.streaming import AnswerAccuracy, CalibrationError, SelectivePrediction, SplitScores

ANSWERS = ["yes", "no", "cat", "dog", "2"]
QUESTIONS = 120


def questions() -> list[Record]:
    chance = random.Random(0)
    return [
        Record(
            f"q{i}",
            i % 30,
            "what?",
            tuple(chance.choice(ANSWERS[:3]) for _ in range(10)),
            answer_type=chance.choice(["yes/no", "other"]),
            extra={"groups": {"global": chance.choice("ab")}, "isBalanced": i % 5 > 0},
        )
        for i in range(QUESTIONS)
    ]


def answers() -> tuple[torch.Tensor, torch.Tensor]:
    chance = np.random.default_rng(0)
    return torch.from_numpy(chance.integers(5, size=QUESTIONS)), torch.from_numpy(chance.random(QUESTIONS))


def feed(places: list[int]) -> dict[str, Any]:
    """The results of the metrics for some questions, given in batches of 7."""
    records, (numbers, sure) = questions(), answers()
    metrics = {
        "accuracy": AnswerAccuracy("vqa_accuracy"),
        "scores": SplitScores(records, ANSWERS, "gqa"),
        "calibration": CalibrationError(num_bins=10),
        "selective": SelectivePrediction(),
    }
    for start in range(0, len(places), 7):
        batch = places[start : start + 7]
        rows, texts = [records[place] for place in batch], [ANSWERS[numbers[place]] for place in batch]
        worth = torch.tensor([row.answers.count(text) / 10 for row, text in zip(rows, texts, strict=True)])
        metrics["accuracy"].update(texts, rows)
        metrics["scores"].update(torch.tensor(batch), numbers[batch], sure[batch])
        metrics["calibration"].update(sure[batch], worth)
        metrics["selective"].update(sure[batch], worth)
    return {name: metric.compute() for name, metric in metrics.items()}


def process(rank: int, shares: list[list[int]], folder: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=len(shares))
    torch.save(feed(shares[rank]), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_one_process_equals_the_functions() -> None:
    records, (numbers, sure) = questions(), answers()
    texts = [ANSWERS[number] for number in numbers]
    got = feed([*range(QUESTIONS)])
    by_id = {record.question_id: text for record, text in zip(records, texts, strict=True)}
    shares = {record.question_id: share.item() for record, share in zip(records, sure, strict=True)}
    assert got["accuracy"].item() == pytest.approx(score(by_id, records, "vqa_accuracy").overall, abs=0.005)
    expected = score(Results(by_id, shares), records, "gqa").numbers
    flat = {f"{title}/{name}": number.value for title, block in expected.items() for name, number in block.items()}
    assert {name: value.item() for name, value in got["scores"].items()} == flat
    worth = np.float32([record.answers.count(text) / 10 for record, text in zip(records, texts, strict=True)])
    worth = worth.astype(np.float64)
    error = calibration_error(sure.numpy(), worth, num_bins=10)
    assert got["calibration"].item() == pytest.approx(error, abs=1e-12)
    statistic = confidence_statistic(sure.numpy(), worth)
    values = statistic.compute(np.ones(QUESTIONS, np.int64))
    assert [got["selective"][name].item() for name in statistic.names] == pytest.approx(values.tolist())


@pytest.mark.parametrize("share", ["uneven", "one has none"])
def test_two_processes_equal_one(share: str, tmp_path: Path) -> None:
    everything = [*range(QUESTIONS)]
    shares = [everything[::2] + everything[1:40:2], everything[41::2]] if share == "uneven" else [everything, []]
    # Forked, not spawned: importing everything anew takes longer than all the rest.
    multiprocessing.start_processes(process, (shares, tmp_path), nprocs=2, start_method="fork")
    alone = feed(everything)
    for rank in range(2):
        got = torch.load(tmp_path / f"{rank}.pt")
        for name, value in alone.items():
            torch.testing.assert_close(got[name], value, rtol=1e-12, atol=1e-12)


def test_questions_that_two_processes_answered_count_once() -> None:
    records = [Record(i, i, "q", ("cat",)) for i in range(3)]
    metric = SplitScores(records, ["cat", "dog"], "exact_match")
    metric.update(torch.tensor([0, 1]), torch.tensor([0, 1]))
    metric.update(torch.tensor([2, 0]), torch.tensor([0, 0]))
    assert metric.compute()["all questions/exact_match"].item() == 66.67
    metric.reset()
    metric.update(torch.tensor([1]), torch.tensor([1]))
    assert metric.compute()["all questions/exact_match"].item() == 0


def test_unknown_metrics_are_refused() -> None:
    for build in (AnswerAccuracy, lambda metric: SplitScores([], [], metric)):
        with pytest.raises(ValueError, match="unknown metric 'bleu'; known are vqa_accuracy"):
            build("bleu")
