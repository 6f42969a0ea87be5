from __future__ import annotations

import string
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coattn.text.tokenizer import (
    TOKENIZERS,
    join_characters,
    normalize_text,
    tokenize,
    tokenize_possessives,
    tokenize_treebank,
)


@pytest.mark.parametrize(
    ("question", "words"),
    [  # words as openvqa's own tokeniser gave them
        ("What color is the man's shirt?", ["what", "color", "is", "the", "mans", "shirt"]),
        ("Is this a black-and-white photo?", ["is", "this", "a", "black", "and", "white", "photo"]),
        ("How many people are on/near the bus?", ["how", "many", "people", "are", "on", "near", "the", "bus"]),
        ('What\'s written: "STOP!"?', ["whats", "written", "stop"]),
        ("Are there 1,000 birds (approx.)?", ["are", "there", "1000", "birds", "approx"]),
        ("What is the #1 item; or *2*?", ["what", "is", "the", "1", "item", "or", "2"]),
        ("Is it 3:30 p.m.?", ["is", "it", "330", "pm"]),
        ("café naïve?", ["café", "naïve"]),
        ("tab\tnew\nline?", ["tab", "new", "line"]),
        ("What's up?", ["whats", "up"]),
        ("100% sure & ready", ["100%", "sure", "&", "ready"]),
        ("the U.S.A. e-mail_me@x.com", ["the", "usa", "e", "mail_me@xcom"]),
        ("- / -", []),
        ("???", []),
        ("", []),
    ],
)
def test_splits_as_the_field_does(question: str, words: list[str]) -> None:
    assert tokenize(question) == words


@pytest.mark.parametrize(
    ("question", "words"),
    [  # by the rule in hengyuan-hu's source
        ("What's on the man's T-shirt, a logo?", ["what", "'s", "on", "the", "man", "'s", "t-shirt", "a", "logo"]),
        ("Is it 3:30 p.m.?", ["is", "it", "3:30", "p.m."]),
        ("???", []),
    ],
)
def test_splits_possessives(question: str, words: list[str]) -> None:
    assert tokenize_possessives(question) == words


@pytest.mark.parametrize(
    ("question", "words"),
    [  # words as nltk's NLTKWordTokenizer gave them
        ("What's on the man's T-shirt?", ["what", "'s", "on", "the", "man", "'s", "t-shirt", "?"]),
        ("the boys' toys o'clock", ["the", "boys", "'", "toys", "o'clock"]),
        ("rock 'n' roll?", ["rock", "'n", "'", "roll", "?"]),
        ("it's 5.0% $5 mr. x.", ["it", "'s", "5.0", "%", "$", "5", "mr.", "x", "."]),
        ("I can't, cannot, gonna", ["i", "ca", "n't", ",", "can", "not", ",", "gon", "na"]),
        (
            '\'tis "quoted" (a) [b] 12:30 1,000 a--b ...',
            ["'", "tis", "``", "quoted", "''", "(", "a", ")", "[", "b", "]", "12:30", "1,000", "a", "--", "b", "..."],
        ),
        ("wanna go y'all're they've", ["wan", "na", "go", "y'all", "'re", "they", "'ve"]),
        ("Is this 'selfie' *new*?", ["is", "this", "'", "selfie", "'", "*", "new", "*", "?"]),
        ("", []),
    ],
)
def test_splits_as_the_treebank(question: str, words: list[str]) -> None:
    assert tokenize_treebank(question) == words


@pytest.mark.parametrize(
    ("typed", "plain"),
    [
        ("what’s this？", "what's this?"),
        ("“a ‘cat’”…", "\"a 'cat'\"..."),
        ("¿que color es?", "que color es?"),
        ("«T–shirt», e\u2010mail", '"T-shirt", e-mail'),
        ("the\u200b do\u200dg\ufeff\xa0is", "the dog is"),
        ("ＡＢＣ１２３！", "ABC123!"),
        ("−1 of⁄ﬁ", "-1 of/fi"),
        ("是。", "是."),
        ("red⁇ blue﹖ green︖ now‽", "red?? blue? green? now?!"),
        ("red\ufe0f is\u061c \u2066it\u2069\u2009so", "red is it so"),
        ("5 µm", "5 μm"),
        (unicodedata.normalize("NFD", "où est la caméra?"), "où est la caméra?"),
    ],
)
def test_typographic_punctuation_is_spelled_plainly(typed: str, plain: str) -> None:
    assert normalize_text(typed) == plain
    for split in TOKENIZERS.values():
        assert split(typed) == split(plain)


@given(st.text(alphabet=string.printable))
def test_ascii_text_is_not_changed(text: str) -> None:
    assert normalize_text(text) == text


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("这是哪个器官的图像？", list("这是哪个器官的图像")),
        ("图中有3个CT图像吗?", ["图", "中", "有", "3", "个", "ct", "图", "像", "吗"]),
        ("ヘビがいますか", list("ヘビがいますか")),
        ("กี่คน", ["กี่", "ค", "น"]),  # vowel and tone marks stay with their letter
        ("고양이가 있나요?", ["고양이가", "있나요"]),  # Korean has spaces
    ],
)
def test_scripts_without_spaces_are_split_into_characters(question: str, words: list[str]) -> None:
    assert tokenize(question) == words


def test_characters_are_joined_again() -> None:
    assert join_characters("ct 图 像 and 肝 脏") == "ct图像and肝脏"
    assert join_characters("liver and spleen") == "liver and spleen"
