from __future__ import annotations

import json
import string
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coattn.datasets.records import METRICS, answer_type_of
from coattn.metrics.vqa import vqa_accuracy
from coattn.text.answers import (
    answer_form,
    answer_key,
    answer_shares,
    normalize_answer,
    plain_key,
    soft_scores,
)
from coattn.text.vocabulary import AnswerVocabulary

PEERS = Path(__file__).parents[1] / "golden"
GOLDEN = PEERS / "vqa_eval"

# Every entry of the official table of contractions that changes a word, as wrong=right.
CONTRACTIONS = """
aint=ain't arent=aren't cant=can't couldve=could've couldnt=couldn't couldn'tve=couldn't've couldnt've=couldn't've
didnt=didn't doesnt=doesn't dont=don't hadnt=hadn't hadnt've=hadn't've hadn'tve=hadn't've hasnt=hasn't havent=haven't
hed=he'd hed've=he'd've he'dve=he'd've hes=he's howd=how'd howll=how'll hows=how's isnt=isn't itd=it'd itd've=it'd've
it'dve=it'd've itll=it'll maam=ma'am mightnt=mightn't mightnt've=mightn't've mightn'tve=mightn't've mightve=might've
mustnt=mustn't mustve=must've neednt=needn't notve=not've oclock=o'clock oughtnt=oughtn't ow's'at='ow's'at
'ows'at='ow's'at 'ow'sat='ow's'at shant=shan't shed've=she'd've she'dve=she'd've shouldve=should've shouldnt=shouldn't
shouldnt've=shouldn't've shouldn'tve=shouldn't've somebody'd=somebodyd somebodyd've=somebody'd've
somebody'dve=somebody'd've somebodyll=somebody'll somebodys=somebody's someoned=someone'd someoned've=someone'd've
someone'dve=someone'd've someonell=someone'll someones=someone's somethingd=something'd somethingd've=something'd've
something'dve=something'd've somethingll=something'll thats=that's thered=there'd thered've=there'd've
there'dve=there'd've therere=there're theres=there's theyd=they'd theyd've=they'd've they'dve=they'd've theyll=they'll
theyre=they're theyve=they've twas='twas wasnt=wasn't wed've=we'd've we'dve=we'd've weve=we've werent=weren't
whatll=what'll whatre=what're whats=what's whatve=what've whens=when's whered=where'd wheres=where's whereve=where've
whod=who'd whod've=who'd've who'dve=who'd've wholl=who'll whos=who's whove=who've whyll=why'll whyre=why're whys=why's
wont=won't wouldve=would've wouldnt=wouldn't wouldnt've=wouldn't've wouldn'tve=wouldn't've yall=y'all yall'll=y'all'll
y'allll=y'all'll yall'd've=y'all'd've y'alld've=y'all'd've y'all'dve=y'all'd've youd=you'd youd've=you'd've
you'dve=you'd've youll=you'll youre=you're youve=you've
"""
UNTOUCHED = """
    i'm im i've ive i'd've id've i'dve let's lets she's shes shed she'd hell he'll ill well were weren wed we're
    shell shant've couldntve hadntve mightntve shouldntve wouldntve hedve yalldve yallll somebodyd somebodyd'll whatd
    whend whenll wherell whyd its it's thatll mustnt've needve oughtve youdve
"""


def test_normal_forms_equal_the_official_ones() -> None:
    cases = json.loads((GOLDEN / "normalisation.json").read_text(encoding="utf-8"))
    wrong = [
        (case, normalize_answer(case["raw"])) for case in cases if normalize_answer(case["raw"]) != case["normalised"]
    ]
    assert len(cases) == 656
    assert wrong == []


@pytest.mark.parametrize("pair", CONTRACTIONS.split())
def test_each_official_contraction(pair: str) -> None:
    wrong, right = pair.split("=")
    assert normalize_answer(wrong) == right
    assert normalize_answer(f"{wrong.upper()} x") == f"{right} x"
    assert normalize_answer(right) == right or wrong == "somebody'd"


@pytest.mark.parametrize("word", UNTOUCHED.split())
def test_words_that_look_like_contractions_but_are_not_in_the_table(word: str) -> None:
    assert normalize_answer(word) == word
    assert normalize_answer(word.capitalize()) == word


