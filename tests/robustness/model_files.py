"""Models, checkpoints and runs to be damaged: small examples, and the functions that read them."""

from __future__ import annotations

import atexit
import hashlib
import json
import pickle
import shutil
import tempfile
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from format import Format, command
from parity import load_golden, part
from PIL import Image
from project_files import dcn_files, project_files, questions
from safetensors.torch import save_file
from tiny import settings, write_data

from coattn import models
from coattn.explain.abstain import Safeguards
from coattn.explain.image_index import ImageIndex
from coattn.features.extract.extractors.descriptor import Descriptor
from coattn.metrics.certificate import Certificate
from coattn.predictor import Predictor
from coattn.serialization.directory import save_model
from coattn.text.answer_words import AnswerWords
from coattn.text.vocabulary import AnswerVocabulary, Vocabulary
from coattn.text.word_vectors import read_word_vectors
from coattn.training.checkpoints import read_checkpoint

WORDS = Vocabulary(["what", "color", "is", "the", "circle"])
ANSWERS = AnswerVocabulary(["yes", "no", "red", "blue"])
GOLDEN = Path(__file__).parents[1] / "golden"


def photo(seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return Image.fromarray(pixels).resize((64, 48))


def save(folder: Path, model: Any, **changes: Any) -> Path:
    options: dict[str, Any] = {
        "answer_vocabulary": ANSWERS,
        "question_vocabulary": WORDS,
        "metric": "exact_match",
        "activation": "softmax",
        "temperature": 1.5,
        "max_tokens": 8,
        "extractor": Descriptor().record,
        "card": "---\nlibrary_name: coattn\n---\n# A model\n",
    }
    save_model(folder, model, **(options | changes))
    return folder


def add_safeguards(folder: Path, dim: int = 56) -> None:
    random = np.random.default_rng(0)
    index = ImageIndex.build(random.normal(size=(40, dim)), random.normal(size=(40, dim)))
    Safeguards(folder, (Certificate(0.05, 0.9, 0.8, 0.01, 500, 500),), index).save()
    scores = {"mask": {"score": 12.5, "low": 10.0, "high": 15.0}}
    (folder / "faithfulness.json").write_text(json.dumps({"methods": {"shapley": scores}, "random": {"mask": 1}}))


def make_model(folder: Path) -> None:
    torch.manual_seed(0)
    sizes = {"num_words": len(WORDS), "region_dim": 56, "num_answers": len(ANSWERS), "dim": 8, "embedding_dim": 4}
    add_safeguards(save(folder / "model", models.modular(**sizes, num_heads=2)))


def make_generator(folder: Path) -> None:
    torch.manual_seed(0)
    words = AnswerWords(["red", "blue", "chair"])
    model = models.generator(region_dim=56, num_answer_words=len(words), num_words=len(WORDS), dim=16)
    save(folder / "model", model, answer_vocabulary=words)


def make_network_model(folder: Path) -> None:
    from coattn.features.extract.extractors.torchvision_grid import TorchvisionGrid

    network = TorchvisionGrid("squeezenet1_1", weights="none", size=(64, 64), grid=(2, 2))
    save_file(dict(network.weights), folder / "extractor.safetensors")
    sizes = {"num_words": len(WORDS), "region_dim": network.dim, "num_answers": len(ANSWERS), "dim": 8}
    files = {"extractor": network.record, "extractor_weights": folder / "extractor.safetensors"}
    save(folder / "model", models.modular(**sizes, num_heads=2), **files)
    (folder / "extractor.safetensors").unlink()


def make_text_encoder(folder: Path) -> Path:
    import tokenizers
    import transformers

    torch.manual_seed(0)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "what", "is", "##n", "it", "?", "red", "color", "please"]
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = transformers.BertConfig(vocab_size=len(pieces), pad_token_id=0, **sizes)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    options = {"pad_token": "[PAD]", "unk_token": "[UNK]", "model_max_length": 32}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **options).save_pretrained(folder)
    return folder


