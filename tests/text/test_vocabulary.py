from __future__ import annotations

import json
from typing import Any

import pytest

from coattn.text.vocabulary import PAD, UNK, AnswerVocabulary, Vocabulary, knows_no_word, unknown_words

QUESTIONS = ["What color is the dog?", "What is it?", "is the DOG red"]


def test_question_words_by_count_then_alphabet() -> None:
    vocabulary = Vocabulary.build(QUESTIONS)
    assert vocabulary.words == ("is", "dog", "the", "what", "color", "it", "red")
    assert Vocabulary.build(reversed(QUESTIONS)).words == vocabulary.words
    assert Vocabulary.build(QUESTIONS, min_count=2).words == ("is", "dog", "the", "what")
    assert len(vocabulary) == 7 + 2


def test_encode_gives_ids_from_two_and_unk_for_unknown_words() -> None:
    vocabulary = Vocabulary(["is", "dog"])
    assert (PAD, UNK) == (0, 1)
    assert vocabulary.encode("Is the dog's dog?") == [2, UNK, UNK, 3]
    assert vocabulary.encode("dog is dog", max_tokens=2) == [3, 2]
    assert vocabulary.tokens("Is the dog?", max_tokens=2) == ["is", "the"]
    assert vocabulary.encode("??") == []


def test_questions_in_a_script_without_spaces_choose_the_tokenizer() -> None:
    vocabulary = Vocabulary.build(["图中有骨头吗？", "is it CT?"])
    assert (vocabulary.tokenizer, len(vocabulary)) == ("characters", 2 + 9)
    assert UNK not in vocabulary.encode("有骨头吗")
    assert Vocabulary.from_json(vocabulary.to_json()).tokenizer == "characters"
    assert Vocabulary.build(["où est-il?"]).tokenizer == "plain"
    assert Vocabulary.build(["图中"], tokenizer="treebank").tokenizer == "treebank"


def test_vocabularies_made_before_text_was_normalized_know_their_words() -> None:
    vocabulary = Vocabulary(["图中有骨头吗？", "what’s", "whats", "dog"])
    assert vocabulary.encode("图中有骨头吗？") == [2]
    assert vocabulary.encode("What’s") == vocabulary.encode("whats") == [4]
    assert Vocabulary(["what’s"]).encode("what's") == [2]


def test_unknown_words_are_named_as_typed() -> None:
    vocabulary = Vocabulary.build(["what color is the shape?", "is there a red circle"])
    assert unknown_words("What Colour is the shape?", vocabulary) == ["Colour"]
    assert unknown_words("Is there, please, a (Hexagon) or hexagon's T-shirt?", vocabulary) == [
        "Hexagon",
        "hexagon's",
        "T",
        "shirt",
    ]
    assert unknown_words("what color is the “shape” ?! --", vocabulary) == []
    assert unknown_words("有 red?", vocabulary) == ["有"]
    assert unknown_words("colour", None) == []


def test_a_question_without_a_known_word_is_recognized() -> None:
    vocabulary = Vocabulary.build(["what color is the shape?"])
    assert knows_no_word("这是什么颜色?", vocabulary)
    assert not knows_no_word("which color?", vocabulary)
    assert not knows_no_word("这是什么颜色?", None)


def test_answers_are_normalized_and_counted_over_all_annotators() -> None:
    lists = [["Yes", "yes.", "no"], ["two", "2", "a dog"], ["Dog", "the"], ["", "  "]]
    vocabulary = AnswerVocabulary.build(lists)
    assert vocabulary.answers == ("2", "dog", "yes", "no", "the")
    assert vocabulary.index == {"2": 0, "dog": 1, "yes": 2, "no": 3, "the": 4}
    assert AnswerVocabulary.build(reversed(lists)).answers == vocabulary.answers
    assert AnswerVocabulary.build(lists, min_count=2).answers == ("2", "dog", "yes")
    assert AnswerVocabulary.build(lists, size=1).answers == ("2",)
    assert AnswerVocabulary.build(lists, size=100).answers == vocabulary.answers


