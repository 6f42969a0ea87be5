from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from coattn.explain.abstain import TOO_LONG, UNLIKE, Safeguards
from coattn.explain.answers import UNSURE, Answer, Answers
from coattn.explain.image_index import ImageIndex, mean_features
from coattn.features.encoded import EncodedImage
from coattn.metrics.certificate import Certificate
from coattn.text.vocabulary import Vocabulary

WORDS = Vocabulary(["what", "color", "is", "it"], longest=5)
RISKY = Certificate(0.01, None, 0.0, 0.0, 500, 500)
SAFE = Certificate(0.05, 0.9, 0.8, 0.01, 500, 500)


def index(dim: int = 8, seed: int = 0) -> tuple[ImageIndex, np.ndarray]:
    """An index, and further images of the same kind."""
    images = np.random.default_rng(seed).normal(size=(900, dim)) * np.linspace(0.5, 3, dim)
    return ImageIndex.build(images[:300], images[300:600]), images[600:]


def encoded(features: np.ndarray) -> EncodedImage:
    return EncodedImage(torch.from_numpy(features), None, (0, 0), None)


def judge(
    tmp_path: Path, question: str = "what color is it", confidence: float = 0.95, offset: float = 0.0, **options: object
) -> Answers:
    guards = Safeguards(tmp_path, (RISKY, SAFE), index()[0])
    image = encoded(index()[1][:5] + offset)
    answers = [[Answer("red", confidence)]]
    return guards.judged(answers, [image], [question], WORDS, **options)[0]  # type: ignore[arg-type]


def test_a_sure_answer_is_kept(tmp_path: Path) -> None:
    found = judge(tmp_path, max_risk=0.05)
    assert found == [Answer("red", 0.95)]
    assert (found.withheld, found.reasons) == (False, ())


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ({"confidence": 0.5}, "The confidence of 50 % is below the 90 % that keep the risk to at most 5 %."),
        ({"confidence": 1.0, "max_risk": 0.02}, "A risk of 2 % could not be certified for this model."),
        ({"offset": 50.0}, UNLIKE),
        ({"question": "what is the pink hexagon"}, "The model does not know the words “pink”, “hexagon”."),
        ({"question": "what color is it it it"}, TOO_LONG),
        ({"question": "这是什么颜色?"}, "The model does not know the word “这是什么颜色”."),
    ],
)
def test_a_wished_risk_withholds(case: dict, reason: str, tmp_path: Path) -> None:
    case = {"max_risk": 0.05} | case
    found = judge(tmp_path, **case)
    assert (found, found.withheld, found.reasons) == ([], True, (reason,))
    assert repr(found) == f"{UNSURE} ({reason})"
    anyway = judge(tmp_path, **case, answer_anyway=True)
    assert (len(anyway), anyway.withheld, anyway.reasons) == (1, False, (reason,))