def make_language_model(folder: Path) -> None:
    from coattn.nn import PlainQuestionEncoder
    from coattn.text.encoders import FinetunedQuestionEncoder
    from coattn.text.pretrained_tokenizer import PretrainedTokenizer

    encoder = make_text_encoder(folder / "encoder")
    sizes = {"region_dim": 56, "num_answers": len(ANSWERS), "dim": 8, "num_heads": 2}
    model = models.modular(question_dim=8, **sizes, question_encoder="none")
    model.question_encoder = FinetunedQuestionEncoder.pretrained(encoder, PlainQuestionEncoder(question_dim=8, dim=8))
    record = {"name": "x", "settings": {}, "weights": None, "versions": {}}
    tokenizer = PretrainedTokenizer.load(encoder)
    save(folder / "model", model, question_vocabulary=tokenizer, text_encoder=record)
    shutil.rmtree(encoder)


def ask(folder: Path) -> Any:
    predictor = Predictor.load(folder / "model")
    image = predictor.encode(photo())
    return predictor.ask(image, "what color is it", max_risk=0.5), predictor.faithfulness


def inspected(path: Path, *options: str) -> str:
    """The description of a store, a model or a data set. Damage that it names counts as refused."""
    text = command("inspect", path, "--verify", "--json", *options)
    found = json.loads(text)
    if found.get("checksums", {}).get("damaged", {}).get("number") or found.get("missing_images", {}).get("number"):
        raise ValueError(text)
    return text


def read_text_encoder(folder: Path) -> Any:
    from coattn.text.encoders import TextEncoder

    return [rows.tolist() for rows in TextEncoder.load(folder).encode(["what is it ?"])]


def make_export(folder: Path) -> None:
    from coattn.export.folder import export_folder

    make_model(folder)
    export_folder(folder / "model", folder / "export")
    shutil.rmtree(folder / "model")


def ask_export(folder: Path) -> Any:
    from coattn import runtime

    return runtime.Predictor.load(folder / "export").ask(photo(), "what color is it", max_risk=0.5)


def make_openvqa(folder: Path) -> None:
    files = project_files(folder, "openvqa_mcan")
    shutil.copy(files["config"], folder / "config.json")


def convert_openvqa(folder: Path) -> Any:
    with tempfile.TemporaryDirectory() as out:
        options = [
            f"--{name}={folder / file}" for name, file in (("config", "config.json"), ("tokens", "token_dict.json"))
        ]
        options += ["--model=mcan", f"--answers={folder / 'answer_dict.json'}"]
        return command("convert", "openvqa", folder / "epoch13.pkl", *options, Path(out, "model"))[len(out) :]


def convert_dcn(folder: Path) -> Any:
    with tempfile.TemporaryDirectory() as out:
        options = [f"--answers={folder / 'idx2ans.json'}", f"--vectors={folder / 'glove.txt'}"]
        options += [f"--questions={folder / 'q.json'}"]
        return command("convert", "dcn", folder / "model.pt", *options, Path(out, "model"))[len(out) :]


def make_hengyuan_checkpoint(folder: Path) -> None:
    weights = part(load_golden("hengyuan_butd_baseline0"), "sd")
    num_answers = len(next(value for name, value in weights.items() if name == "classifier.main.3.bias"))
    torch.save(weights, folder / "model.pth")
    (folder / "answers.json").write_text(json.dumps([f"a{number}" for number in range(num_answers)]))
    words = [f"w{number}" for number in range(len(weights["w_emb.emb.weight"]) - 1)]
    (folder / "q.json").write_text(json.dumps(questions(words)))


def convert_hengyuan(folder: Path) -> Any:
    with tempfile.TemporaryDirectory() as out:
        options = [f"--answers={folder / 'answers.json'}", f"--questions={folder / 'q.json'}"]
        return command("convert", "hengyuan", folder / "model.pth", *options, Path(out, "model"))[len(out) :]


def make_word_vectors(folder: Path) -> None:
    lines = [f"{word} {number} 0.5 -1e-1\n" for number, word in enumerate(("the", "what", "color", ". .", "is"))]
    (folder / "vectors.txt").write_text("5 3\n" + "".join(lines))
    (folder / "vectors.json").write_text(json.dumps({"what": [0.5, 1], "color": [1, 2], "it": [3, 4]}))


def word_vectors(folder: Path) -> Any:
    found = [read_word_vectors(folder / f"vectors.{kind}", WORDS) for kind in ("txt", "json")]
    return [vectors.values.tolist() for vectors in found]


