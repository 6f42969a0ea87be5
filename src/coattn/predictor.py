"""Ask a trained model: an image and a question in, ranked answers with confidences out, and what it looked at."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from coattn._internal.files import require
from coattn.explain.maps import Answer, Explanation, Head
from coattn.features.extract.extractors.base import Extractor
from coattn.features.extract.extractors.build import build_extractor
from coattn.features.extract.images import ImageSource, load_image
from coattn.features.store.reader import FeatureStore, require_same_extractor, same_extractor
from coattn.metrics.calibration import confidences, log_odds
from coattn.nn import GeneratorOutput, VQAGenerator, VQAOutput
from coattn.nn.layers import lengths_to_mask
from coattn.nn.maps import parse
from coattn.serialization.directory import ModelDirectory, load_directory
from coattn.text.answer_words import AnswerWords
from coattn.text.tokenizer import tokenize
from coattn.text.vocabulary import UNK, Vocabulary

if TYPE_CHECKING:
    from coattn.text.pretrained import TextEncoder


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """An image as a model sees it, ready for any number of questions.

    Attributes:
        features: (R, D) float32; those of `Predictor.encode` are on its device, uploaded once for all questions.
        boxes: (R, 4) float32, x1 y1 x2 y2 in [0, 1] of the image.
        size: width and height of the image in pixels.
        image: the image itself, or None when only its features were in a store.
    """

    features: Tensor
    boxes: Tensor
    size: tuple[int, int]
    image: Image.Image | None


# What may be asked about: an encoded image, or whatever `Predictor.encode` takes.
AnyImage = EncodedImage | ImageSource | int


class Predictor:
    """A model with all that stands before and after it: extractor, vocabularies, calibration.

    It keeps no image and no question: each answer depends on the arguments of its call alone.

    Args:
        directory: the model.
        device: where the model runs; "auto" takes an accelerator where there is one.
        features: a feature store or its path; its ids then name the images that `encode` is given as text.
        allow_other_features: take features of another extractor than the model was trained on, with a warning.

    Raises:
        ValueError: the device is not there, or the store's features are not those that the model was trained on.
    """

    def __init__(
        self,
        directory: ModelDirectory,
        *,
        device: str = "cpu",
        features: FeatureStore | str | os.PathLike[str] | None = None,
        allow_other_features: bool = False,
    ) -> None:
        self.directory = directory
        self.device = find_device(device)
        self.model = directory.model.to(self.device)
        self.allow_other_features = allow_other_features
        self.features = None if features is None else self._checked(features)

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        *,
        device: str = "cpu",
        features: FeatureStore | str | os.PathLike[str] | None = None,
        allow_other_features: bool = False,
    ) -> Self:
        """Read a model directory.

        Raises:
            FileNotFoundError: the directory, one of its files, or the store is not there.
            ValueError: the directory or the store is damaged; or as the class says.
        """
        directory = load_directory(folder)
        return cls(directory, device=device, features=features, allow_other_features=allow_other_features)

    def encode(
        self,
        image: ImageSource | int,
        *,
        features: FeatureStore | str | os.PathLike[str] | None = None,
        picture: ImageSource | None = None,
    ) -> EncodedImage:
        """Turn an image into region features, once for all questions about it.

        Args:
            image: the path of an image file, its bytes, a PIL image, or an array (height, width, 3) uint8; with a
                feature store an id of it, text or number (a file is then a `pathlib.Path`).
            features: a feature store or its path, for this call in place of the predictor's own.
            picture: the image that belongs to an id, to show it.

        Raises:
            ValueError: no readable image, no such id, or features of another extractor or width.
            OSError: the file cannot be read.
        """
        store = self.features if features is None else self._checked(features)
        if isinstance(image, int) or (isinstance(image, str) and store is not None):
            if store is None:
                raise ValueError(f"{image} is the id of an image: give the feature store that has it")
            rows = store.read(store.index(image))
            width, height = rows.size.tolist()
            shown = None if picture is None else load_image(picture)
            return self._image(rows.features, rows.boxes, (width, height), shown)
        shown = load_image(image)
        regions = self.extractor([shown])[0]
        return self._image(regions.features, regions.boxes, shown.size, shown)

    def ask(self, image: AnyImage, question: str, *, top_k: int = 5) -> list[Answer]:
        """Answer one question about one image.

        Args:
            image: an encoded image, or whatever `encode` takes.
            question: in plain words. Longer ones than in training are cut, with a warning; one without any known word
                is answered, with a warning.
            top_k: number of answers. A model that writes them searches with as many beams, or its own number if that is
                more.

        Returns:
            The `top_k` best answers, best first (fewer if the model knows fewer).

        Raises:
            ValueError: an empty question, `top_k` below 1, or as `encode` says.
        """
        return self.ask_many([(image, question)], top_k=top_k)[0]

    def ask_many(
        self, questions: Sequence[tuple[AnyImage, str]], *, top_k: int = 5, batch_size: int = 64
    ) -> list[list[Answer]]:
        """Answer many questions, `batch_size` at a time; see `ask`.

        Args:
            questions: pairs of an image and a question. Encode an image that comes up again beforehand, once.
            top_k: number of answers to each.
            batch_size: bounds the memory; changes answers by rounding only.
        """
        answers: list[list[Answer]] = []
        for start in range(0, len(questions), batch_size):
            batch = questions[start : start + batch_size]
            images = [self._encoded(image) for image, _ in batch]
            output = self._run(images, [question for _, question in batch], top_k=top_k)
            answers += [self._ranked(output, row, top_k) for row in range(len(batch))]
        return answers

    def maps(self, image: AnyImage, question: str, *, top_k: int = 5) -> Explanation:
        """Answer one question and keep every attention map, with the words and boxes that belong to it; see `ask`."""
        encoded = self._encoded(image)
        output = self._run([encoded], [question], top_k=top_k, need_weights=True)
        written = self._written(output, 0)
        return Explanation(
            question=question,
            tokens=self._tokens(question),
            boxes=encoded.boxes.numpy(),
            image=encoded.image,
            size=encoded.size,
            maps={
                name: (weights[0, :, : len(written)] if parse(name).rows == "answer" else weights[0])
                .float()
                .cpu()
                .numpy()
                for name, weights in output.maps.items()
            },
            answers=tuple(self._ranked(output, 0, top_k)),
            written=tuple(written),
        )

    def explain(
        self,
        image: AnyImage,
        question: str,
        *,
        map: str | None = None,
        head: Head = None,
        word: int | str | None = None,
        region: int | None = None,
        top_k: int = 5,
    ) -> Image.Image:
        """A picture of where the model looked, and what it answers; needs the extra `plot`.

        Args:
            image: see `ask`.
            question: see `ask`.
            map: the name of one map of `maps`; `coattn.explain.default_map` of the regions when None.
            head: which head of it, or "mean"; needed where there are several.
            word: show the attention of this word, by text or place; of the answer, in a decoder's map.
            region: show the attention of this region, by number.
            top_k: number of answers.

        Raises:
            ValueError: as `ask`; or no such map, head, word or region, or one of them must be named.
            ModuleNotFoundError: matplotlib is not installed.
        """
        require("matplotlib", "plot")
        from coattn.visualization.attention import draw

        return draw(self.maps(image, question, top_k=top_k), map=map, head=head, word=word, region=region)

    @cached_property
    def extractor(self) -> Extractor:
        """The image extractor that the model was trained with."""
        weights = self.directory.extractor_weights
        return build_extractor(self.directory.extractor, weights=weights, device=str(self.device))

    @cached_property
    def text_encoder(self) -> TextEncoder | None:
        """The frozen text encoder that the model was trained on; None for a model that reads token ids."""
        wanted = self.directory.text_encoder
        if wanted is None or self.directory.question_vocabulary is not None:
            return None
        from coattn.text.pretrained import TextEncoder

        source = self.directory.text_encoder_folder or wanted["weights"]["id"]
        encoder = TextEncoder.load(source, max_tokens=wanted["settings"]["max_tokens"])
        if not same_extractor(wanted, encoder.record):
            raise ValueError(f"{source}: not the text encoder that {self.directory.folder} was trained with")
        return encoder

    def _checked(self, features: FeatureStore | str | os.PathLike[str]) -> FeatureStore:
        """The store, if its features are those that the model was trained on."""
        store = features if isinstance(features, FeatureStore) else FeatureStore(features)
        wanted_by = str(self.directory.folder)
        width = self.model.region_encoder.region_dim
        if store.dim != width:
            raise ValueError(f"{store.path}: features of width {store.dim}, but {wanted_by} reads width {width}")
        try:
            require_same_extractor(
                self.directory.extractor, store.record, wanted_by=wanted_by, found_in=str(store.path)
            )
        except ValueError as error:
            if not self.allow_other_features:
                raise ValueError(f"{error}, or let --allow-other-features only warn") from None
            _warn(str(error))
        return store

    def _image(
        self, features: np.ndarray, boxes: np.ndarray, size: tuple[int, int], image: Image.Image | None
    ) -> EncodedImage:
        return EncodedImage(torch.from_numpy(features).to(self.device), torch.from_numpy(boxes), size, image)

    def _encoded(self, image: AnyImage) -> EncodedImage:
        return image if isinstance(image, EncodedImage) else self.encode(image)

    def _run(
        self, images: Sequence[EncodedImage], questions: Sequence[str], *, top_k: int, need_weights: bool = False
    ) -> VQAOutput | GeneratorOutput:
        """One forward pass, or search, over pairs of image and question, padded to the longest."""
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        question, question_mask = _padded(self._read(questions))
        regions, region_mask = _padded([image.features.to(self.device) for image in images])
        boxes, _ = _padded([image.boxes for image in images])
        sizes = torch.tensor([image.size for image in images], dtype=torch.float32)
        ask: Callable[..., VQAOutput | GeneratorOutput] = self.model
        if isinstance(self.model, VQAGenerator):
            ask = partial(self.model.generate, num_beams=max(top_k, self.model.num_beams))
        with torch.inference_mode():
            return ask(
                question.to(self.device),
                regions,
                question_mask=question_mask.to(self.device),
                region_mask=region_mask.to(self.device),
                boxes=boxes.to(self.device),
                image_sizes=sizes.to(self.device),
                need_weights=need_weights,
            )

    def _read(self, questions: Sequence[str]) -> list[Tensor]:
        """Questions to token ids (T,) or token embeddings (T, E)."""
        for question in questions:
            if not isinstance(question, str):
                raise ValueError(f"a question is text, got {question!r}")
            if not tokenize(question):
                raise ValueError(f"the question {question!r} has no word in it")
        return self._token_ids(questions) if self.text_encoder is None else self._embedded(questions, self.text_encoder)

    def _token_ids(self, questions: Sequence[str]) -> list[Tensor]:
        vocabulary, limit = self.directory.question_vocabulary, self.directory.max_tokens
        assert vocabulary is not None
        rows = []
        for question in questions:
            ids = vocabulary.encode(question)
            if limit is not None and len(ids) > limit:
                unit = "words" if isinstance(vocabulary, Vocabulary) else "tokens"
                _warn(f"question of {len(ids)} {unit} cut to {limit}, as in training: {question!r}")
                ids = vocabulary.encode(question, max_tokens=limit)
            if isinstance(vocabulary, Vocabulary) and set(ids) == {UNK}:
                _warn(f"the model knows no word of the question {question!r}")
            rows.append(torch.tensor(ids))
        return rows

    def _embedded(self, questions: Sequence[str], encoder: TextEncoder) -> list[Tensor]:
        rows = encoder.encode(questions)
        for question, row in zip(questions, rows, strict=True):
            if len(row) == encoder.max_tokens:
                _warn(f"question cut to {len(row)} tokens, or just as long: {question!r}")
        return rows

    def _tokens(self, question: str) -> tuple[str, ...]:
        if self.text_encoder is not None:
            return tuple(self.text_encoder.tokens(question))
        assert self.directory.question_vocabulary is not None
        return tuple(self.directory.question_vocabulary.tokens(question, max_tokens=self.directory.max_tokens))

    def _ranked(self, output: VQAOutput | GeneratorOutput, row: int, top_k: int) -> list[Answer]:
        """The best answers to one question; equal ones in the order of the vocabulary."""
        if isinstance(output, GeneratorOutput):
            found = output.scores[row] > -torch.inf
            logits, answers = log_odds(output.scores[row, found].float()), output.tokens[row, found]
        else:
            logits = output.logits[row].float()
            answers = torch.arange(len(logits), device=logits.device)
        if not len(logits) or not logits.isfinite().all():
            raise ValueError(
                f"{self.directory.folder}: the scores of the answers are not finite; its weights or the image's "
                "features hold NaN or infinite values"
            )
        best = logits.argsort(descending=True, stable=True)[:top_k]  # of the logits: confidences may round to equal
        shares = confidences(logits, self.directory.temperature, self.directory.activation)[best]
        vocabulary = self.directory.answer_vocabulary
        texts = map(vocabulary.as_typed, vocabulary.texts(answers[best].tolist()))
        return [Answer(text, share) for text, share in zip(texts, shares.tolist(), strict=True)]

    def _written(self, output: VQAOutput | GeneratorOutput, row: int) -> list[str]:
        """The words of the best answer to one question; none if it was chosen, not written."""
        vocabulary = self.directory.answer_vocabulary
        if not isinstance(output, GeneratorOutput) or not isinstance(vocabulary, AnswerWords):
            return []
        return vocabulary.decode(output.tokens[row, 0].tolist())


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=2)


def _padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows (n, ...) of various n -> (B, N, ...) with zeros at padding, and the mask (B, N), True = real.

    A single row is not copied.
    """
    if len(rows) == 1 and len(rows[0]):
        return rows[0][None], torch.ones(1, len(rows[0]), dtype=torch.bool)
    lengths = torch.tensor([len(row) for row in rows])
    mask = lengths_to_mask(lengths, max(int(lengths.max()), 1))
    padded = rows[0].new_zeros((*mask.shape, *rows[0].shape[1:]))
    padded[mask] = torch.cat(list(rows))
    return padded, mask


def find_device(name: str) -> torch.device:
    """The device of that name; "auto" is an accelerator where there is one.

    Raises:
        ValueError: it is not there.
    """
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"the device {name!r} is not there: {str(error).splitlines()[0]}") from None
