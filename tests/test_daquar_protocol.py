"""The statistics of tools/daquar.py and tools/daquar_generator.py."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from coattn.datasets.records import Record


@pytest.fixture(scope="module")
def protocol() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "tools" / "daquar.py")))


def test_the_interval_keeps_the_questions_of_an_image_together(protocol: SimpleNamespace) -> None:
    random = np.random.default_rng(1)
    by_image = random.normal(size=400)
    # Every image's 25 questions say the same: 400 independent values, not 10,000.
    values, images = np.repeat(by_image, 25), np.repeat(np.arange(400), 25)
    low, high = protocol.bootstrap_by_image(values, images.tolist())
    expected = 1.96 * by_image.std() / 20
    assert (high - low) / 2 == pytest.approx(expected, rel=0.05)
    assert (high + low) / 2 == pytest.approx(by_image.mean(), abs=0.01)


def test_the_difference_is_paired(protocol: SimpleNamespace) -> None:
    records = [
        Record(number, f"image{number % 50}", "what", ("cup",), answer_type="one", question_type="object")
        for number in range(1000)
    ]
    blind = (np.random.default_rng(0).random((5, 1000)) < 0.2).astype(float)
    ours = blind.copy()
    ours[:, :50] = 1  # the first question of each image is always right; apart from that both agree
    report = protocol.compare(ours, blind, records)
    gain = 100 * (ours - blind).mean()
    assert report["difference"]["mean"] == pytest.approx(gain, abs=0.01)
    for name in ("95 % interval over questions, by image", "95 % interval over seeds"):
        low, high = report["difference"][name]
        assert gain - 0.6 < low < gain < high < gain + 0.6
    accuracy = report["accuracy"]["all"]
    assert accuracy["co-attention"]["mean"] == pytest.approx(100 * ours.mean(), abs=0.01)
    assert accuracy["question only"]["by seed"] == pytest.approx((100 * blind.mean(1)).tolist(), abs=0.01)
    assert report["accuracy"]["question_type: object"]["questions"] == 1000


def test_written_and_chosen_answers_are_compared_by_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    tools = Path(__file__).parents[1] / "tools"
    monkeypatch.syspath_prepend(str(tools))
    comparison = SimpleNamespace(**runpy.run_path(str(tools / "daquar_generator.py")))

    def asked(*answers: str) -> list[Record]:
        return [Record(number, f"image{number}", "what", (answer,)) for number, answer in enumerate(answers)]

    assert comparison.things("Lamp, the garbage_bin, lamp") == {"lamp", "garbage bin"}
    train = asked("chair", "garbage_bin", "chair, table")
    test = asked("chair", "garbage_bin", "chair, table", "table, chair", "table bin", "sofa")
    kinds = comparison.kinds(train, test)
    assert {name: np.flatnonzero(chosen).tolist() for name, chosen in kinds.items()} == {
        "all": [0, 1, 2, 3, 4, 5],
        "one word": [0, 5],
        "one thing in several words": [1, 4],
        "a list": [2, 3],
        "not in training": [3, 4, 5],
        "not in training, its words are": [3, 4],
        "a list, not in training": [3],
    }
    writes, chooses = np.zeros((3, 6)), np.zeros((3, 6))
    writes[:, 3] = chooses[:2, 0] = 1
    report = comparison.compare({"daquar_generator": writes, "daquar": chooses}, kinds, [r.image_id for r in test])
    assert report["a list"]["difference"] == pytest.approx(50)
    assert report["one word"]["chooses"]["by seed"] == pytest.approx([50, 50, 0])
    assert report["a list, not in training"]["interval"] == (100, 100)