@cache
def trained() -> Path:
    """A finished run, whose data and configuration lie beside it, until this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="coattn-trained-"))
    atexit.register(shutil.rmtree, folder)
    write_data(folder)
    run = settings(folder, folder / "run")
    run["trainer"] |= {"max_epochs": 1}
    (folder / "run.yaml").write_text(yaml.safe_dump(run))
    command("fit", "--config", folder / "run.yaml")
    return folder


def make_checkpoint(folder: Path) -> None:
    shutil.copytree(trained() / "run" / "checkpoints", folder / "checkpoints")


def load_checkpoint(folder: Path) -> Any:
    names = ("best.ckpt", "last.ckpt")
    found = [read_checkpoint(folder / "checkpoints" / name, complete=True) for name in names]
    return [hashlib.sha256(pickle.dumps(jsonable(checkpoint))).hexdigest() for checkpoint in found]


def jsonable(value: Any) -> Any:
    """A nested value whose tensors are lists, to be compared."""
    if isinstance(value, torch.Tensor):
        return value.flatten().tolist()
    if isinstance(value, dict):
        return {str(key): jsonable(inner) for key, inner in value.items()}
    return [jsonable(inner) for inner in value] if isinstance(value, list | tuple) else repr(value)


def use_checkpoint(command_name: str, folder: Path) -> Any:
    with tempfile.TemporaryDirectory() as out:
        options = ["--config", trained() / "run.yaml", "--trainer.default_root_dir", out]
        options += ["--ckpt_path", folder / "checkpoints" / "last.ckpt"]
        if command_name == "fit":
            command("fit", *options, "--trainer.max_epochs", 2)
            return sorted(path.name for path in Path(out).iterdir())
        command("predict", *options, "--output", f"{out}/answers.json")
        return Path(out, "answers.json").read_text()


def make_training(folder: Path) -> None:
    """A configuration, questions and features, as `coattn fit` reads them."""
    write_data(folder)
    run = settings(folder, folder / "run")
    run["data"] = {"folder": str(folder), "features": str(folder / "features.h5"), "batches": {"size": 8}}
    (folder / "run.yaml").write_text(yaml.safe_dump(run))


def fit(folder: Path) -> Any:
    text = (folder / "run.yaml").read_bytes() if (folder / "run.yaml").is_file() else b""
    with tempfile.TemporaryDirectory() as out:
        config = folder / "run.yaml"
        options = ["--trainer.fast_dev_run", "true", "--trainer.default_root_dir", out]
        options += ["--data.folder", folder, "--data.features", folder / "features.h5"] if text else []
        command("fit", "--config", config, *options)
        return None


HASHED = ("model/answers.json", "model/question_vocabulary.json", "model/model.safetensors")
FORMATS: dict[str, Format] = {
    "model": Format(make_model, ask, HASHED, 4),
    "inspected model": Format(make_model, lambda folder: inspected(folder / "model"), HASHED),
    "generator": Format(make_generator, ask, ("model/model.safetensors",), 2),
    "model with a network": Format(make_network_model, ask, ("model/*.safetensors",), 0.5),
    "model with a text encoder": Format(make_language_model, ask, ("model/model.safetensors",), 2),
    "model of version 1": Format(
        lambda folder: shutil.copytree(GOLDEN / "model_version_1" / "plain", folder / "model"),
        lambda folder: inspected(folder / "model"),
    ),
    "text encoder": Format(make_text_encoder, read_text_encoder, (), 2),
    "openvqa checkpoint": Format(make_openvqa, convert_openvqa, (), 1, ("train.json", "val.json")),
    "DCN checkpoint": Format(dcn_files, convert_dcn),
    "hengyuan checkpoint": Format(make_hengyuan_checkpoint, convert_hengyuan),
    "word vectors": Format(make_word_vectors, word_vectors, (), 2),
    "checkpoint": Format(make_checkpoint, load_checkpoint, ("checkpoints/*.ckpt",), 3),
    "checkpoint to resume from": Format(make_checkpoint, partial(use_checkpoint, "fit"), (), 1, ("*/best.ckpt",)),
    "checkpoint to predict with": Format(make_checkpoint, partial(use_checkpoint, "predict"), (), 1, ("*/best.ckpt",)),
    "training": Format(make_training, fit, (), 3),
    # Last, because torch trains in no process that is forked after it has exported a model.
    "export": Format(make_export, ask_export, ("export/*.onnx", "export/*.json", "export/*.safetensors"), 3),
}
