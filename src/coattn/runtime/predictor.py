"""Ask an exported model, with the interface of `coattn.Predictor`.

Letters: B batch, T question tokens, R regions, D width of a feature, A answers.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakKeyDictionary

import numpy as np
from PIL import Image

from coattn._internal.files import require
from coattn.explain.abstain import Safeguards, check_max_risk
from coattn.explain.answers import Answer, Answers
from coattn.features.extract.extractors.descriptor import Descriptor
from coattn.features.extract.extractors.objects import Objects
from coattn.features.extract.extractors.patches import Patches
from coattn.features.extract.images import ImageSource, load_image

from .beam import NEVER
from .folder import DECODER, EXTRACTOR, IMAGE_SIDE, MODEL, TEXT_ENCODER, ExportedFolder, read_folder
from .generator import Generator
from .inputs import INPUTS, check_inputs, image_inputs, mask, padded
from .text import QuestionTokenizer

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

# Extractors that compute with numpy alone.
_PLAIN: dict[str, Any] = {"descriptor": Descriptor, "objects": Objects, "patches": Patches}


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """An image as the model sees it, ready for any number of questions.

    Attributes:
        features: (R, D) float32.
        boxes: (R, 4) float32, x1 y1 x2 y2 in [0, 1] of the image.
        size: width and height of the image in pixels.
        image: the image itself, or None.
    """

    features: np.ndarray
    boxes: np.ndarray
    size: tuple[int, int]
    image: Image.Image | None

    @property
    def array(self) -> np.ndarray:
        """The features."""
        return self.features


class Predictor:
    """An exported model with everything that turns an image and a question into answers.

    Args:
        folder: the exported folder, as read by `read_folder`.
        num_threads: threads of a single forward pass; the number of cores if not given.

    Raises:
        ModuleNotFoundError: onnxruntime is not installed.
        ValueError: an ONNX file is damaged, or of another model than the others.
    """

    def __init__(self, folder: ExportedFolder, *, num_threads: int | None = None) -> None:
        self.folder, self.num_threads = folder, num_threads
        self._session = self._open(MODEL)
        self._inputs = {value.name for value in self._session.get_inputs()}
        self._image_side = None if self._inputs.issubset(INPUTS) else self._open(IMAGE_SIDE)
        sides = [] if self._image_side is None else [self._image_side]
        for side in sides:
            check_inputs(folder.folder / IMAGE_SIDE, side, INPUTS)
        check_inputs(folder.folder / MODEL, self._session, INPUTS, *sides)
        self._generator = None
        if folder.config["search"] is not None:
            decoder = self._open(DECODER)
            check_inputs(folder.folder / DECODER, decoder, (*INPUTS, "word"), self._session, *sides)
            self._generator = Generator(self._session, decoder)
        elif [value.shape[1:] for value in self._session.get_outputs() if value.name == "logits"] != [
            [len(folder.answers)]
        ]:
            raise ValueError(
                f"{folder.folder / MODEL}: has no logits of {len(folder.answers)} answers; it is of another model: "
                "export again"
            )
        self._text_encoder = self._open(TEXT_ENCODER) if TEXT_ENCODER in folder.config["sha256"] else None
        self._known: WeakKeyDictionary[EncodedImage, dict[str, np.ndarray]] = WeakKeyDictionary()

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, num_threads: int | None = None) -> Self:
        """Read an exported folder; raises as `read_folder` and the class do."""
        return cls(read_folder(Path(folder)), num_threads=num_threads)

    def encode(self, image: ImageSource) -> EncodedImage:
        """Turn an image into region features, once for all questions about it.

        Args:
            image: the path of an image file, its bytes, a PIL image, or an array (height, width, 3) uint8.

        Raises:
            ValueError: not a readable image, or the extractor is not part of the export.
            OSError: the file cannot be read.
        """
        shown = load_image(image)
        features, boxes = self._extract(shown)
        return EncodedImage(features, boxes, shown.size, shown)

    def ask(
        self,
        image: EncodedImage | ImageSource,
        question: str,
        *,
        top_k: int = 5,
        max_risk: float | None = None,
        answer_anyway: bool = False,
    ) -> Answers:
        """The `top_k` best answers to one question about one image, best first; see `coattn.Predictor.ask`."""
        return self.ask_many([(image, question)], top_k=top_k, max_risk=max_risk, answer_anyway=answer_anyway)[0]

    def ask_many(
        self,
        questions: Sequence[tuple[EncodedImage | ImageSource, str]],
        *,
        top_k: int = 5,
        max_risk: float | None = None,
        answer_anyway: bool = False,
        batch_size: int = 64,
    ) -> list[Answers]:
        """Answer many questions, `batch_size` at a time; see `ask`.

        Raises:
            ValueError: a question without a word, `top_k` below 1, `max_risk` outside (0, 1), or scores that are not
                finite.
        """
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        check_max_risk(max_risk, answer_anyway)
        if self.folder.config["precision"] == "int8":
            batch_size = 1  # a batch shares the scale of its 8-bit activations: questions would change one another
        answers: list[Answers] = []
        for start in range(0, len(questions), batch_size):
            batch = questions[start : start + batch_size]
            images = [image if isinstance(image, EncodedImage) else self.encode(image) for image, _ in batch]
            texts = [question for _, question in batch]
            scored = self._scored(images, self._read(texts), top_k)
            answers += self.safeguards.judged(
                [self._ranked(*row, top_k) for row in scored],
                images,
                texts,
                self.folder.questions,
                max_risk=max_risk,
                answer_anyway=answer_anyway,
            )
        return answers

    def image_inputs(self, image: EncodedImage) -> dict[str, np.ndarray]:
        """The arrays of an image that the model reads, by name; computed once for all questions about it."""
        if image not in self._known:
            values = image_inputs(image.features, image.boxes, image.size, self._image_side)
            self._known[image] = {name: value for name, value in values.items() if name in self._inputs}
        return self._known[image]

    @cached_property
    def safeguards(self) -> Safeguards:
        """The reasons to doubt an answer that the export knows."""
        return Safeguards.load(self.folder.folder)

    def _scored(
        self, images: Sequence[EncodedImage], questions: Sequence[np.ndarray], top_k: int
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each pair of image and question logits (A,), and the answers: numbers (A,), or word ids (A, S)."""
        known = [self.image_inputs(image) for image in images]
        values = {name: padded([one[name] for one in known]) for name in known[0]} | {
            "question": padded(questions),
            "question_mask": mask([len(question) for question in questions]),
            "region_mask": mask([len(image.features) for image in images]),
        }
        if self._generator is not None:
            search = self.folder.config["search"]
            found = self._generator.search(values, **search | {"num_beams": max(top_k, search["num_beams"])})
            rows = zip(found.tokens, found.scores, found.scores > NEVER, strict=True)
            return [(_log_odds(scores[real]), tokens[real]) for tokens, scores, real in rows]
        logits = self._session.run(["logits"], {name: values[name] for name in self._inputs})[0]
        numbers = np.arange(logits.shape[1])
        return [(row, numbers) for row in logits]

    def _read(self, questions: Sequence[str]) -> list[np.ndarray]:
        """Each question as token ids (T,), or as the rows (T, E) of a frozen text encoder."""
        ids = [self._token_ids(question) for question in questions]
        if self._text_encoder is None:
            return ids
        batch = {"question": padded(ids), "question_mask": mask([len(one) for one in ids])}
        rows = self._text_encoder.run(None, batch)[0]
        return [row[: len(one)] for row, one in zip(rows, ids, strict=True)]

    def _token_ids(self, question: str) -> np.ndarray:
        """Ids (T,) of a question, cut to the length of training."""
        vocabulary, limit = self.folder.questions, self.folder.config["max_tokens"]
        if not isinstance(question, str) or not (ids := vocabulary.encode(question)):
            raise ValueError(f"the question {question!r} has no word in it")
        if isinstance(vocabulary, QuestionTokenizer):
            if vocabulary.is_cut(question):
                _warn(f"question cut to {len(ids)} tokens, as in training: {question!r}")
        elif limit is not None and len(ids) > limit:
            _warn(f"question of {len(ids)} words cut to {limit}, as in training: {question!r}")
            ids = ids[:limit]
        return np.array(ids, np.int64)

    def _ranked(self, logits: np.ndarray, answers: np.ndarray, top_k: int) -> list[Answer]:
        """The best of the answers to one question, by their logits (A,); equal ones in the given order."""
        order = np.argsort(-logits, kind="stable")  # NaN last
        if not len(order) or not (math.isfinite(logits[order[0]]) and math.isfinite(logits[order[-1]])):
            raise ValueError(f"{self.folder.folder}: the scores of the answers are not finite; export the model again")
        best = order[:top_k]
        shares = _confidences(logits, best, self.folder.config["temperature"], self.folder.config["activation"])
        vocabulary = self.folder.answers
        texts = map(vocabulary.as_typed, vocabulary.texts(answers[best].tolist()))
        return [Answer(text, share) for text, share in zip(texts, shares, strict=True)]

    def _extract(self, image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
        """Features (R, D) and boxes (R, 4) of an RGB image."""
        record, grid = self.folder.config["extractor"], self.folder.config["grid"]
        if record["name"] in _PLAIN:
            found = self._plain([image])[0]
            return found.features, found.boxes
        if grid is None:
            raise ValueError(
                f"the image extractor {record['name']!r} is not part of the export; give the features of the image"
            )
        height, width = grid["size"]
        pixels = np.asarray(image.resize((width, height), Image.Resampling[grid["resample"].upper()]))
        features = self._network.run(None, {"pixels": pixels[None]})[0][0]
        return features, np.array(grid["boxes"], np.float32)

    @cached_property
    def _plain(self) -> Any:
        record = self.folder.config["extractor"]
        try:
            return _PLAIN[record["name"]](**record["settings"])
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"{self.folder.folder}: wrong settings of the image extractor ({error})") from None

    @cached_property
    def _network(self) -> InferenceSession:
        return self._open(EXTRACTOR)

    def _open(self, name: str) -> InferenceSession:
        runtime = require("onnxruntime", "runtime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = self.num_threads or 0
        options.log_severity_level = 3
        # Waiting threads sleep instead of spinning, so that a core that another program uses does not slow down a pass.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # From bytes: an ONNX file cannot then refer to other files.
        content = self.folder.graph(name)
        try:
            return runtime.InferenceSession(
                content,
                options,
                providers=["CPUExecutionProvider"],
                # The fused kernel takes longer than an addition and a layer norm: 8 % of a pass of MCAN-small.
                disabled_optimizers=["SkipLayerNormFusion"],
            )
        except Exception as error:  # onnxruntime has no common base class of its errors
            reason = str(error).rpartition(" : ")[2]  # after the number and name of the error
            raise ValueError(f"{self.folder.folder / name}: onnxruntime cannot read it ({reason})") from None


def _confidences(logits: np.ndarray, best: np.ndarray, temperature: float, activation: str) -> list[float]:
    """`coattn.metrics.calibration.confidences` of the `best` answers (K,) of a row (A,), best first, in numpy."""
    if activation == "sigmoid":  # of a few numbers, which Python computes faster
        return [1 / (1 + math.exp(min(-logit / temperature, 700))) for logit in logits[best].tolist()]
    scaled = logits.astype(np.float64) / temperature
    weights = np.exp(scaled - scaled[best[0]])
    return (weights[best] / weights.sum()).tolist()


def _log_odds(log_probs: np.ndarray) -> np.ndarray:
    """`coattn.metrics.calibration.log_odds`, in numpy."""
    log_probs = np.minimum(log_probs, np.float32(-1e-7))
    return log_probs - np.log(-np.expm1(log_probs))


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=2)
