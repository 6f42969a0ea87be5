"""Frozen text encoders: a real one, tiny ones of other kinds, and folders that must be refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from coattn.text.encoders import TextEncoder
from coattn.text.pretrained_tokenizer import PretrainedTokenizer
from coattn.text.reading import question_words

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
safetensors_torch = pytest.importorskip("safetensors.torch")

QUESTIONS = [
    "What is on the table?",
    "Is there not a blue shape in the image?",
    "Why?",
    "é ü 漢字 supercalifragilistic",
    "a " * 60,
]


@pytest.fixture
def tiny_bert(tmp_path: Path, make_text_encoder: Callable[..., Path]) -> Path:
    return make_text_encoder(tmp_path / "tiny bert", num_hidden_layers=1, max_position_embeddings=12)


def assert_equal(left: Sequence[torch.Tensor], right: Sequence[torch.Tensor], tolerance: float) -> None:
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


def test_real_encoder_equals_its_own_forward(real_text_encoder: Path) -> None:
    folder = real_text_encoder
    encoder = TextEncoder.load(folder)
    model = transformers.AutoModel.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    encoded = encoder.encode(QUESTIONS)
    for question, rows in zip(QUESTIONS, encoded, strict=True):
        with torch.no_grad():
            expected = model(**tokenizer(question, return_tensors="pt")).last_hidden_state[0]
        torch.testing.assert_close(rows, expected, rtol=0, atol=1e-5)
        assert rows.shape[1] == encoder.dim == 384
    assert_equal(encoder.encode(QUESTIONS, batch_size=1), encoded, 1e-5)
    assert_equal(encoder.encode(QUESTIONS[::-1], batch_size=2)[::-1], encoded, 1e-5)
    assert encoder.tokens("Is it red?") == ["[CLS]", "is", "it", "red", "?", "[SEP]"]
    assert encoder.max_tokens == 512


def test_a_copy_is_the_same_encoder(tiny_bert: Path, tmp_path: Path) -> None:
    encoder = TextEncoder.load(tiny_bert, max_tokens=6)
    (tiny_bert / "modeling_evil.py").write_text("raise SystemExit")
    encoder.save(tmp_path / "copy")
    copy = TextEncoder.load(tmp_path / "copy", max_tokens=6)
    assert_equal(encoder.encode(QUESTIONS), copy.encode(QUESTIONS), 0)
    for key in ("name", "settings", "versions"):
        assert copy.record[key] == encoder.record[key]
    assert copy.record["weights"]["sha256"] == encoder.record["weights"]["sha256"]
    assert encoder.record["weights"]["id"] == "tiny bert"
    assert json.loads(json.dumps(encoder.record)) == encoder.record
    assert not (tmp_path / "copy" / "modeling_evil.py").exists()
    with pytest.raises(FileExistsError, match="copy exists already"):
        encoder.save(tmp_path / "copy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "tiny bert"]


def test_a_damaged_copy_is_noticed(tiny_bert: Path, tmp_path: Path) -> None:
    encoder = TextEncoder.load(tiny_bert)
    assert not encoder.is_saved_in(tmp_path / "copy")
    encoder.save(tmp_path / "copy")
    assert encoder.is_saved_in(tmp_path / "copy")
    (tmp_path / "copy" / "model.safetensors").write_bytes(b"")
    assert not encoder.is_saved_in(tmp_path / "copy")


def test_another_tokenizer_or_setting_is_another_encoder(tiny_bert: Path) -> None:
    def identity() -> str:
        return json.dumps(TextEncoder.load(tiny_bert).record["settings"])

    first = identity()
    text = (tiny_bert / "tokenizer.json").read_text()
    (tiny_bert / "tokenizer.json").write_text(text.replace('"what"', '"That"'))
    second = identity()
    config = json.loads((tiny_bert / "config.json").read_text())
    (tiny_bert / "config.json").write_text(json.dumps({**config, "num_attention_heads": 4}))
    assert len({first, second, identity()}) == 3


def test_long_questions_are_cut(tiny_bert: Path) -> None:
    encoder = TextEncoder.load(tiny_bert)
    assert encoder.max_tokens == 12
    assert encoder.encode(["what " * 50])[0].shape == (12, 8)
    short = TextEncoder.load(tiny_bert, max_tokens=4)
    assert short.tokens("what is it ?") == ["[CLS]", "what", "is", "[SEP]"]
    assert [len(rows) for rows in short.encode(["", "what", "what is it ?"])] == [2, 3, 4]
    for wrong in (2, 13):
        with pytest.raises(ValueError, match=f"max_tokens is {wrong}, must be from 3 to 12"):
            TextEncoder.load(tiny_bert, max_tokens=wrong)


def test_rows_can_be_trained_on(tiny_bert: Path) -> None:
    rows = TextEncoder.load(tiny_bert).encode(["what"])[0]
    layer = torch.nn.Linear(8, 1)
    layer(rows).sum().backward()
    assert layer.weight.grad is not None
    assert not rows.requires_grad


def test_the_encoder_of_an_encoder_decoder(tmp_path: Path, make_text_encoder: Callable[..., Path]) -> None:
    folder = make_text_encoder(tmp_path / "t5", "t5", d_ff=8, d_kv=4)
    model = transformers.T5Model.from_pretrained(folder).eval()
    encoder = TextEncoder.load(folder)
    expected = model.encoder(input_ids=torch.tensor([[2, 5, 6, 3]])).last_hidden_state[0]
    torch.testing.assert_close(encoder.encode(["what is", "what is it ?"])[0], expected.detach())


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "config.json").unlink(), "there is no config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "there is no model.safetensors"),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            "pytorch_model.bin, a format",
        ),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\x08" * 100), "cannot load this text encoder"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot load this text encoder"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "nothing"}'), "cannot load"),
        (lambda folder: needs_code(folder), "cannot load this text encoder: .*custom code"),
        (
            lambda folder: drop_a_tensor(folder),
            "the weights lack 1 tensors of the encoder, for example embeddings.word",
        ),
        (lambda folder: clip(folder), "a model of images and text"),
    ],
)
def test_refused_folders(tiny_bert: Path, spoil: object, words: str) -> None:
    spoil(tiny_bert)  # type: ignore[operator]
    with pytest.raises(ValueError, match=words) as caught:
        TextEncoder.load(tiny_bert)
    assert str(caught.value).startswith(str(tiny_bert))
    assert "\n" not in str(caught.value)


def needs_code(folder: Path) -> None:
    (folder / "evil.py").write_text("raise SystemExit('code of the model was run')")
    config = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    (folder / "config.json").write_text(json.dumps(config))


def drop_a_tensor(folder: Path) -> None:
    weights = safetensors_torch.load_file(folder / "model.safetensors")
    del weights["embeddings.word_embeddings.weight"]
    safetensors_torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def clip(folder: Path) -> None:
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config={**small, "vocab_size": 10, "projection_dim": 8},
        vision_config={**small, "image_size": 8, "patch_size": 4, "projection_dim": 8},
        projection_dim=8,
    )
    for name in ("config.json", "model.safetensors"):
        (folder / name).unlink()
    transformers.CLIPModel(config).save_pretrained(folder)


@pytest.mark.parametrize("kind", ["convbert", "yoso", "nystromformer", "fnet"])
def test_an_encoder_that_reads_padding_is_refused(
    kind: str, tmp_path: Path, make_text_encoder: Callable[..., Path]
) -> None:
    """In these models of transformers 5.24.0, masked tokens change the rows of the others."""
    folder = make_text_encoder(tmp_path / kind, kind, embedding_size=8)
    weights = safetensors_torch.load_file(folder / "model.safetensors")
    large = {name: 15 * value if value.is_floating_point() else value for name, value in weights.items()}
    safetensors_torch.save_file(large, folder / "model.safetensors", {"format": "pt"})
    ids, mask = torch.tensor([[2, 4, 5, 3, 0, 0, 0]]), torch.tensor([[1, 1, 1, 1, 0, 0, 0]])
    model = transformers.AutoModel.from_pretrained(folder)
    with torch.no_grad():
        alone, padded = (model(ids[:, :n], attention_mask=mask[:, :n]).last_hidden_state[:, :4] for n in (4, 7))
    assert (alone - padded).abs().max() > 0.1  # else it need not be refused any more
    with pytest.raises(ValueError, match=f"{kind} reads padding"):
        TextEncoder.load(folder)


def test_names_that_are_not_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("nobody/nothing", "nothing", str(tmp_path / "absent")):
        with pytest.raises(ValueError, match="is neither a folder nor on this machine") as caught:
            TextEncoder.load(name)
        assert name in str(caught.value)


def test_words_of_typographic_text_belong_to_their_tokens(real_text_encoder: Path) -> None:
    tokens, words = question_words("The ﬁrst shape…", PretrainedTokenizer.load(real_text_encoder), None)
    assert [place for word in words for place in word.places] == list(range(len(tokens)))
    assert [word.text for word in words if not word.special] == ["the", "first", "shape", ".", ".", "."]
