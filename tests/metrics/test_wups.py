from __future__ import annotations

import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coattn.cli import main
from coattn.datasets.records import Record
from coattn.metrics import wups as module
from coattn.metrics.score import score
from coattn.metrics.wups import wordnet_similarity, wups

TABLE = {("chair", "stool"): 0.95, ("chair", "table"): 0.8, ("stool", "table"): 0.75, ("cat", "dog"): 0.86}


def similarity(first: str, second: str) -> float:
    return TABLE.get((first, second), TABLE.get((second, first), 0.0))


@pytest.mark.parametrize(
    ("prediction", "answer", "at_nine", "at_zero"),
    [
        ("chair", "chair", 1, 1),
        ("zzz", "zzz", 1, 1),  # equal words need no WordNet
        ("stool", "chair", 0.95, 0.95),
        ("table", "chair", 0.08, 0.8),
        ("zzz", "chair", 0, 0),
        ("chair, table", "table,chair", 1, 1),  # a set
        ("chair, chair", "chair", 1, 1),
        ("chair", "chair, table", 0.08, 0.8),  # the table is nearest to the chair
        ("chair, table", "chair", 0.08, 0.8),
        ("stool, table", "chair, table", 0.95, 0.95),
        # there: stool -> chair .95, table -> chair .8; back: chair -> stool .95: the smaller is .95 * .8
        ("stool, table", "chair", 0.95 * 0.08, 0.95 * 0.8),
        ("", "chair", 0, 0),
    ],
)
def test_by_hand(prediction: str, answer: str, at_nine: float, at_zero: float) -> None:
    assert wups(prediction, answer, 0.9, similarity) == pytest.approx(at_nine)
    assert wups(prediction, answer, 0.0, similarity) == pytest.approx(at_zero)


def test_the_word_whose_partner_is_sought_comes_first() -> None:
    # nltk 3.10.4 with WordNet 3.0: its similarity of these two depends on their order.
    table = {("electric_toothbrush", "toothbrush"): 16 / 19, ("toothbrush", "electric_toothbrush"): 18 / 19}
    for pair in (("toothbrush", "electric toothbrush"), ("electric_toothbrush", "toothbrush")):
        assert wups(*pair, 0.0, lambda *words: table.get(words, 0.0)) == 16 / 19
        assert wups(*pair, 0.9, lambda *words: table.get(words, 0.0)) == pytest.approx(1.6 / 19)


WORDS = st.lists(st.sampled_from(["chair", "stool", "table", "cat", "dog"]), min_size=1, max_size=4).map(", ".join)


@given(WORDS, WORDS)
def test_is_symmetric_bounded_and_stricter_at_nine(first: str, second: str) -> None:
    strict, loose = (wups(first, second, threshold, similarity) for threshold in (0.9, 0.0))
    assert 0 <= strict <= loose <= 1
    assert strict == pytest.approx(wups(second, first, 0.9, similarity))
    assert (loose == 1) == ({*first.split(", ")} == {*second.split(", ")})


def test_scores_take_sets_in_our_normal_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "wordnet_similarity", lambda: similarity)
    answers = {1: "chair, table", 2: "chair", 3: "light_blue, cat"}
    records = [Record(number, 1, "q", (answer,)) for number, answer in answers.items()]
    for of_a_writer in (False, True):
        third = "light blue, cat" if of_a_writer else "light blue cat"
        check({1: "chair table", 2: "table", 3: third}, records)
    check({1: "table,chair", 2: "table", 3: "cat, light blue"}, records)


def check(results: dict[int | str, str], records: list[Record]) -> None:
    scores = score(results, records, "wups")
    others = {name: number.value for name, number in scores.numbers["other numbers"].items()}
    assert others == {"WUPS 0.9": 69.33, "WUPS 0.0": 93.33, "accuracy": 66.67}
    assert scores.overall == others["WUPS 0.9"]


