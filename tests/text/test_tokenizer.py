from __future__ import annotations

import pytest

from coattn.text.tokenizer import tokenize


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
