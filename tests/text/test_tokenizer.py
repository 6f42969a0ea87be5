from __future__ import annotations

import pytest

from coattn.text.tokenizer import tokenize, tokenize_possessives, tokenize_treebank


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
        ("café naïve 日本?", ["café", "naïve", "日本"]),
        ("tab\tnew\nline?", ["tab", "new", "line"]),
        ("What’s up?", ["what’s", "up"]),
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
