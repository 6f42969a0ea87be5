"""Models on the Hub, against a fake of the Hub's HTTP API on the loopback interface."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_hub import TOKEN, Hub
from PIL import Image

import coattn
from coattn import models
from coattn.cli import main
from coattn.features.extract.extractors.descriptor import Descriptor
from coattn.serialization.card import Section, score_metadata, trained_intro, write_card
from coattn.serialization.directory import save_model
from coattn.serialization.files import CARD, CERTIFICATE, CONFIG, WEIGHTS
from coattn.serialization.hub import is_allowed, local_model
from coattn.text.vocabulary import AnswerVocabulary, Vocabulary

hub = pytest.importorskip("huggingface_hub", reason="the extra hub is not installed")
NAME = "hf://someone/small"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    from huggingface_hub import constants, hf_api

    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(hf_api, "ENDPOINT", server.url, raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    folder = tmp_path / "run" / "model"
    card = write_card(
        "run",
        trained_intro(folder),
        [Section("Scores", "good")],
        metadata=score_metadata("run", "shapes", "vqa_accuracy", 71.239),
    )
    words = Vocabulary(["what", "is", "it", "red"])
    save_model(
        folder,
        models.modular(num_words=len(words), region_dim=56, num_answers=3, dim=16, embedding_dim=8),
        answer_vocabulary=AnswerVocabulary(["yes", "no", "red"]),
        question_vocabulary=words,
        metric="vqa_accuracy",
        activation="softmax",
        extractor=Descriptor().record,
        card=card,
    )
    return folder


def upload(server: Hub, folder: Path, **more: bytes) -> str:
    return server.commit({path.name: path.read_bytes() for path in folder.iterdir()} | more)


def test_a_pushed_model_is_asked_by_its_name(
    server: Hub, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "notes.py").write_text("raise SystemExit")
    (folder / "optimizer.pkl").write_bytes(b"pickle")
    Image.new("RGB", (80, 60), "red").save(tmp_path / "red.png")
    question = [str(tmp_path / "red.png"), "what is it?", "--json"]
    assert main(["ask", str(folder), *question]) == 0
    expected = capfd.readouterr().out

    assert main(["push", str(folder), "someone/small", "--license", "apache-2.0", "--language", "en"]) == 0
    pushed = capfd.readouterr()
    assert "not uploaded, because they are not part of a model: notes.py, optimizer.pkl" in pushed.out
    files = server.commits[server.branches["main"]]
    assert set(files) == {path.name for path in folder.iterdir()} - {"notes.py", "optimizer.pkl"} | {".gitattributes"}

    assert main(["ask", NAME, *question]) == 2
    refused = capfd.readouterr().err
    assert refused.startswith(f"coattn: error: {NAME}: not on this machine; allow the download with --allow-download")
    assert refused.count("\n") == 1

    assert main(["ask", NAME, "--allow-download", *question]) == 0
    asked = capfd.readouterr()
    assert asked.out == expected
    server.requests.clear()
    assert main(["ask", NAME, "--allow-download", *question]) == 0  # from the cache
    assert main(["ask", NAME, *question]) == 0
    assert server.requests == []

    written = pushed.out + pushed.err + asked.out + asked.err + refused
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert TOKEN not in written
    assert TOKEN.encode() not in kept


@pytest.mark.parametrize(
    "command",
    [
        ["serve", NAME],
        ["demo", f"small={NAME}"],
        ["export", NAME, "out"],
        ["explain-test", NAME, "--config", "run.yaml"],
    ],
)
def test_commands_download_nothing_without_permission(
    server: Hub, command: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text("{}")
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"coattn: error: {NAME}: not on this machine; allow the download with --allow-download")
    assert server.requests == []


def test_serve_names_a_model_of_the_hub_by_its_repository(server: Hub, folder: Path) -> None:
    pytest.importorskip("starlette", reason="the extra serve is not installed")
    from coattn.cli.serve import named_folders

    sha = upload(server, folder)
    folders = named_folders([f"{NAME}@{sha}", f"other={NAME}"], allow_download=True)
    assert folders == {"small": local_model(NAME), "other": local_model(NAME)}


def test_export_takes_a_model_of_the_hub(
    server: Hub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript", reason="the extra export is not installed")
    import coattn.export
    from coattn.export.folder import Parity

    upload(server, folder)
    exported = []

    def export(model: Path, out: Path, **_: Any) -> Parity:
        out.mkdir()
        exported.append(model)
        return Parity(0.0, ())

    monkeypatch.setattr(coattn.export, "export_folder", export)
    assert main(["export", NAME, str(tmp_path / "out"), "--allow-download"]) == 0
    assert exported == [local_model(NAME)]


def test_an_explanation_test_does_not_write_into_the_cache(
    server: Hub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lightning", reason="the extra train is not installed")
    import coattn.explain.faithful
    import coattn.training.data.config
    import coattn.training.evaluation.faithfulness

    upload(server, folder)
    config = tmp_path / "run.yaml"
    config.write_text("{}")
    data = SimpleNamespace(check_inputs=lambda *_: None)
    monkeypatch.setattr(coattn.training.data.config, "open_data", lambda *_: data)
    monkeypatch.setattr(coattn.training.evaluation.faithfulness, "measure_explanations", lambda *_, **__: [])
    monkeypatch.setattr(coattn.explain.faithful, "summary", lambda *_: {})
    monkeypatch.setattr(coattn.explain.faithful, "table", lambda _: "the table")
    assert main(["explain-test", NAME]) == 2
    assert f"{NAME}: give the configuration of its data with --config" in capsys.readouterr().err
    assert main(["explain-test", NAME, "--allow-download", "--config", str(config)]) == 0
    assert capsys.readouterr().out == "the table\n"
    assert {path.name for path in local_model(NAME).iterdir()} == {path.name for path in folder.iterdir()}


def test_training_commands_take_a_model_of_the_hub(server: Hub, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("lightning", reason="the extra train is not installed")
    from coattn.training.cli.run_folder import checkpoint_to_use

    upload(server, folder)
    with pytest.raises(ValueError, match="not on this machine"):
        checkpoint_to_use(tmp_path, NAME)
    assert checkpoint_to_use(tmp_path, NAME, allow_download=True) == local_model(NAME)


def test_the_card_of_a_pushed_model_has_what_the_hub_shows(server: Hub, folder: Path) -> None:
    options = ["--license", "cc-by-4.0", "--language", "no", "--dataset", "some/shapes"]
    assert main(["push", str(folder), "someone/small", *options]) == 0
    text = server.commits[server.branches["main"]][CARD].decode()
    card = hub.ModelCard(text)
    data = card.data.to_dict()
    assert data["library_name"] == "coattn"
    assert data["pipeline_tag"] == "visual-question-answering"
    assert data["license"] == "cc-by-4.0"
    assert data["language"] == ["no"]
    assert data["tags"] == ["visual-question-answering", "co-attention"]
    assert data["datasets"] == ["some/shapes"]
    assert data["metrics"] == ["accuracy"]
    (result,) = card.data.eval_results
    assert (result.task_type, result.dataset_name, result.dataset_split) == (
        data["pipeline_tag"],
        "shapes",
        "validation",
    )
    assert (result.metric_type, result.metric_value) == ("accuracy", 71.24)
    assert f'coattn ask {NAME} --allow-download IMAGE "QUESTION"' in text
    assert f'coattn.Predictor.load("{NAME}", allow_download=True)' in text
    assert str(folder) not in text
    assert "## Scores\n\ngood" in text


def test_a_push_deletes_the_files_that_the_model_no_longer_has(server: Hub, folder: Path) -> None:
    server.commit({CERTIFICATE: b"{}", "LICENSE": b"kept", "text_encoder/config.json": b"{}"})
    assert main(["push", str(folder), "someone/small", "--license", "mit"]) == 0
    files = server.commits[server.branches["main"]]
    assert set(files) == {path.name for path in folder.iterdir()} | {"LICENSE"}


def test_a_push_without_license_or_permission_is_refused(
    server: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(folder), "someone/small"]) == 2
    assert "names no license; give one with --license" in capsys.readouterr().err
    assert server.requests == []
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert main(["push", str(folder), "someone/small", "--license", "mit"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"coattn: error: {NAME}: ")
    assert "hf auth login" in error
    assert "hf_wrong" not in error
    assert server.commits == {}


def test_only_the_files_of_a_model_are_downloaded_without_the_token(server: Hub, folder: Path) -> None:
    more = {"model.bin": b"pickle", "modeling.py": b"import os", "extra.pkl": b"", "text_encoder/tokenizer.py": b""}
    sha = upload(server, folder, **more)
    model = coattn.load(NAME, allow_download=True)
    expected = coattn.load(folder).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    cached = local_model(NAME)
    assert {path.name for path in cached.iterdir()} == {path.name for path in folder.iterdir()}
    assert local_model(f"{NAME}@{sha}") == cached
    assert not any(path.endswith(name) for path in server.paths("GET") for name in more)
    assert all(token is None for _, _, token in server.requests)


def test_a_private_model_is_read_with_the_token(server: Hub, folder: Path) -> None:
    upload(server, folder)
    server.private = True
    coattn.Predictor.load(NAME, allow_download=True)
    assert server.requests[0][2] is None
    assert all(token == f"Bearer {TOKEN}" for verb, _, token in server.requests if verb == "HEAD")


def test_a_revision_is_a_branch_or_a_commit(server: Hub, folder: Path) -> None:
    first = upload(server, folder)
    second = upload(server, folder, **{CARD: b"# Newer"})
    assert (local_model(f"{NAME}@{first}", allow_download=True) / CARD).read_bytes() == (folder / CARD).read_bytes()
    with pytest.raises(ValueError, match="not on this machine"):
        local_model(NAME)
    assert (local_model(NAME, allow_download=True) / CARD).read_text() == "# Newer"
    assert local_model(f"{NAME}@{second}") == local_model(f"{NAME}@main")
    with pytest.raises(ValueError, match="no such revision"):
        local_model(f"{NAME}@v2", allow_download=True)


def test_an_interrupted_download_is_completed(server: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upload(server, folder)
    download = hub.hf_hub_download

    def interrupted(repo: str, file: str, **options: Any) -> str:
        if file == WEIGHTS:
            raise KeyboardInterrupt
        return download(repo, file, **options)

    monkeypatch.setattr(hub, "hf_hub_download", interrupted)
    with pytest.raises(KeyboardInterrupt):
        local_model(NAME, allow_download=True)
    with pytest.raises(ValueError, match="not on this machine"):
        local_model(NAME)
    monkeypatch.setattr(hub, "hf_hub_download", download)
    local_model(NAME, allow_download=True)
    assert coattn.load(NAME) is not None


def test_foreign_and_oversized_models_are_refused_before_their_weights(server: Hub, folder: Path) -> None:
    upload(server, folder, **{CONFIG: b'{"model_type": "bert"}'})
    with pytest.raises(ValueError, match="not a model of coattn"):
        local_model(NAME, allow_download=True)
    server.commit({CONFIG: b"{}", "pytorch_model.bin": b"pickle"})
    with pytest.raises(ValueError, match=r"the repository has no model\.safetensors"):
        local_model(NAME, allow_download=True)
    upload(server, folder)
    for file, size, message in (
        (WEIGHTS, 10**18, "MB to download, but .* MB left"),
        (WEIGHTS, None, "does not tell the size of model.safetensors"),
        ("answers.json", 10**9, "answers.json has 1000 MB"),
    ):
        server.sizes = {file: size}
        with pytest.raises(ValueError, match=message):
            local_model(NAME, allow_download=True)
    assert not any(path.endswith(WEIGHTS) for path in server.paths("GET"))


def test_damaged_weights_are_refused(server: Hub, folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    upload(server, folder, **{WEIGHTS: bytes(content)})
    with pytest.raises(ValueError, match="damaged"):
        coattn.load(NAME, allow_download=True)


@pytest.mark.parametrize(
    "name", ["hf://", "hf://small", "hf://a/b/c", "hf://a/b@", "hf://a/b@../../x", "hf://../b@main", "hf://a/b?x=1"]
)
def test_other_forms_of_a_name_are_refused(server: Hub, name: str) -> None:
    with pytest.raises(ValueError, match=r"is named hf://user/name|not a name on the Hub"):
        local_model(name, allow_download=True)
    assert server.requests == []


def test_errors_of_the_hub_are_one_sentence(
    server: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["ask", NAME, "--allow-download", "red.png", "what is it?"]

    def error() -> str:
        assert main(asked) == 2
        text = capsys.readouterr().err
        assert text.count("\n") == 1
        return text

    assert "the Hub has no such model" in error()
    server.status = 403
    assert "the Hub answered with status 403" in error()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "unset it" in error()


def test_the_allowed_files_are_those_of_a_model_directory() -> None:
    allowed = (WEIGHTS, CONFIG, CARD, "text_encoder/config.json", "text_encoder/vocab.txt", "text_encoder/LICENSE")
    refused = (
        "a.py",
        "model.bin",
        "x/model.safetensors",
        "text_encoder",
        "text_encoder/tokenizer.py",
        "../config.json",
    )
    refused += (
        "../config.json",
        "text_encoder/a/config.json",
        "text_encoder/../config.json",
        "/config.json",
        "text_encoder/vocab.pkl",
    )
    assert [name for name in (*allowed, *refused) if is_allowed(name)] == list(allowed)