def test_without_a_wish_doubts_are_warnings(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        found = judge(tmp_path, "what pink hexagon is it", 0.1, 50.0)
    assert (len(found), found.withheld, len(found.reasons)) == (1, False, 2)
    assert found.unknown_words == ("pink", "hexagon")
    assert [UNLIKE in str(warned[0].message), "“pink”, “hexagon”" in str(warned[1].message)] == [True, True]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_one_unknown_word_is_named_but_not_withheld(tmp_path: Path) -> None:
    found = judge(tmp_path, "what color is the hexagon", max_risk=0.05)
    assert (found.withheld, found.unknown_words) == (False, ("hexagon",))


def test_other_images_are_recognized() -> None:
    built, same = index()
    assert built.are_unlike(same).mean() < 0.04
    assert built.are_unlike(same + 20).all()
    scattered = np.random.default_rng(1).normal(size=(50, 8)) * 30
    assert built.are_unlike(scattered).mean() > 0.9


def test_a_distance_is_relative_to_that_between_the_nearest_training_images() -> None:
    random = np.random.default_rng(0).normal(size=(800, 2))
    sparse, dense = 4 * random[:400], 0.2 * random[400:] + 40
    images = np.concatenate((sparse, dense))
    built = ImageIndex.build(images[::2], images[1::2])
    step = np.array([[2.0, 0.0]])
    assert built.are_unlike(dense.mean(0) + step).all()
    assert not built.are_unlike(sparse.mean(0) + step).any()
    assert np.median(built.distances(images[1::2])) == pytest.approx(1, abs=0.1)


def test_equal_training_images_are_no_distance_apart() -> None:
    images = np.repeat(np.random.default_rng(0).normal(size=(4, 3)), 30, 0)
    built = ImageIndex.build(images, images)
    assert not built.are_unlike(images).any()
    assert built.are_unlike(images + 1).all()


@pytest.mark.parametrize("equal", [False, True])
def test_a_loaded_index_flags_the_same_images(equal: bool, tmp_path: Path) -> None:
    train, val = np.random.default_rng(0).normal(size=(2, 300, 8))
    if equal:
        train = val = np.repeat(train[:1], 300, 0)
    built = ImageIndex.build(train, val)
    built.save(tmp_path)
    read = ImageIndex.load(tmp_path)
    assert read is not None
    np.testing.assert_array_equal(read.distances(val), built.distances(val))
    assert read.are_unlike(val).sum() <= 3
    assert read.are_unlike(val + 100).all()


def test_what_the_components_leave_out_counts() -> None:
    random = np.random.default_rng(0)
    low = random.normal(size=(600, 3)) @ random.normal(size=(3, 100))
    low[:, :3] += 0.01 * random.normal(size=(600, 3))
    built = ImageIndex.build(low[:300], low[300:])
    assert built.projection.shape == (100, 64)
    assert built.are_unlike(low[300:] + random.normal(size=(300, 100))).all()


def test_safeguards_are_kept(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Model\n\n## Scores\n\nhigh\n", encoding="utf-8")
    built, same = index()
    for _ in range(2):  # writing again replaces the section
        Safeguards(tmp_path, (RISKY, SAFE), built).save()
    read = Safeguards.load(tmp_path)
    assert (read.certificates, read.missing) == ((RISKY, SAFE), "")
    assert pickle.loads(pickle.dumps(read)).certificates == read.certificates
    assert read.index is not None
    np.testing.assert_allclose(read.index.distances(same), built.distances(same), rtol=1e-4)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# Model\n\n## Scores\n\nhigh\n\n## When to believe it\n")
    assert card.count("wrong in at most 5 % of cases") == 1


def test_an_older_directory_says_what_is_missing(tmp_path: Path) -> None:
    guards = Safeguards.load(tmp_path)
    assert f"{tmp_path} has no current certificate.json and index.safetensors" in guards.missing
    assert "run `coattn certify` on its model directory and export it again" in guards.missing
    (tmp_path / "config.json").write_text("{}")  # which an exported folder does not have
    assert f"coattn certify {tmp_path} --config CONFIG" in guards.missing
    (answers,) = guards.judged([[Answer("red", 1.0)]], [encoded(np.zeros((2, 3)))], ["what is it"], WORDS)
    assert answers == [Answer("red", 1.0)]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_no_risk_is_promised_without_a_certificate(tmp_path: Path) -> None:
    guards = Safeguards.load(tmp_path)
    (found,) = guards.judged([[Answer("red", 1.0)]], [encoded(np.zeros((2, 3)))], ["what is it"], WORDS, max_risk=0.5)
    assert found.withheld


@pytest.mark.parametrize("content", ["{}x", "[1]", '[{"risk": 0.05}]', "5"])
def test_a_damaged_certificate_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "certificate.json").write_text(content)
    with pytest.raises(ValueError, match=r"certificate\.json"):
        Safeguards.load(tmp_path)


def test_an_index_of_an_earlier_version_counts_as_missing(tmp_path: Path) -> None:
    arrays = {name: np.array(value, np.float32) for name, value in index()[0]._asdict().items() if name != "spread"}
    (tmp_path / "index.safetensors").write_bytes(save(arrays))
    guards = Safeguards.load(tmp_path)
    assert guards.index is None
    assert "no current certificate.json and index.safetensors" in guards.missing


def test_a_damaged_index_is_named(tmp_path: Path) -> None:
    built, _ = index()
    built._replace(spread=built.spread[:3]).save(tmp_path)
    with pytest.raises(ValueError, match=r"index\.safetensors: the shapes"):
        ImageIndex.load(tmp_path)
    built._replace(mean=built.mean[:3]).save(tmp_path)
    with pytest.raises(ValueError, match=r"index\.safetensors: the shapes"):
        ImageIndex.load(tmp_path)
    built._replace(spread=0 * built.spread).save(tmp_path)
    with pytest.raises(ValueError, match=r"index\.safetensors: its numbers cannot be distances"):
        ImageIndex.load(tmp_path)
    (tmp_path / "index.safetensors").write_bytes(b"\0" * 9)
    with pytest.raises(ValueError, match=r"index\.safetensors: not a readable"):
        ImageIndex.load(tmp_path)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_index_is_asked_once_for_each_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guards = Safeguards(tmp_path, None, index()[0])
    like, unlike = (encoded(index()[1][:5] + offset) for offset in (0.0, 50.0))
    asked: list[int] = []
    distances = ImageIndex.distances
    monkeypatch.setattr(
        ImageIndex, "distances", lambda index, images: (asked.append(len(images)), distances(index, images))[1]
    )
    for images in ([like, unlike, like], [unlike, like]):
        found = guards.judged([[Answer("red", 1.0)]] * len(images), images, ["what"] * len(images), WORDS)
        assert [answers.reasons for answers in found] == [(UNLIKE,) if image is unlike else () for image in images]
    assert asked == [2]


def test_mean_features_of_an_image_without_regions() -> None:
    np.testing.assert_array_equal(mean_features([np.ones((3, 2)), np.zeros((0, 2))]), [[1, 1], [0, 0]])


def test_certificates_are_plain_json(tmp_path: Path) -> None:
    (tmp_path / "README.md").touch()
    Safeguards(tmp_path, (SAFE,), None).save()
    assert json.loads((tmp_path / "certificate.json").read_text())[0]["threshold"] == 0.9
