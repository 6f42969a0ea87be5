"""A process that answers one question whenever it is told to, so that builds and packages can take turns.

    python -P asked.py KIND [ARGUMENT...]   reads how often to ask, prints the seconds of one answer
    python -P asked.py make FOLDER          writes a random MCAN-small as a model directory of the imported build
    python -P asked.py make_easy FOLDER     the same of a random model with the sizes of easy-VQA's
    python -P asked.py make_photo FOLDER    the same of a random MCAN-small on the cells of a random MobileNetV2

The imported `coattn` may be an earlier build (`tools/bench answer --against`), so only names that it has are used.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

QUESTION = "w1 w2 w3 w4 w5 w6 w7"  # 7 words of the random model; easy-VQA's model does not know them
NUM_WORDS, NUM_ANSWERS, REGION_DIM, NUM_REGIONS = 20_000, 3129, 2048, 36


def make(folder: str, *sizes: str) -> None:
    """Write a random MCAN-small in the format of the imported build; sizes are given as NAME=NUMBER."""
    given = {name: int(value) for name, value in (size.split("=") for size in sizes)}
    common = {"num_words": NUM_WORDS, "region_dim": REGION_DIM, "num_answers": NUM_ANSWERS}
    _save(folder, _presets().mcan_small(**common | given), extractor=_EXTERNAL)


def make_easy(folder: str) -> None:
    """Write a random model of the sizes in `configs/easy_vqa.yaml` in the format of the imported build."""
    model = _presets().modular(
        num_words=28,
        region_dim=56,
        num_answers=13,
        num_layers=1,
        dim=64,
        ffn_dim=128,
        embedding_dim=64,
        boxes=True,
        region_positions=16,
        fusion="product",
    )
    _save(folder, model, num_words=28, num_answers=13, extractor=_EXTERNAL)


def make_photo(folder: str) -> None:
    """Write a random MCAN-small on the 7 x 7 cells of a random MobileNetV2."""
    import tempfile

    import torch
    from safetensors.torch import save_file

    from coattn.features.extract.extractors.torchvision_grid import TorchvisionGrid
    from coattn.models import mcan_small

    torch.manual_seed(0)
    network = TorchvisionGrid("mobilenet_v2", weights="none")
    model = mcan_small(num_words=NUM_WORDS, region_dim=network.dim, num_answers=NUM_ANSWERS)
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        save_file(dict(network.weights), file.name)
        _save(folder, model, extractor=network.record, extractor_weights=file.name)


def from_model(folder: str, num_threads: str, question: str, num_regions: str, region_dim: str) -> Callable[[], Any]:
    """Ask a model directory about an image whose regions are known."""
    import torch

    from coattn.predictor import EncodedImage, Predictor

    torch.set_num_threads(int(num_threads))
    predictor = Predictor.load(folder)
    features, boxes = (torch.from_numpy(array) for array in _regions(num_regions, region_dim))
    image = EncodedImage(features, boxes, (640, 480), None)
    return lambda: predictor.ask(image, question)


def from_export(folder: str, num_threads: str, question: str, num_regions: str, region_dim: str) -> Callable[[], Any]:
    """Ask an exported folder about an image whose regions are known."""
    from coattn.runtime import EncodedImage, Predictor

    predictor = Predictor.load(folder, num_threads=int(num_threads))
    image = EncodedImage(*_regions(num_regions, region_dim), (640, 480), None)
    return lambda: predictor.ask(image, question)


def image_from_export(folder: str, num_threads: str, question: str, photo: str) -> Callable[[], Any]:
    """Ask an exported folder about an image that it has encoded."""
    from coattn.runtime import Predictor

    predictor = Predictor.load(folder, num_threads=int(num_threads))
    image = predictor.encode(photo)
    return lambda: predictor.ask(image, question)


def photo_from_export(folder: str, photo: str) -> Callable[[], Any]:
    """Ask an exported folder about a photo that it has not seen."""
    from coattn.runtime import Predictor

    predictor = Predictor.load(folder, num_threads=1)
    return lambda: predictor.ask(photo, QUESTION)


def photo_from_vilt(words: str, photo: str) -> Callable[[], Any]:
    """Ask ViLT-B/32 with random weights, as the documentation of transformers shows it."""
    import torch
    from PIL import Image
    from transformers import BertTokenizerFast, ViltConfig, ViltForQuestionAnswering, ViltImageProcessor, ViltProcessor

    torch.set_num_threads(1)
    model = ViltForQuestionAnswering(ViltConfig(num_labels=NUM_ANSWERS)).eval()
    processor = ViltProcessor(ViltImageProcessor(), BertTokenizerFast(words))

    def ask() -> int:
        with Image.open(photo) as image, torch.inference_mode():
            inputs = processor(image.convert("RGB"), QUESTION, return_tensors="pt")
            return int(model(**inputs).logits.argmax())

    return ask


def photo_from_blip(words: str, photo: str) -> Callable[[], Any]:
    """Ask BLIP-base with random weights; it writes one word and the end of the answer."""
    import torch
    from PIL import Image
    from transformers import BertTokenizerFast, BlipConfig, BlipForQuestionAnswering, BlipImageProcessor, BlipProcessor

    torch.set_num_threads(1)
    model = BlipForQuestionAnswering(BlipConfig()).eval()
    processor = BlipProcessor(BlipImageProcessor(), BertTokenizerFast(words))

    def ask() -> Any:
        with Image.open(photo) as image, torch.inference_mode():
            inputs = processor(image.convert("RGB"), QUESTION, return_tensors="pt")
            return model.generate(**inputs, min_new_tokens=2, max_new_tokens=2)

    return ask


_EXTERNAL = {"name": "external", "settings": {}, "weights": None, "versions": {}}


def _presets() -> Any:
    """The module of named models in the imported build; drawing weights begins anew."""
    import torch

    torch.manual_seed(0)
    return importlib.import_module("coattn.models" if importlib.util.find_spec("coattn.models") else "coattn.presets")


def _save(
    folder: str, model: Any, *, num_words: int = NUM_WORDS, num_answers: int = NUM_ANSWERS, **settings: Any
) -> None:
    """Write a model directory whose words are w0, w1, ... and whose answers are a0, a1, ..."""
    if importlib.util.find_spec("coattn.serialization"):
        from coattn.serialization.directory import save_model
    else:  # a build before 0.1.0
        from coattn.checkpoint.directory import save_model
    from coattn.text.vocabulary import AnswerVocabulary, Vocabulary

    save_model(
        folder,
        model,
        answer_vocabulary=AnswerVocabulary([f"a{number}" for number in range(num_answers)]),
        question_vocabulary=Vocabulary([f"w{number}" for number in range(num_words - 2)]),
        metric="vqa_accuracy",
        activation="sigmoid",
        **settings,
    )


def _regions(num_regions: str, region_dim: str) -> tuple[np.ndarray, np.ndarray]:
    """Random features (R, D) and boxes (R, 4)."""
    rng = np.random.default_rng(0)
    boxes = np.tile(np.array([0.1, 0.2, 0.6, 0.8], np.float32), (int(num_regions), 1))
    return rng.standard_normal((int(num_regions), int(region_dim)), np.float32), boxes


MAKERS: dict[str, Callable[..., None]] = {"make": make, "make_easy": make_easy, "make_photo": make_photo}
KINDS: dict[str, Callable[..., Callable[[], Any]]] = {
    "model": from_model,
    "export": from_export,
    "image": image_from_export,
    "photo": photo_from_export,
    "vilt": photo_from_vilt,
    "blip": photo_from_blip,
}


def main() -> None:
    kind, *arguments = sys.argv[1:]
    warnings.simplefilter("ignore")
    if kind in MAKERS:
        MAKERS[kind](*arguments)
        return
    ask = KINDS[kind](*arguments)
    ask()
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            ask()
        print((time.perf_counter() - start) / int(line), flush=True)


if __name__ == "__main__":
    main()