def test_answers_are_known_as_they_are_mostly_typed() -> None:
    lists = [["T-shirt", "t-shirt", "t-shirt "], ["two", "2", "2"], ["Yes."], ["no"], ["b c", "b-c"]]
    vocabulary = AnswerVocabulary.build(lists)
    assert vocabulary.answers == ("2", "t shirt", "b c", "no", "yes")
    assert vocabulary.typed == {"t shirt": "t-shirt", "yes": "Yes."}
    assert [vocabulary.as_typed(answer) for answer in vocabulary.answers] == ["2", "t-shirt", "b c", "no", "Yes."]
    again = AnswerVocabulary.from_json(json.loads(json.dumps(vocabulary.to_json())))
    assert (again.answers, again.typed) == (vocabulary.answers, vocabulary.typed)
    for typed in ({"cat": "Cat"}, {"no": 7}):
        with pytest.raises(ValueError, match=r"says that '(cat|no)' is typed"):
            AnswerVocabulary.from_json({"answers": ["no"], "typed": typed})


def test_answers_as_typed_stay_apart() -> None:
    lists = [["HER2+", "HER2-", "her2+ ", "HER2+."], ["-1", "1", "none", "0"], ["C++", "C", "the left"], ["B+", "B-"]]
    vocabulary = AnswerVocabulary.build(lists, form="plain")
    assert vocabulary.answers[0] == "her2+"
    assert vocabulary.typed["her2+"] == "HER2+"
    assert {*vocabulary.answers} == {"her2+", "her2-", "-1", "1", "none", "0", "c++", "c", "the left", "b+", "b-"}
    again = AnswerVocabulary.from_json(json.loads(json.dumps(vocabulary.to_json())))
    assert (again.answers, again.typed, again.form) == (vocabulary.answers, vocabulary.typed, "plain")
    with pytest.raises(ValueError, match="must be one of vqa, plain, got 'other'"):
        AnswerVocabulary.from_json({"answers": ["no"], "form": "other", "typed": {}})


def test_published_lists_may_hold_the_empty_answer() -> None:
    assert AnswerVocabulary(["yes", ""]).index[""] == 1


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Vocabulary.build(["a dog"], min_count=5), "no word occurs 5 times"),
        (lambda: Vocabulary.build([]), "no word"),
        (lambda: AnswerVocabulary.build([["dog"]], min_count=2), "min_count 2"),
        (lambda: AnswerVocabulary.build([["dog"]], size=0), "size 0"),
        (lambda: AnswerVocabulary.build([["", " "]]), "no answer is left"),
        (lambda: AnswerVocabulary([]), "at least one"),
        (lambda: Vocabulary(["dog", ""]), "empty word, at place 1"),
    ],
)
def test_an_empty_vocabulary_is_refused(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_json_round_trip() -> None:
    texts = ["dog", "日本", "don't", '"', "\\", "a b"]
    value = json.loads(json.dumps(AnswerVocabulary(texts).to_json()))
    assert value == texts
    assert AnswerVocabulary.from_json(value).to_json() == texts
    value = json.loads(json.dumps(Vocabulary(texts, longest=3).to_json()))
    assert value == {"tokenizer": "plain", "longest": 3, "words": texts}
    assert Vocabulary.from_json(value).to_json() == value
    for earlier in (texts, {"tokenizer": "plain", "words": texts}):
        assert Vocabulary.from_json(earlier).to_json() == value | {"longest": None}
    with pytest.raises(ValueError, match="longest must be a positive number, got 'many'"):
        Vocabulary.from_json(value | {"longest": "many"})


def test_a_question_may_be_longer_than_those_of_training() -> None:
    vocabulary = Vocabulary.build(QUESTIONS)
    assert vocabulary.longest == 5
    assert not vocabulary.is_too_long("what, is red? the dog!")
    assert vocabulary.is_too_long("is the dog red is the")
    assert not Vocabulary(vocabulary.words).is_too_long("is " * 1000)
    assert [vocabulary.trained_on(["is it", *more]).longest for more in ([], ["is " * 7])] == [5, 7]
    assert Vocabulary(vocabulary.words).trained_on(["is it"]).longest is None


@pytest.mark.parametrize("kind", [Vocabulary, AnswerVocabulary])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "NoneType"),
        ("dog", "str 'dog'"),
        ({"dog": 0}, "dict"),
        (7, "int"),
        (["dog", 7], "place 1 holds 7"),
        (["dog", None], "place 1 holds None"),
        ([["dog"]], r"place 0 holds \['dog'\]"),
        (["dog", "cat", "dog"], "'dog' twice, at places 0 and 2"),
    ],
)
def test_mangled_json_is_refused(kind: type[Vocabulary] | type[AnswerVocabulary], value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind.from_json(value)