def test_the_table_of_contractions_is_complete() -> None:
    assert (
        len(set(CONTRACTIONS.split())) == 114
    )  # 120 in the official table, less 4 with a capital I and 2 that change nothing


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("red-blue", "red blue"),
        ("red-blue - green", "redblue green"),  # one mark beside a space decides for the whole text
        ("x-b c/d /", "x b cd"),  # ... but each mark by itself
        ("red - ", "red"),
        ("- red-blue", "redblue"),
        ("x-y -", "xy"),
        ("x-y\t-", "xy"),  # the tab is a space by then
        ("x-y\r-", "x y"),  # other white space is not
        ("1,2 x-y", "12 xy"),  # a comma between digits joins everything
        ("1,x y-z", "1 x y z"),
        ("٣,٤-x", "٣٤x"),  # Unicode digits count
        ("²,²-x", "² ² x"),  # superscripts are no decimal digits
        ("3.5", "3.5"),
        ("3.", "3"),
        (".5.", ".5"),
        ("1..2", "1.2"),
        ("1.2.3", "1.2.3"),
        ("x.1", "x.1"),
        ("." * 32 + "x", "x"),
        ("." * 33 + "x", ".x"),
        (".1" * 40 + ".x" * 33, ".1" * 40 + "x" * 32 + ".x"),  # periods that stay do not count
        ("10:30", "10:30"),
        ("$5 & 'x'", "$5 & 'x'"),
        ("50% #1 *x* ~ ^ |", "50% #1 *x* ~ ^ |"),
        ("none", "0"),
        ("NONE of ten", "0 of 10"),
        ("zero one two three four five six seven eight nine ten eleven", "0 1 2 3 4 5 6 7 8 9 10 eleven"),
        ("one-two", "1 2"),
        ("o.ne", "1"),
        ("The a an THE", ""),
        ("a.n apple", "apple"),
        ("grade A", "grade"),
        ("do.nt", "don't"),
        ("don`t", "don t"),
        ("don`t `", "don't"),  # joined by the deleted mark, then completed
        ("x \x1c\u2003 y", "x y"),
        ("x\u180ey", "x\u180ey"),  # white space in Python 2 only
        ("İ", "i̇"),
        ("ΣΑΣ", "σας"),
        ("  \t\n ", ""),
        ("[{(<x>)}]", "x"),
        ('a\\b"c+d=e_f@g;h?i!j', "b c d e f g h i j"),
    ],
)
def test_rules_and_quirks(text: str, normal: str) -> None:
    assert normalize_answer(text) == normal


def test_an_answer_without_a_normal_form_keeps_its_text() -> None:
    assert [answer_key(text) for text in ("A", " The\n", "?", "", "Dog.")] == ["a", "the", "?", "", "dog"]


