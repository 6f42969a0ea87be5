from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from coattn.explain.answers import Answer, Answers
from coattn.explain.maps import Explanation, default_map, region_weights, word_weights
from coattn.text.reading import Word

TOKENS = ("is", "it", "it", "red")
BOXES = np.array([[0, 0, 0.5, 1], [0.5, 0, 1, 1], [0, 0, 1, 0.5]])


def explanation() -> Explanation:
    random = np.random.default_rng(0)

    def rows(*shape: int) -> np.ndarray:
        weights = random.random(shape)
        return weights / weights.sum(-1, keepdims=True)

    return Explanation(
        question="Is it it: red?",
        tokens=TOKENS,
        boxes=BOXES,
        image=None,
        size=(64, 48),
        maps={
            "layers.0.question_to_regions": rows(2, 4, 3),
            "layers.0.regions_to_question": rows(2, 3, 4),
            "layers.0.question_to_question": rows(2, 4, 4),
            "layers.0.regions_to_regions": rows(2, 3, 3),
            "pooling.question": rows(1, 1, 4),
            "pooling.regions": rows(1, 1, 3),
        },
        answers=Answers([Answer("yes", 0.9)]),
    )


def test_a_pooling_names_its_words_and_regions() -> None:
    e = explanation()
    words, regions = word_weights(e), region_weights(e)
    assert [word.token for word in words] == list(TOKENS)
    assert [word.weight for word in words] == e.maps["pooling.question"][0, 0].tolist()
    assert [region.box for region in regions] == [tuple(box) for box in BOXES.tolist()]
    assert [region.weight for region in regions] == e.maps["pooling.regions"][0, 0].tolist()


def test_the_last_pooling_is_meant_where_none_is_named() -> None:
    e = explanation()
    levels = {
        f"{level}.pooling.{side}": e.maps[f"pooling.{side}"] * 0
        for level in ("word", "question")
        for side in ("question", "regions")
    }
    e = dataclasses.replace(e, maps=levels | {"question.pooling.question": e.maps["pooling.question"]})
    assert [word.weight for word in word_weights(e)] == e.maps["question.pooling.question"][0, 0].tolist()
    assert default_map(e.maps, "regions") == "question.pooling.regions"
    with pytest.raises(ValueError, match=r"no map is called 'pooling\.regions'; this model has none"):
        region_weights(dataclasses.replace(e, maps={}))


def test_heads_are_never_averaged_unasked() -> None:
    e = explanation()
    name = "layers.0.question_to_regions"
    with pytest.raises(ValueError, match="has the heads 0 to 1: name one, or ask for 'mean'"):
        e.weights(name)
    np.testing.assert_array_equal(e.weights(name, head=1), e.maps[name][1])
    np.testing.assert_allclose(e.weights(name, head="mean"), (e.maps[name][0] + e.maps[name][1]) / 2)


@pytest.mark.parametrize("head", [2, -1, "max", 0.0, np.inf])
def test_a_head_that_is_not_there(head: object) -> None:
    with pytest.raises(ValueError, match="has the heads 0 to 1 and 'mean', not"):
        explanation().weights("layers.0.question_to_regions", head=head)  # type: ignore[arg-type]


def test_a_map_that_is_not_there_lists_the_others() -> None:
    with pytest.raises(ValueError, match=r"no map is called 'pooling'; this model has layers\.0\.question_to_regions,"):
        explanation().weights("pooling")


@pytest.mark.parametrize(
    ("name", "choice", "side", "place", "is_row"),
    [
        ("layers.0.question_to_regions", {"word": "red"}, "regions", (3, slice(None)), True),
        ("layers.0.question_to_regions", {"word": 2}, "regions", (2, slice(None)), True),
        ("layers.0.question_to_regions", {"region": 1}, "question", (slice(None), 1), False),
        ("layers.0.regions_to_question", {"word": "is"}, "regions", (slice(None), 0), False),
        ("layers.0.regions_to_question", {"region": 2}, "question", (2, slice(None)), True),
        ("layers.0.question_to_question", {"word": 1}, "question", (1, slice(None)), True),
        ("layers.0.regions_to_regions", {"region": 0}, "regions", (0, slice(None)), True),
    ],
)
def test_a_line_belongs_to_its_word_or_region(
    name: str, choice: dict[str, int], side: str, place: tuple, is_row: bool
) -> None:
    e = explanation()
    line = e.line(name, head=1, **choice)
    assert (line.side, line.is_row) == (side, is_row)
    np.testing.assert_array_equal(line.weights, e.maps[name][1][place])
    assert (line.word is None) == ("region" in choice)
    assert (line.region is None) == ("word" in choice)


@pytest.mark.parametrize(
    ("name", "choice", "message"),
    [
        ("layers.0.question_to_regions", {}, "many rows: name a region or a word"),
        ("layers.0.question_to_question", {}, "many rows: name a word"),
        ("layers.0.question_to_regions", {"word": 0, "region": 0}, "many rows"),
        ("layers.0.question_to_question", {"region": 0}, "has no region to choose"),
        ("layers.0.regions_to_regions", {"word": 0}, "has no word to choose"),
        ("layers.0.question_to_regions", {"word": "it"}, "'it' at 1 and 2: name the place"),
        ("layers.0.question_to_regions", {"word": "blue"}, "no word 'blue', only 0 is, 1 it, 2 it, 3 red"),
        ("layers.0.question_to_regions", {"word": 4}, "no word 4"),
        ("layers.0.regions_to_question", {"region": 3}, "the regions 0 to 2, not 3"),
        ("layers.0.regions_to_question", {"region": -1}, "the regions 0 to 2, not -1"),
    ],
)
def test_a_line_that_is_not_there(name: str, choice: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        explanation().line(name, head=0, **choice)


def test_a_pooling_has_no_word_to_choose() -> None:
    with pytest.raises(ValueError, match="single row"):
        explanation().line("pooling.regions", word="red")


def test_weights_of_the_other_side_are_refused() -> None:
    e = explanation()
    with pytest.raises(ValueError, match="weights for the regions, not for the question"):
        word_weights(e, "pooling.regions")
    with pytest.raises(ValueError, match="weights for the question, not for the regions"):
        region_weights(e, "layers.0.question_to_regions", head=0, region=1)
    assert [row.token for row in word_weights(e, "layers.0.question_to_regions", head=0, region=1)] == list(TOKENS)


def test_a_line_knows_the_uniform_share() -> None:
    e = explanation()
    assert e.line("pooling.regions").uniform == pytest.approx(1 / 3)
    assert e.line("layers.0.regions_to_question", head=0, word=0).uniform == pytest.approx(1 / 4)


def test_pieces_of_a_word_add_up() -> None:
    words = (Word("[CLS]", (0,), special=True), Word("itit", (1, 2)), Word("red", (3,), known=False))
    e = dataclasses.replace(explanation(), words=words)
    np.testing.assert_allclose(e.by_word(np.array([0.1, 0.2, 0.3, 0.4])), [0.1, 0.5, 0.4])
    assert explanation().words == tuple(Word(token, (place,)) for place, token in enumerate(TOKENS))
