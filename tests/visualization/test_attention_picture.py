from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from coattn.explain.answers import Answer, Answers
from coattn.explain.maps import Attribution, Explanation
from coattn.text.reading import Word
from coattn.visualization import attention as picture
from coattn.visualization import canvas, parts
from coattn.visualization.attention import compare, draw
from coattn.visualization.parts import shape

GRID = np.array([[c / 4, r / 4, (c + 1) / 4, (r + 1) / 4] for r in range(4) for c in range(4)])


def explanation(question: str = "what is red", regions: np.ndarray = GRID, strongest: int = 5) -> Explanation:
    tokens = tuple(question.lower().split())
    num_words, num_regions = len(tokens), len(regions)
    random = np.random.default_rng(0)

    def rows(*shape: int) -> np.ndarray:
        weights = random.random(shape)
        return weights / weights.sum(-1, keepdims=True)

    pooling = np.full((1, 1, num_regions), 0.1 / num_regions)
    pooling[0, 0, strongest] += 0.9
    return Explanation(
        question=question,
        tokens=tokens,
        boxes=regions,
        image=Image.new("RGB", (120, 80), (90, 140, 90)),
        size=(120, 80),
        maps={
            "layers.0.question_to_regions": rows(2, num_words, num_regions),
            "layers.0.regions_to_question": rows(2, num_regions, num_words),
            "layers.0.question_to_question": rows(2, num_words, num_words),
            "layers.0.regions_to_regions": rows(2, num_regions, num_regions),
            "pooling.question": rows(1, 1, num_words),
            "pooling.regions": pooling,
        },
        answers=Answers([Answer("red", 0.9), Answer("a very long answer that has to be shortened somewhere", 0.004)]),
    )


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text that is written on a page."""
    written: list[str] = []
    write = canvas.Canvas.text

    def record(self: canvas.Canvas, x: float, y: float, text: str, size: float, **style: object) -> None:
        written.append(text)
        write(self, x, y, text, size, **style)

    monkeypatch.setattr(canvas.Canvas, "text", record)
    return written


def test_shows_question_words_answers_and_says_which_map(texts: list[str]) -> None:
    picture = draw(explanation())
    assert picture.mode == "RGB"
    assert picture.width == 1536
    assert {"what is red", "what", "is", "red", "90 %", "0.4 %"} <= set(texts)
    caption = " ".join(texts)
    assert "Image: pooling.regions, the share of attention that each region gets. Words: pooling.question." in caption
    assert "mean" not in caption


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0.3] * 16, []),
        ([-0.38] * 15 + [0.12], ["+12"]),
        ([-0.38] * 15 + [-0.12], []),
        ([0.12] * 15 + [0.38], ["+38"]),
        ([0.0] * 12 + [0.4, 0.2, 0.3, -0.1], ["+40", "+30", "+20"]),
        ([0.4] * 10 + [0.0] * 6, []),
    ],
)
def test_regions_that_differ_from_the_others_are_outlined(values: list[float], labels: list[str]) -> None:
    drawn: list[str] = []
    found = Attribution("dependence", "red", np.array(values), np.zeros(3), True, 34)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "_draw_label", lambda canvas, region, image, text, others: drawn.append(text) or region)
        draw(dataclasses.replace(explanation(), attribution=found))
    assert drawn == labels


def test_heat_lies_where_the_attention_is() -> None:
    base = np.asarray(draw(dataclasses.replace(explanation(), maps={"pooling.regions": np.zeros((1, 1, 16))})), float)
    for strongest in (0, 6, 15):
        e = explanation(strongest=strongest)
        heated = np.asarray(draw(dataclasses.replace(e, maps={"pooling.regions": e.maps["pooling.regions"]})), float)
        change = np.abs(heated - base).sum(-1)
        change[change < 60] = 0
        rows, columns = np.nonzero(change)
        row, column = divmod(strongest, 4)
        width, height = 632 * canvas.SCALE, 632 * 80 / 120 * canvas.SCALE  # of the image on the page
        left = picture.MARGIN * canvas.SCALE
        assert left + width * column / 4 - 1 <= np.median(columns) <= left + width * (column + 1) / 4 + 1
        top = rows.min() if row == 0 else None
        assert top is None or np.median(rows) - top <= height / 4


@pytest.mark.parametrize(
    ("choice", "caption"),
    [
        (
            {"map": "layers.0.question_to_regions", "head": 1},
            "Image: layers.0.question_to_regions, head 1 (of 0 to 1); where each word looks.",
        ),
        (
            {"map": "layers.0.question_to_regions", "head": "mean", "word": "red"},
            "Image: layers.0.question_to_regions, mean over its 2 heads; where “red” looks.",
        ),
        (
            {"map": "layers.0.regions_to_question", "head": 0},
            "how much each region looks at each word.",
        ),
        (
            {"map": "layers.0.regions_to_question", "head": 0, "region": 3},
            "Words: layers.0.regions_to_question, head 0 (of 0 to 1); where the region outlined in blue looks.",
        ),
        (
            {"map": "layers.0.question_to_regions", "head": 0, "region": 3},
            "how much each word looks at the region outlined in blue.",
        ),
        (
            {"map": "layers.0.question_to_question", "head": 0},
            "Table: layers.0.question_to_question, head 0 (of 0 to 1); each row shows where one word looks,",
        ),
        ({"map": "layers.0.question_to_question", "head": 0, "word": 1}, "where “is” looks."),
        ({"map": "layers.0.regions_to_regions", "head": 0}, "each row shows where one region looks, in percent."),
        ({"map": "layers.0.regions_to_regions", "head": 0, "region": 2}, "where the region outlined in blue looks."),
        ({"map": "pooling.question"}, "Words: pooling.question, the share of attention that each word gets."),
    ],
)
def test_every_kind_of_map_says_what_it_is(choice: dict, caption: str, texts: list[str]) -> None:
    draw(explanation(), **choice)
    assert caption in " ".join(texts)


def test_one_image_per_word_is_titled_by_the_words(texts: list[str]) -> None:
    draw(explanation("what colour is it"), map="layers.0.question_to_regions", head=0)
    assert [texts.count(word) for word in ("what", "colour", "is", "it")] == [2, 2, 2, 2]  # as chip and as title


def test_heads_must_be_named() -> None:
    with pytest.raises(ValueError, match="name one, or ask for 'mean'"):
        draw(explanation(), map="layers.0.question_to_regions")


def test_words_are_shaded_by_the_glimpse_that_is_shown(texts: list[str]) -> None:
    e = explanation()
    glimpses = dict(e.maps)
    glimpses["pooling.regions"] = np.repeat(glimpses["pooling.regions"], 2, 0)
    glimpses["pooling.question"] = np.array([[[0.8, 0.1, 0.1]], [[0.2, 0.35, 0.45]]])
    draw(dataclasses.replace(e, maps=glimpses), head=1)
    assert {"20 %", "35 %", "45 %"} <= set(texts)
    assert "Words: pooling.question, head 1 (of 0 to 1)." in " ".join(texts)
    texts.clear()
    draw(dataclasses.replace(e, maps=glimpses), map="layers.0.question_to_regions", head=1, word=0)
    assert "pooling.question" not in " ".join(texts)  # whose glimpses are not the heads of a layer


def test_each_level_of_a_hierarchy_goes_with_its_own_words(texts: list[str]) -> None:
    e = explanation()
    levels = {
        f"{level}.{name}": e.maps[name]
        for level in ("word", "phrase", "question")
        for name in ("pooling.question", "pooling.regions")
    }
    e = dataclasses.replace(e, maps=levels)
    draw(e)
    assert "Image: question.pooling.regions" in " ".join(texts)
    compare([e])
    assert " ".join(texts).count("Words: question.pooling.question.") == 2
    draw(e, map="word.pooling.regions")
    assert "Words: word.pooling.question." in " ".join(texts)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "question",
    ["is it $5 or $6 ?", r"\frac{1}{2} _^", "x" * 300, " ".join(["word"] * 60), "où est le café ?", "a"],
)
def test_any_text_is_shown_as_it_is(question: str) -> None:
    assert draw(explanation(question)).height < 3000


@pytest.mark.parametrize("size", [(2000, 40), (40, 2000), (1, 1)])
def test_any_shape_of_image(size: tuple[int, int]) -> None:
    e = dataclasses.replace(explanation(), image=Image.new("RGB", size), size=size)
    assert draw(e).height < 2000
    assert compare([e]).height < 1500


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "boxes", [GRID[:1], np.array([[0, 0, 1, 1], [0.2, 0.2, 0.2, 0.2], [0.999, 0.999, 1, 1], [-0.1, 0.5, 1.2, 0.7]])]
)
def test_any_boxes(boxes: np.ndarray) -> None:
    draw(explanation(regions=boxes, strongest=0))


def test_without_the_image_the_boxes_are_drawn() -> None:
    e = dataclasses.replace(explanation(), image=None, size=(120, 80))
    assert draw(e).size == draw(explanation()).size


def test_compares_questions(texts: list[str]) -> None:
    one = compare([explanation("is it red")])
    two = compare([explanation("is it red"), explanation("is it blue")], titles=["first", "second"])
    assert two.width > one.width
    assert {"first", "second", "is it red", "is it blue"} <= set(texts)
    assert " ".join(texts).count("Image: pooling.regions") == 2  # one caption per picture
    four = compare([explanation()] * 4, columns=2)
    assert four.width == two.width
    assert four.height > two.height


def test_compares_maps(texts: list[str]) -> None:
    maps = ["layers.0.question_to_regions", "layers.0.regions_to_question"]
    compare([explanation()] * 2, map=maps, head=0, word="red")
    assert [texts.count(name) for name in maps] == [1, 1]
    assert "where “red” looks." in " ".join(texts)
    assert "how much each region looks at “red”." in " ".join(texts)


def test_compare_wants_one_line_and_its_titles() -> None:
    with pytest.raises(ValueError, match="many rows"):
        compare([explanation()], map="layers.0.question_to_regions", head=0)
    with pytest.raises(ValueError, match="2 explanations, 2 maps, 1 titles"):
        compare([explanation(), explanation()], titles=["first"])
    with pytest.raises(ValueError, match="1 explanations, 2 maps, 2 titles"):
        compare([explanation()], map=["pooling.regions", "pooling.question"])
    with pytest.raises(ValueError, match="0 explanations"):
        compare([])


def test_threads_do_not_disturb_each_other() -> None:
    expected = np.asarray(draw(explanation()))
    pictures: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: pictures.append(np.asarray(draw(explanation())))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(picture, expected) for picture in pictures)
    assert len(pictures) == 2


def attributed(regions: np.ndarray, words: Sequence[float] = (0.2, -0.1, 0.05)) -> Explanation:
    found = Attribution("dependence", "red", regions, np.array(words), True, 46, "", 37.1)
    return dataclasses.replace(explanation(), attribution=found)


def test_an_attribution_says_answer_method_sign_and_faithfulness(texts: list[str]) -> None:
    values = np.zeros(16)
    values[[3, 7]] = 0.4, -0.25
    draw(attributed(values))
    assert "What the answer depends on: “red”" in texts
    assert {"+20", "-10", "+5", "+40", "-25"} <= set(texts)
    assert "0" not in texts  # no box without an effect
    caption = " ".join(texts)
    assert "Method dependence (46 passes of the model)" in caption
    assert "37.1 points better than a random order" in caption
    assert {"against -40", "for +40 points of probability"} <= set(texts)


def test_for_and_against_have_different_colors(texts: list[str]) -> None:
    pictures = [np.asarray(draw(attributed(np.full(16, sign)))).astype(float).sum((0, 1)) for sign in (4.0, -4.0)]
    assert pictures[0][0] > pictures[1][0]  # red for
    assert pictures[0][2] < pictures[1][2]  # blue against


def test_a_uniform_map_looks_uniform(texts: list[str]) -> None:
    maps = {"pooling.regions": np.full((1, 1, 16), 1 / 16)}
    uniform = np.asarray(draw(dataclasses.replace(explanation(), maps=maps)))
    nothing = np.asarray(draw(dataclasses.replace(explanation(), maps={"pooling.regions": np.zeros((1, 1, 16))})))
    assert np.array_equal(uniform, nothing)
    assert "uniform share 6.2 % or less" in texts
    assert not [text for text in texts if text == "6.2 %"]  # no box is drawn


def test_unknown_words_look_unknown(texts: list[str]) -> None:
    words = (Word("what", (0,)), Word("is", (1,)), Word("red", (2,), known=False))
    picture = draw(dataclasses.replace(attributed(np.zeros(16)), words=words))
    assert texts.count("unknown") == 1
    assert np.asarray(picture).tobytes() != np.asarray(draw(attributed(np.zeros(16)))).tobytes()


def test_doubts_are_shown(texts: list[str]) -> None:
    doubt = "The model does not know the word “red”."
    draw(dataclasses.replace(explanation(), answers=Answers([], withheld=True, reasons=[doubt])))
    assert "I don't know" in texts
    assert doubt in " ".join(texts)


def test_a_photo_is_not_stretched() -> None:
    wide = dataclasses.replace(explanation(), image=Image.new("RGB", (300, 100)), size=(0, 0))
    assert shape(wide) == (300, 100)
    assert shape(dataclasses.replace(wide, image=None)) == (1, 1)  # nothing is known of its shape
    assert draw(dataclasses.replace(wide, image=None)).width == 1536


def test_letters_of_other_scripts_are_found_or_replaced() -> None:
    assert canvas.text_width("é", 20) > 0
    assert canvas.text_width("\x1b[31mred", 20) > canvas.text_width("red", 20)  # shown, not obeyed


def test_regions_without_boxes_are_not_drawn(texts: list[str]) -> None:
    values = np.zeros(16)
    values[3] = 0.4
    draw(dataclasses.replace(attributed(values), boxes=np.zeros((16, 4))))
    assert "+40" not in texts
    assert "+20" in texts  # the words are