@pytest.mark.parametrize(("count", "score"), [(1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (5, 1.0), (10, 1.0)])
def test_soft_scores_of_ten_answers(count: int, score: float) -> None:
    vocabulary = AnswerVocabulary(["x", "red", "y"])
    answers = ["red"] * count + [f"other {i}" for i in range(10 - count)]
    assert soft_scores(answers, vocabulary) == ([1], [score])


def test_soft_scores_equal_those_of_openvqa() -> None:
    vocabulary = AnswerVocabulary(
        ["yes", "no", "2", "0", "dog", "don't", "red white", "1000", "hot dog", "am", "o'clock"]
    )
    cases = [  # answers, scores as openvqa's own code gave them
        (["yes"] * 9 + ["no"], {"yes": 1.0, "no": 0.3}),
        (["two"] * 3 + ["2", "2", "2."] + ["three"] * 4, {"2": 1.0}),
        (["none", "zero", "0", "None", "nothing", "no", "no", "nope", "no.", "NO"], {"0": 1.0, "no": 1.0}),
        (["a dog", "the dog", "dog", "dogs", "Dog!"] + ["cat"] * 5, {"dog": 1.0}),
        (["dont", "dont", "don't"] + ["x"] * 7, {"don't": 0.9}),
        (["red,white", "red, white", "red/white", "red and white"] + ["x"] * 6, {"red white": 0.9}),
        (["1,000", "1000", "1, 000", "1 000"] + ["a"] * 6, {"1000": 0.6}),
        (["hot dog"] + ["hotdog"] * 9, {"hot dog": 0.3}),
        (["a.m.", "am", "AM", "a m"] + ["noon"] * 6, {"am": 0.9}),
    ]
    for answers, expected in cases:
        ids, scores = soft_scores(answers, vocabulary)
        assert {vocabulary.answers[i]: score for i, score in zip(ids, scores, strict=True)} == pytest.approx(expected)


def test_soft_scores_of_few_answers() -> None:
    vocabulary = AnswerVocabulary(["red", "blue"])
    assert soft_scores(["Red."], vocabulary) == ([0], [1.0])
    assert soft_scores(["green"], vocabulary) == ([], [])
    assert soft_scores(["red", "blue"], vocabulary) == ([0, 1], pytest.approx([1 / 6, 1 / 6]))
    assert soft_scores(["red", "red"], vocabulary) == ([0], pytest.approx([1 / 3]))
    with pytest.raises(ValueError, match="at least one"):
        soft_scores([], vocabulary)


@pytest.mark.parametrize(("ours", "theirs"), [(soft_scores, "bce_soft_score"), (answer_shares, "kld_soft_score")])
def test_targets_equal_openvqas(ours: Callable, theirs: str) -> None:
    golden = json.loads((PEERS / "openvqa_soft_scores.json").read_text(encoding="utf-8"))
    vocabulary = AnswerVocabulary(sorted(golden["ans_to_ix"], key=golden["ans_to_ix"].__getitem__))
    assert len(golden["answers"]) == 11
    for question in golden["answers"]:
        targets = [0.0] * len(vocabulary)
        for number, score in zip(*ours(question["answers"], vocabulary), strict=True):
            targets[number] = score
        assert targets == pytest.approx(question[theirs], abs=1e-6), question["answers"]


def test_answers_as_typed_miss_what_only_their_normal_form_finds() -> None:
    vocabulary = AnswerVocabulary(["2", "red"])
    answers = ["two", "two", "2", "Red", "red", "red", "red", "red", "red", "red"]
    assert soft_scores(answers, vocabulary) == ([0, 1], pytest.approx([0.9, 1.0]))
    assert soft_scores(answers, vocabulary, as_typed=True) == ([0, 1], pytest.approx([0.3, 1.0]))


answer_texts = st.one_of(
    st.sampled_from(["red", "Red.", "the red", "two", "2", "dont", "don't", "x-y", "x y", "1,000", "1000", "yes", "?"]),
    st.text(alphabet=string.printable, max_size=6),
)


@given(st.lists(answer_texts, min_size=2, max_size=12))
def test_a_predicted_entry_gets_exactly_its_soft_score(answers: list[str]) -> None:
    answers = [*answers, "unlike any other"]  # so that the official code normalizes
    vocabulary = AnswerVocabulary.build([answers])
    ids, scores = soft_scores(answers, vocabulary)
    assert len(set(ids)) == len(ids)
    for i, score in zip(ids, scores, strict=True):
        entry = vocabulary.answers[i]
        if normalize_answer(entry):  # the official code cannot tell "?" and "the" apart
            assert vqa_accuracy(entry, answers) == pytest.approx(score, abs=1e-12)
    assert sorted(ids) == list(range(len(vocabulary)))


@given(st.text(max_size=40))
def test_a_normal_form_has_no_outer_or_double_space_and_no_article(text: str) -> None:
    normal = normalize_answer(text)
    assert normal == " ".join(normal.split())
    assert not {"a", "an", "the"} & set(normal.split())


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (" Left  lung. ", "left lung"),
        ("...", "..."),
        ("3.5 mm.", "3.5 mm"),
        ("“T–shirt”", '"t-shirt"'),
        ("garbage_bin ,Table", "garbage bin, table"),
        ("1,5 mm", "1,5 mm"),
        ("肝 脏。", "肝脏"),
        ("CT 图像", "ct图像"),
        ("", ""),
    ],
)
def test_plain_keys(text: str, key: str) -> None:
    assert plain_key(text) == key


@given(st.text(max_size=12))
def test_a_plain_key_is_its_own_key(text: str) -> None:
    assert plain_key(plain_key(text)) == plain_key(text)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        *[(text, "yes/no") for text in ("Yes.", "no", "是", "否。", "没有", "はい")],
        *[(text, "number") for text in ("2", "two", "-1", "3.5", "1,000", "0", "zero", "１２")],
        *[(text, "other") for text in ("none", "None", "2 dogs", "<5", "A", "3:30", "1,5", "", "不知道")],
    ],
)
def test_types_of_answers(answer: str, kind: str) -> None:
    assert answer_type_of(answer) == kind


def test_the_metric_decides_the_form() -> None:
    assert {metric for metric in METRICS if answer_form(metric) == "vqa"} == {
        "vqa_accuracy",
        "multiple_choice",
        "textvqa",
        "vizwiz",
    }