def test_without_nltk_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nltk", None)
    monkeypatch.delitem(sys.modules, "nltk.corpus", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'coattn\[wups\]'"):
        wordnet_similarity()


def test_without_wordnet_it_is_said_where_it_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing() -> None:
        raise LookupError("a page of text")

    corpus = SimpleNamespace(wordnet=SimpleNamespace(ensure_loaded=missing))
    monkeypatch.setitem(sys.modules, "nltk", SimpleNamespace(corpus=corpus))
    monkeypatch.setitem(sys.modules, "nltk.corpus", corpus)
    for name, text in {
        "q": '{"questions": [{"question_id": 1, "image_id": 1, "question": "q"}]}',
        "a": '{"annotations": [{"question_id": 1, "image_id": 1, "answers": [{"answer": "a"}]}]}',
        "r": '[{"question_id": 1, "answer": "a"}]',
    }.items():
        (tmp_path / f"{name}.json").write_text(text, encoding="utf-8")
    files = [str(tmp_path / f"{name}.json") for name in "rqa"]
    assert main(["score", files[0], "--questions", files[1], "--annotations", files[2], "--metric", "wups"]) == 2
    error = capsys.readouterr().err
    assert "WUPS needs WordNet" in error
    assert error.count("\n") == 1


# WordNet in little, in the format of its files (`man wndb`): a tree of nouns under "entity", written for this test.
#   entity > object > artifact > seat > chair (also "armchair"), stool;  object > animal > cat
TREE = {"entity": None, "object": "entity", "artifact": "object", "animal": "object", "seat": "artifact"} | {
    "chair": "seat",
    "stool": "seat",
    "cat": "animal",
    "garden_chair": "chair",
}
SYNONYMS = {"chair": ["chair", "armchair"]}


@pytest.fixture
def little_wordnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nltk = pytest.importorskip("nltk")
    folder = tmp_path / "corpora" / "wordnet"
    folder.mkdir(parents=True)
    offsets = {name: 150 * number for number, name in enumerate(TREE)}
    lines = []
    for name, above in TREE.items():
        words = SYNONYMS.get(name, [name])
        below = [other for other, parent in TREE.items() if parent == name]
        pointers = [f"@ {offsets[above]:08d} n 0000"] if above else []
        pointers += [f"~ {offsets[other]:08d} n 0000" for other in below]
        body = f"{offsets[name]:08d} 00 n {len(words):02x} {' '.join(f'{word} 0' for word in words)} "
        body += f"{len(pointers):03d} {' '.join(pointers)} | made for a test"
        lines.append(f"{body:<149}\n")
        assert len(lines[-1]) == 150
    (folder / "data.noun").write_text("".join(lines), encoding="ascii")
    index = sorted((word, offsets[name]) for name in TREE for word in SYNONYMS.get(name, [name]))
    text = "".join(f"{word} n 1 2 @ ~ 1 0 {offset:08d}  \n" for word, offset in index)
    (folder / "index.noun").write_text(text, encoding="ascii")
    for part in ("adj", "adv", "verb"):
        for kind in ("index", "data"):
            (folder / f"{kind}.{part}").write_text("", encoding="ascii")
    for part in ("noun", "adj", "adv", "verb"):
        (folder / f"{part}.exc").write_text("", encoding="ascii")
    for name in ("index.sense", "cntlist.rev"):
        (folder / name).write_text("", encoding="ascii")
    (folder / "lexnames").write_text("00\tnoun.Tops\t1\n", encoding="ascii")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    warnings.simplefilter("ignore")  # that other languages are not there
    reader = nltk.corpus.reader.wordnet.WordNetCorpusReader(str(folder), None)
    monkeypatch.setattr(nltk.corpus, "wordnet", reader)


def test_wu_palmer_in_a_little_wordnet(little_wordnet: None) -> None:
    """2 depth(common) / (depth(first) + depth(second)), depths counted from 1 at the root (Wu & Palmer 1994)."""
    alike = wordnet_similarity()
    assert alike("chair", "stool") == pytest.approx(2 * 4 / (5 + 5))
    assert alike("chair", "cat") == pytest.approx(2 * 2 / (5 + 4))
    assert alike("stool", "seat") == pytest.approx(2 * 4 / (5 + 4))
    assert alike("armchair", "chair") == 1
    assert alike("garden_chair", "chair") == pytest.approx(2 * 5 / (6 + 5))
    assert alike("zzz", "chair") == 0
    assert wups("garden chair", "chair", 0.9, alike) == pytest.approx(10 / 11)
    assert wups("stool", "chair", 0.9, alike) == pytest.approx(0.08)


def test_published_examples_where_wordnet_is_there() -> None:
    """Malinowski & Fritz 2014, section 4: a threshold of 0.9 is meant to tell these apart."""
    try:
        alike = wordnet_similarity()
    except (ModuleNotFoundError, ValueError) as error:
        pytest.skip(str(error))
    assert alike("curtain", "blinds") == pytest.approx(0.94, abs=0.01)
    assert alike("carton", "box") == pytest.approx(0.94, abs=0.01)
    assert alike("stove", "fire_extinguisher") == pytest.approx(0.82, abs=0.01)
