from __future__ import annotations

import difflib

import pytest

from coattn._internal.hints import did_you_mean, wrong_setting


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("modulr", ["dense", "modular"], "; did you mean 'modular'?"),
        ("Answer_Type", ["answer", "answer_type"], "; did you mean 'answer_type'?"),
        ("ANSWERS", ["Answer", "image"], "; did you mean 'Answer'?"),
        ("frage", ["image", "question"], "; known are image, question"),
        ("xyz", ["dense", "modular"], "; known are dense, modular"),
        ("", ["dense"], "; known are dense"),
        ("xyz", [], ""),
    ],
)
def test_the_nearest_name_or_all(name: str, known: list[str], hint: str) -> None:
    assert did_you_mean(name, known) == hint


def test_a_long_list_is_cut() -> None:
    hint = did_you_mean("xyz", (f"img{number}" for number in range(1000)))
    assert hint.startswith("; known are img0, img1, ")
    assert hint.endswith("img19, ... (1000 in all)")


def test_of_many_names_few_are_compared_letter_by_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    find = difflib.get_close_matches

    def count(name: str, known: list[str], **options: float) -> list[str]:
        compared.append(len(known))
        return find(name, known, **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(difflib, "get_close_matches", count)
    names = [f"COCO_train2014_{number:012d}" for number in range(0, 60_000, 3)]
    assert did_you_mean("coco_trian2014_000000047211", names) == "; did you mean 'COCO_train2014_000000047211'?"
    assert did_you_mean("xy", names).endswith("... (20000 in all)")
    assert compared == [1000, 1000]


@pytest.mark.parametrize(
    ("message", "plain"),
    [
        (
            "Parser key \"model.lr\":\n  Expected a <class 'float'>. Got value: abc",
            "model.lr must be a number, got 'abc'",
        ),
        (
            "Parser key \"data.targets\": Expected a typing.Literal['soft', 'share']. Got value: sof",
            "data.targets must be one of soft, share, got 'sof'",
        ),
        (
            'Parser key "trainer.max_epochs": Does not validate against any of the Union subtypes\n'
            "  Subtypes: [<class 'int'>, <class 'NoneType'>]\n  Errors:\n    - Expected a <class 'int'>\n"
            "    - Expected a <class 'NoneType'>\n  Given value type: <class 'str'>\n  Given value: x",
            "trainer.max_epochs must be a whole number or null, got 'x'",
        ),
        ('Parser key "config": File does not exist: a.yaml', "config: File does not exist: a.yaml"),
        ("something else", "something else"),
    ],
)
def test_messages_about_settings_in_plain_words(message: str, plain: str) -> None:
    assert wrong_setting(message) == plain
