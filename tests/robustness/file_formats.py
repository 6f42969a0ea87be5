"""Every kind of file that the product reads: a small example of each, and the function that reads it.

A new format is one entry of `FORMATS`. `make` writes its files into an empty folder; `read` reads them from there, as
its users do, and returns something to compare, or raises.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import pickle
import shutil
import tempfile
import zipfile
from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch
import yaml
from feature_files import DIM, SIZE, made_images, mmf_info, write_dcn, write_npz, write_tsv
from parity import load_golden, part
from PIL import Image
from project_files import dcn_files, project_files, questions
from published_fixtures import SETS, lay_out
from safetensors.torch import save_file
from stores import write as write_store
from tiny import settings, write_data

from coattn import models
from coattn.cli import main
from coattn.datasets.readers import READERS
from coattn.explain.abstain import Safeguards
from coattn.explain.image_index import ImageIndex
from coattn.features.convert.run import convert
from coattn.features.extract.extractors.descriptor import Descriptor
from coattn.features.extract.images import find_images, load_image
from coattn.features.extract.run import extract
from coattn.features.store.reader import FeatureStore
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


class Format(NamedTuple):
    """One kind of files.

    Attributes:
        make: writes the files into a folder.
        read: reads them, and returns something to compare.
        hashed: patterns of files whose content a hash protects: what is read is unchanged, or it is refused.
        weight: how often it is damaged, compared with others.
        untouched: patterns of files that are not damaged.
    """

    make: Callable[[Path], object]
    read: Callable[[Path], Any]
    hashed: tuple[str, ...] = ()
    weight: float = 1.0
    untouched: tuple[str, ...] = ()


def command(*arguments: object) -> str:
    """The output of a command; its errors are raised."""
    os.environ["COATTN_TRACEBACK"] = "1"
    printed = io.StringIO()
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            status = main([str(argument) for argument in arguments])
    except SystemExit as error:
        raise ValueError(f"exit {error.code}: {printed.getvalue()}") from None
    finally:
        del os.environ["COATTN_TRACEBACK"]
    assert status in (0, 1), (status, printed.getvalue())
    return printed.getvalue()


def photo(seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return Image.fromarray(pixels).resize((64, 48))


# Models


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


# Feature stores and what they are made from


def make_photos(folder: Path) -> None:
    for number, suffix in enumerate(("png", "jpg", "gif", "bmp", "tiff", "webp")):
        photo(number).save(folder / f"{number}.{suffix}")
    photo(7).convert("I;16").save(folder / "16bit.png")


def read_photos(folder: Path) -> Any:
    return [np.asarray(load_image(path)).sum() for path in sorted(folder.iterdir())]


def make_shards(folder: Path) -> None:
    for number in range(4):
        photo(number).save(folder / f"{number}.png")
    extract(find_images([folder]), folder / "store", Descriptor(), images_per_unit=2, progress=False)
    for number in range(4):
        (folder / f"{number}.png").unlink()


def rows_of(path: Path) -> Any:
    store = FeatureStore(path)
    flat = store.read_flat(np.arange(len(store)))
    return store.image_ids, flat.features.tolist(), flat.boxes.tolist(), [store.read(i) for i in range(len(store))]


def make_merged(folder: Path) -> None:
    make_shards(folder)
    (folder / "store").rename(folder / "a")
    write_store(folder / "b.h5", dim=56, record=FeatureStore(folder / "a").record, prefix="b", dtype="float16")


def merge(folder: Path) -> Any:
    with tempfile.TemporaryDirectory() as out:
        command("convert", "merge", folder / "a", folder / "b.h5", Path(out, "c.h5"))
        return rows_of(Path(out, "c.h5"))


def make_embeddings(folder: Path) -> None:
    make_text_encoder(folder / "encoder")
    (folder / "q.txt").write_text("what is it ?\nis it red ?\n")
    command("embed", folder / "q.txt", folder / "store", "--encoder", folder / "encoder")


def embed(folder: Path) -> Any:
    """Finish the store, which has to be complete."""
    command("embed", folder / "q.txt", folder / "store", "--encoder", folder / "encoder")
    return rows_of(folder / "store")


def make_vision_model(folder: Path) -> None:
    import transformers

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.ViTConfig(image_size=32, patch_size=8, **sizes)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    usual = {"size": {"height": 32, "width": 32}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
    (folder / "preprocessor_config.json").write_text(json.dumps({**usual, "resample": 3}))


def extract_by_vision_model(folder: Path) -> Any:
    from coattn.features.extract.extractors.transformers_grid import TransformersGrid, read_vision_model

    return [regions.features.tolist() for regions in TransformersGrid(**read_vision_model(folder))([photo()])]


def make_extractor_weights(folder: Path) -> None:
    from torchvision.models import squeezenet1_1

    torch.manual_seed(0)
    torch.save(squeezenet1_1(weights=None).state_dict(), folder / "weights.pth")


def extract_by_weights(folder: Path) -> Any:
    from coattn.features.extract.extractors.torchvision_grid import TorchvisionGrid

    grid = TorchvisionGrid("squeezenet1_1", weights=folder / "weights.pth", size=(64, 64), grid=(2, 2))
    return grid([photo()])[0].features.tolist()


# Features of other projects


def make_hengyuan(folder: Path) -> None:
    boxes = np.random.default_rng(0).random((3, 4, 4), np.float32)
    with h5py.File(folder / "train36.hdf5", "w") as file:
        file["image_features"] = np.ones((3, 4, DIM), np.float32)
        file["image_bb"] = np.sort(boxes, axis=2)[..., [0, 1, 2, 3]] * 100
        shares = np.sort(boxes, axis=2)
        file["spatial_features"] = np.concatenate([shares, shares[..., 2:] - shares[..., :2]], axis=2)
    (folder / "train36_imgid2idx.pkl").write_bytes(pickle.dumps({9: 0, 5: 1, 7: 2}, protocol=2))


def make_lmdb(folder: Path) -> None:
    import lmdb

    keys = [name.encode() for name in made_images()]
    with lmdb.open(str(folder / "a.lmdb"), map_size=2**18) as environment, environment.begin(write=True) as writing:
        for key, one in zip(keys, made_images().values(), strict=True):
            writing.put(key, pickle.dumps({"features": one.features, **mmf_info(one)}))
        writing.put(b"keys", pickle.dumps(keys))
    (folder / "a.lmdb" / "lock.mdb").unlink()


def make_mmf_npy(folder: Path) -> None:
    for name, one in made_images().items():
        np.save(folder / f"{name}.npy", one.features)
        np.save(folder / f"{name}_info.npy", mmf_info(one))  # type: ignore[arg-type]


def make_gqa(folder: Path) -> None:
    features = np.random.default_rng(0).random((2, 6, DIM), np.float32)
    boxes = np.tile(np.float32([1, 2, 30, 40]), (2, 6, 1))
    with h5py.File(folder / "gqa_objects_0.h5", "w") as file:
        file["features"], file["bboxes"] = features, boxes
    entry = {"file": 0, "objectsNum": 6, "width": SIZE[0], "height": SIZE[1]}
    (folder / "gqa_objects_info.json").write_text(json.dumps({str(n): {**entry, "idx": n} for n in range(2)}))


def make_vlt5(folder: Path) -> None:
    with h5py.File(folder / "val.h5", "w") as file:
        for name, one in made_images().items():
            group = file.create_group(f"COCO_val2014_{int(name):012d}")
            group["features"], group["boxes"] = one.features, one.boxes
            group["img_w"], group["img_h"] = SIZE
            group["obj_id"], group["obj_conf"] = one.labels, one.scores


def make_clevr_iep(folder: Path) -> None:
    with h5py.File(folder / "val.h5", "w") as file:
        file["features"] = np.random.default_rng(0).random((2, 6, 14, 14), np.float32)


def make_vinvl(folder: Path) -> None:
    from feature_files import text64

    lines, sizes = [], []
    for name, one in made_images().items():
        each = zip(one.features, one.boxes, one.scores, strict=True)
        objects = [
            {"class": "cat", "rect": box.tolist(), "conf": float(score), "feature": text64(row)}
            for row, box, score in each
        ]
        lines.append(f"{name}\t{json.dumps({'objects': objects})}\n")
        sizes.append(f"{name}\t{json.dumps([{'height': SIZE[1], 'width': SIZE[0]}])}\n")
    (folder / "predictions.tsv").write_text("".join(lines))
    (folder / "val.hw.tsv").write_text("".join(sizes))


def make_grids(folder: Path) -> None:
    for number in range(3):
        torch.save(torch.full((1, 8, 2, 3), float(number)), folder / f"{number}.pth")


def converted(kind: str, name: str, folder: Path) -> Any:
    """The features of a file or folder `name`; "" is the folder itself."""
    with tempfile.TemporaryDirectory() as out:
        convert(kind, [folder / name], Path(out, "out"), dtype="float32", progress=False)
        return rows_of(Path(out, "out"))


# Checkpoints of other projects


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


# Questions and answers


def write_texts(folder: Path, files: Mapping[str, Any]) -> None:
    lay_out(folder, files)


ROWS = [
    {"image": f"{number}.png", "question": "What is it?", "answer": ("cup", "cat")[number % 2], "split": split}
    for number, split in enumerate(("train", "train", "val", "test"))
]
CSV = "\n".join([",".join(ROWS[0]), *(",".join(row.values()) for row in ROWS)]) + "\n"


def make_table(name: str, text: str, folder: Path) -> None:
    (folder / name).write_text(text)


def make_parquet(folder: Path) -> None:
    import pyarrow
    from pyarrow import feather, parquet

    table = pyarrow.Table.from_pylist(ROWS)
    parquet.write_table(table, folder / "table.parquet")
    (folder / "other").mkdir()
    feather.write_feather(table, folder / "other" / "data.arrow")


def read_first(command_name: str, folder: Path) -> Any:
    """Read a data set as `coattn prepare` does, without writing it."""
    name, *options = command_name.split()
    parser = ArgumentParser()
    READERS[name].add_arguments(parser)
    places = [path for path in sorted(folder.iterdir()) if path.is_file()]
    source = places[0] if name == "table" and places else folder
    return READERS[name].from_arguments(parser.parse_args([str(source), *options])).splits


def make_daquar(folder: Path) -> None:
    (folder / "images").mkdir()
    for number in range(6):
        photo().save(folder / "images" / f"image{number}.png")
    pairs = [f"what is on the left of image{number} ?\nchair\n" for number in range(6)]
    (folder / "all_qa_pairs.txt").write_text("".join(pairs))
    (folder / "train_images_list.txt").write_text("".join(f"image{number}\n" for number in range(1, 6)))
    (folder / "test_images_list.txt").write_text("image0\n")


def make_sort_of_clevr(folder: Path) -> None:
    row = {"question": "what is the shape of the red object ?", "answer": "circle", "type": "nonrel"}
    for split in ("train", "test"):
        lines = "".join(json.dumps({**row, "image": f"{number:05}.png"}) + "\n" for number in range(12))
        (folder / f"sort_of_clevr_{split}.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
        with zipfile.ZipFile(folder / f"sort_of_clevr_{split}_images.zip", "w") as archive:
            for number in range(12):
                png = io.BytesIO()
                photo(number).save(png, "PNG")
                archive.writestr(f"{number:05}.png", png.getvalue())


def prepare(command_name: str, folder: Path) -> Any:
    """Read and write a data set by the command, with its pictures."""
    name, *options = command_name.split()
    with tempfile.TemporaryDirectory() as out:
        command("prepare", name, folder, Path(out, "data"), *options)
        return [path.read_bytes() for path in sorted(Path(out, "data").glob("*.json")) if path.name != "report.json"]


def make_prepared(folder: Path) -> None:
    make_table("table.csv", CSV, folder)
    for number in range(4):
        photo(number).save(folder / f"{number}.png")
    command("prepare", "table", folder / "table.csv", folder / "data", "--images", folder)
    (folder / "table.csv").unlink()


def make_results(folder: Path) -> None:
    write_data(folder)
    (folder / "features.h5").unlink()
    records = json.loads((folder / "test_questions.json").read_text())["questions"]
    doubts = {"withheld": False, "reasons": ["The image is unlike the others."], "unknown_words": []}
    results = [{"question_id": each["question_id"], "answer": "red", "confidence": 0.75} | doubts for each in records]
    (folder / "results.json").write_text(json.dumps(results))
    lines = [json.dumps({"question_id": each["question_id"], "text": "red"}) for each in records]
    (folder / "results.jsonl").write_text("\n".join(lines))
    (folder / "results.txt").write_text("red\n" * len(records))
    for number in range(9):
        (folder / "test").mkdir(exist_ok=True)
        photo(number).save(folder / "test" / f"{number}.png")
    (folder / "images.json").write_text(json.dumps({f"test/{number}": f"test/{number}.png" for number in range(9)}))


def score(folder: Path) -> Any:
    files = [f"--{kind}={folder}/test_{kind}.json" for kind in ("questions", "annotations")]
    return [command("score", folder / f"results.{kind}", *files) for kind in ("json", "jsonl", "txt")]


def browse(folder: Path) -> Any:
    files = [f"--{kind}={folder}/test_{kind}.json" for kind in ("questions", "annotations")]
    files += [f"--images={folder}/images.json", f"--train-questions={folder}/train_questions.json"]
    with tempfile.TemporaryDirectory() as out:
        command("browse", folder / "results.json", *files, "--out", f"{out}/page.html")
        return Path(out, "page.html").read_text()


def make_asked_table(folder: Path) -> None:
    make_model(folder)
    photo().save(folder / "0.png")
    (folder / "table.csv").write_text("image,question\n0.png,what is it\n0.png,is it red\n")


def ask_table(folder: Path) -> Any:
    with tempfile.TemporaryDirectory() as out:
        options = ["--table", folder / "table.csv", "--images", folder, "--out", f"{out}/answers.csv"]
        command("ask", folder / "model", *options)
        return Path(out, "answers.csv").read_text()


def make_word_vectors(folder: Path) -> None:
    lines = [f"{word} {number} 0.5 -1e-1\n" for number, word in enumerate(("the", "what", "color", ". .", "is"))]
    (folder / "vectors.txt").write_text("5 3\n" + "".join(lines))
    (folder / "vectors.json").write_text(json.dumps({"what": [0.5, 1], "color": [1, 2], "it": [3, 4]}))


def word_vectors(folder: Path) -> Any:
    found = [read_word_vectors(folder / f"vectors.{kind}", WORDS) for kind in ("txt", "json")]
    return [vectors.values.tolist() for vectors in found]


# Training


@cache
def trained() -> Path:
    """A finished run, whose data and configuration lie beside it."""
    folder = Path(tempfile.mkdtemp(prefix="coattn-trained-"))
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


def make_image_list(folder: Path) -> None:
    photo().save(folder / "0.png")
    (folder / "images.json").write_text(json.dumps({"a": "0.png", "b": "0.png"}))


def extract_list(folder: Path) -> Any:
    with tempfile.TemporaryDirectory() as out:
        extract(find_images([folder / "images.json"]), Path(out, "store"), Descriptor(), progress=False)
        return rows_of(Path(out, "store"))


HASHED = ("model/answers.json", "model/question_vocabulary.json", "model/model.safetensors")
FORMATS: dict[str, Format] = {
    "model": Format(make_model, ask, HASHED, 4),
    "inspected model": Format(make_model, lambda folder: inspected(folder / "model"), HASHED),
    "inspected data set": Format(make_prepared, lambda folder: inspected(folder / "data"), (), 2),
    "generator": Format(make_generator, ask, ("model/model.safetensors",), 2),
    "model with a network": Format(make_network_model, ask, ("model/*.safetensors",), 0.5),
    "model with a text encoder": Format(make_language_model, ask, ("model/model.safetensors",), 2),
    "model of version 1": Format(
        lambda folder: shutil.copytree(GOLDEN / "model_version_1" / "plain", folder / "model"),
        lambda folder: inspected(folder / "model"),
    ),
    "text encoder": Format(make_text_encoder, read_text_encoder, (), 2),
    "vision model": Format(make_vision_model, extract_by_vision_model, (), 2),
    "extractor weights": Format(make_extractor_weights, extract_by_weights, (), 0.5),
    "store of one file": Format(lambda folder: write_store(folder / "a.h5"), lambda f: rows_of(f / "a.h5"), (), 3),
    "store of int8": Format(lambda folder: write_store(folder / "a.h5", dtype="int8"), lambda f: rows_of(f / "a.h5")),
    "store of shards": Format(make_shards, lambda folder: rows_of(folder / "store"), (), 3),
    "inspected store": Format(make_shards, lambda folder: inspected(folder / "store"), (), 2),
    "merged stores": Format(make_merged, merge, (), 1),
    "question embeddings": Format(make_embeddings, embed, (), 2, ("encoder/*",)),
    "photos": Format(make_photos, read_photos, (), 3),
    "list of images": Format(make_image_list, extract_list),
    "bottom-up TSV": Format(
        lambda folder: write_tsv(folder / "a.tsv", list(made_images().items())),
        partial(converted, "bottom-up-tsv", "a.tsv"),
    ),
    "VinVL": Format(make_vinvl, partial(converted, "vinvl-tsv", "predictions.tsv")),
    "npz": Format(
        lambda folder: write_npz(folder / "npz", made_images(), "vqa"), partial(converted, "openvqa-npz", "npz")
    ),
    "npz with info": Format(
        lambda folder: write_npz(folder / "npz", made_images(), "info"), partial(converted, "py-bottom-up-npz", "npz")
    ),
    "hengyuan HDF5": Format(make_hengyuan, partial(converted, "hengyuan-hdf5", "train36.hdf5")),
    "DCN HDF5": Format(
        lambda folder: write_dcn(folder / "a.h5", made_images()), partial(converted, "dcn-hdf5", "a.h5")
    ),
    "VL-T5": Format(make_vlt5, partial(converted, "vlt5-hdf5", "val.h5")),
    "GQA features": Format(make_gqa, partial(converted, "gqa-hdf5", "")),
    "clevr-iep": Format(make_clevr_iep, partial(converted, "clevr-iep-hdf5", "val.h5")),
    "LMDB": Format(make_lmdb, partial(converted, "mmf-lmdb", "a.lmdb"), (), 2),
    "MMF npy": Format(make_mmf_npy, partial(converted, "mmf-npy", "")),
    "grid-feats": Format(make_grids, partial(converted, "grid-feats-pth", "")),
    "openvqa checkpoint": Format(make_openvqa, convert_openvqa, (), 1, ("train.json", "val.json")),
    "DCN checkpoint": Format(dcn_files, convert_dcn),
    "hengyuan checkpoint": Format(make_hengyuan_checkpoint, convert_hengyuan),
    "CSV": Format(partial(make_table, "table.csv", CSV), partial(read_first, "table"), (), 2),
    "TSV": Format(partial(make_table, "table.tsv", CSV.replace(",", "\t")), partial(read_first, "table")),
    "JSON table": Format(partial(make_table, "table.json", json.dumps(ROWS)), partial(read_first, "table")),
    "JSON lines": Format(
        partial(make_table, "table.jsonl", "\n".join(map(json.dumps, ROWS))), partial(read_first, "table")
    ),
    "Parquet": Format(make_parquet, partial(read_first, "table"), (), 1, ("other/*",)),
    "Arrow": Format(make_parquet, lambda folder: read_first("table", folder / "other"), (), 1, ("*.parquet",)),
    **{
        name: Format(partial(write_texts, files=files), partial(read_first, name), (), 0.5)
        for name, files in SETS.items()
    },
    "DAQUAR": Format(make_daquar, partial(read_first, "daquar")),
    "Sort-of-CLEVR": Format(make_sort_of_clevr, partial(prepare, "sort-of-clevr"), (), 0.5),
    "results": Format(make_results, score, (), 3, ("train*", "val*", "images.json", "test/*")),
    "page of results": Format(make_results, browse, (), 1, ("val*", "*.txt", "*.jsonl")),
    "asked table": Format(make_asked_table, ask_table, (), 1, ("model/*",)),
    "word vectors": Format(make_word_vectors, word_vectors, (), 2),
    "checkpoint": Format(make_checkpoint, load_checkpoint, ("checkpoints/*.ckpt",), 3),
    "checkpoint to go on from": Format(make_checkpoint, partial(use_checkpoint, "fit"), (), 1, ("*/best.ckpt",)),
    "checkpoint to predict with": Format(make_checkpoint, partial(use_checkpoint, "predict"), (), 1, ("*/best.ckpt",)),
    "training": Format(make_training, fit, (), 3),
    # Last, because torch trains in no process that is forked after it has exported a model.
    "export": Format(make_export, ask_export, ("export/*.onnx", "export/*.json", "export/*.safetensors"), 3),
}
