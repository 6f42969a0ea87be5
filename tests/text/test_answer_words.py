from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coattn.nn import decoder
from coattn.text import answer_words
from coattn.text.answer_words import COMMA, EOS, AnswerWords, answers_from_json, written_form
from coattn.text.answers import answer_key, normalize_answer, plain_key
from coattn.text.vocabulary import AnswerVocabulary

WORDS = AnswerWords(["chair", "garbage", "bin", "2"])


def test_the_special_ids_are_those_of_the_decoder() -> None:
    assert (answer_words.PAD, answer_words.BOS, answer_words.EOS) == (decoder.PAD, decoder.BOS, decoder.EOS)


@pytest.mark.parametrize(
    ("typed", "written"),
    [
        ("Chair, the garbage_bin", "chair, garbage bin"),
        ("two", "2"),
        ("1,000", "1000"),  # no list: the normal form joins it
        ("chair,,table,", "chair, table"),
        ("x-y, c - d", "xy c d"),  # the normal form of the whole is not that of its parts
        ("?", "?"),
    ],
)
def test_an_answer_is_written_in_its_normal_form_with_the_commas_of_a_list(typed: str, written: str) -> None:
    assert written_form(typed) == written


@given(st.text(st.sampled_from("ab1 ,.-_'?"), max_size=12) | st.text(max_size=8))
def test_what_is_written_scores_like_what_was_typed(typed: str) -> None:
    written = written_form(typed)
    if normalize_answer(typed):  # else nothing but marks and articles is there
        assert answer_key(written) == answer_key(typed)
        words = AnswerWords.build([typed])
        ids = words.encode(typed)
        assert ids is not None
        assert answer_key(words.texts([ids])[0]) == answer_key(typed)


@given(st.text(st.sampled_from("ab1 ,.-+'肝脏。"), max_size=12) | st.text(max_size=8))
def test_what_is_written_as_typed_is_the_same_answer(typed: str) -> None:
    if plain_key(typed).strip(", "):
        words = AnswerWords.build([typed], form="plain")
        ids = words.encode(typed)
        assert ids is not None
        assert plain_key(words.texts([ids])[0]) == plain_key(typed)


def test_answers_as_typed_keep_signs_and_are_written_in_characters() -> None:
    words = AnswerWords.build(["HER2+", "her2-", "1,000 mm", "肝脏、脾脏"], form="plain")
    assert {*words.words} == {"her2+", "her2-", "1,000", "mm", "肝", "脏", "脾"}
    ids = words.encode("肝脏，脾脏。")
    assert ids is not None
    assert words.texts([ids]) == ["肝脏,脾脏"]
    again = AnswerWords.from_json(words.to_json())
    assert (again.words, again.form) == (words.words, "plain")
    assert AnswerWords(["肝脏"]).encode("肝脏") == [4, EOS]  # as saved by older versions


def test_ids_and_back() -> None:
    assert WORDS.encode("chair, garbage_bin") == [4, COMMA, 5, 6, EOS]
    assert WORDS.texts([[4, COMMA, 5, 6, EOS, 0, 0], [7, EOS]]) == ["chair, garbage bin", "2"]
    assert WORDS.decode([5, COMMA, 4]) == ["garbage", ",", "chair"]
    assert len(WORDS) == 8
    assert WORDS.encode("table") is None
    assert WORDS.encode("") is None


def test_words_are_counted_like_answers() -> None:
    words = AnswerWords.build(["lamp, chair", "chair", "Chairs"], min_count=1)
    assert words.words == ("chair", "chairs", "lamp")
    assert AnswerWords.build(["lamp, chair", "chair"], min_count=2).words == ("chair",)
    with pytest.raises(ValueError, match="no word occurs 3 times in the answers"):
        AnswerWords.build(["chair"], min_count=3)


def test_both_kinds_come_back_from_json() -> None:
    again = answers_from_json(WORDS.to_json())
    assert isinstance(again, AnswerWords)
    assert again.words == WORDS.words
    assert isinstance(answers_from_json(["yes", "no"]), AnswerVocabulary)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"words": ["a b"]}, "'a b' at place 0, which is not one word"),
        ({"words": ["a", ","]}, "',' at place 1"),
        ({"words": ["a", "a"]}, "holds 'a' twice"),
        ({"words": [1]}, "place 0 holds 1"),
        ({"words": ["a"], "max": 3}, "has the unknown max"),
        ({"word": []}, "list of texts"),
    ],
)
def test_damaged_vocabularies_are_refused(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        answers_from_json(value)
