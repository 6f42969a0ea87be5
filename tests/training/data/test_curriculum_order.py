from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from test_data_module import epoch, module, same
from test_resume import fit
from tiny import change

from coattn.training.cli.commands import main
from coattn.training.data.plan import BatchPlan, EasyFirst

CURRICULUM = {"question_types": ["yes/no"], "epochs": 1.5}


def plan(**changes: int) -> BatchPlan:
    random = np.random.default_rng(0)
    return BatchPlan(random.integers(1, 9, 100), random.integers(1, 9, 100), **{"batch_size": 8, "pool": 3, **changes})


@pytest.mark.parametrize("accumulate", [1, 2])
def test_easy_questions_come_first_and_equally_often(accumulate: int) -> None:
    whole, easy = plan(batch_size=8 // accumulate, accumulate=accumulate), np.arange(100) % 3 == 0
    ordered = EasyFirst(whole, easy, epochs=1.25)
    assert ordered.num_batches == 16 * accumulate  # of 13 steps in an epoch, as near as whole steps come
    batches = [batch for number in range(3) for batch in ordered.epoch(number)]
    plain = [batch for number in range(3) for batch in whole.epoch(number)]
    assert len(batches) == len(plain)
    counts = np.bincount(np.concatenate([batch for batch, _ in batches[: ordered.num_batches]]), minlength=100)
    assert (counts[~easy] == 0).all()
    assert set(counts[easy]) == {3, 4}  # 16 steps of 7 or 6, out of 34 questions
    for (ours, divisor), (theirs, expected) in zip(batches[16 * accumulate :], plain[16 * accumulate :], strict=True):
        assert np.array_equal(ours, theirs)
        assert divisor == expected
    for first in range(0, len(batches), accumulate):
        step = batches[first : first + accumulate]
        assert all(divisor * accumulate == sum(len(batch) for batch, _ in step) for _, divisor in step)


def test_accumulating_cuts_the_same_steps() -> None:
    easy = np.arange(100) < 40
    cut = [batch for batch, _ in EasyFirst(plan(batch_size=4, accumulate=2), easy, epochs=0.5).epoch(0)]
    for index, (batch, _) in enumerate(EasyFirst(plan(), easy, epochs=0.5).epoch(0)):
        assert np.array_equal(batch, np.concatenate(cut[2 * index : 2 * index + 2]))


def test_the_data_module_and_its_workers_follow_the_curriculum(tiny_data: Path) -> None:
    data = module(tiny_data, curriculum=CURRICULUM)
    batches = epoch(data.train_dataloader())
    asked = {data.split("train").records[place].question_type for batch in batches for place in batch.positions}
    assert asked == {"yes/no"}
    helped = module(tiny_data, curriculum=CURRICULUM, num_workers=2, start_method="fork")
    assert same(batches, epoch(helped.train_dataloader()))
    assert len(batches) == len(epoch(module(tiny_data).train_dataloader()))


def test_going_on_within_and_after_the_easy_part(config: Path, tmp_path: Path) -> None:
    config = change(config, tmp_path / "curriculum.yaml", {"data": {"curriculum": CURRICULUM}})
    unbroken = fit(config, tmp_path / "unbroken")
    plain = fit(change(config, tmp_path / "plain.yaml", {"data": {"curriculum": None}}), tmp_path / "plain")
    assert not all(torch.equal(plain[name], unbroken[name]) for name in unbroken)
    root = tmp_path / "broken"
    for steps in (3, 8, 11):  # of 6 in an epoch; the easy part ends at 9
        stop = ["--trainer.max_steps", str(steps), "--model.schedule.name", "constant"]
        main(["fit", "--config", str(config), "--trainer.default_root_dir", str(root), *stop, "--resume"])
    constant = ["--model.schedule.name", "constant"]
    resumed = fit(config, root, *constant, "--resume")
    unbroken = fit(config, tmp_path / "constant", *constant)
    assert all(torch.equal(resumed[name], unbroken[name]) for name in unbroken)
    with pytest.raises(ValueError, match=r"curriculum was .*'epochs': 1.5.* is .*'epochs': 0.5"):
        fit(config, root, *constant, "--resume", "--data.batches.curriculum.epochs", "0.5", "--trainer.max_epochs", "4")


def test_an_unknown_type_is_refused(config: Path, tmp_path: Path) -> None:
    settings = {"data": {"curriculum": {"question_types": ["ternary"], "epochs": 1}}}
    with pytest.raises(ValueError, match="'ternary'; there are 'colour', 'yes/no'"):
        fit(change(config, tmp_path / "unknown.yaml", settings), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()
