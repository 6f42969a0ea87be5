"""Ask a trained model questions about images, and explain its answers."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from PIL import Image

from coattn._internal.tensors import find_device, padded
from coattn.explain.ablation import Ablation
from coattn.explain.abstain import Safeguards, check_max_risk
from coattn.explain.answers import Answers
from coattn.explain.attribution import attribute, find_method
from coattn.explain.faithful import read_scores
from coattn.explain.maps import Explanation, Head
from coattn.explain.ranking import best_answer, ranked_answers
from coattn.features.encoded import EncodedImage, image_sizes
from coattn.features.extract.extractors.base import Extractor, reading_of
from coattn.features.extract.extractors.build import build_extractor
from coattn.features.extract.images import ImageSource, load_image
from coattn.features.store.provenance import require_same_extractor, same_extractor
from coattn.nn import GeneratorOutput, VQAGenerator, VQAOutput
from coattn.nn.maps import parse
from coattn.serialization.directory import ModelDirectory, load_directory
from coattn.text.answer_words import AnswerWords
from coattn.text.pretrained_tokenizer import PretrainedTokenizer
from coattn.text.reading import question_words, read_questions
from coattn.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from coattn.features.store.reader import FeatureStore
    from coattn.text.encoders import TextEncoder

# Questions are asked about an encoded image, or about anything that `Predictor.encode` takes.
AnyImage = EncodedImage | ImageSource | int


class Predictor:
    """A model with its image extractor, vocabularies, calibration and safeguards.

    It keeps no image and no question: each answer depends on the arguments of its call alone.

    Args:
        directory: The model directory.
        device: Where the model runs; "auto" is an accelerator if there is one.
        features: A feature store or its path. `encode` then reads text as an id of this store.
        allow_other_features: Accept features of another extractor than in training, with a warning.

    Raises:
        ValueError: There is no such device, or the store's features are not those that the model was trained on.
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
        allow_download: bool = False,
    ) -> Self:
        """Read a model directory.

        Args:
            folder: The model directory, or the name "hf://user/name@revision" of a model on the Hugging Face Hub.
            device: See the class.
            features: See the class.
            allow_other_features: See the class.
            allow_download: Download a model of the Hub that is not on this machine.

        Raises:
            FileNotFoundError: The directory, one of its files, or the store does not exist.
            ValueError: The directory or the store is damaged, or as for the class.
        """
        directory = load_directory(folder, allow_download=allow_download)
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
            image: The path of an image file, its bytes, a PIL image, or an array (height, width, 3) uint8; with a
                feature store an id of it, text or number (a file is then a `pathlib.Path`).
            features: A feature store or its path, for this call in place of the predictor's own.
            picture: The image that belongs to an id, to show it.

        Raises:
            ValueError: No readable image, no such id, or features of another extractor or width.
            OSError: The file cannot be read.
        """
        store = self.features if features is None else self._checked(features)
        if isinstance(image, int) or (isinstance(image, str) and store is not None):
            if store is None:
                raise ValueError(f"{image} is the id of an image: give the feature store that has it")
            rows = store.read(store.index(image))
            width, height = rows.size.tolist()
            shown = None if picture is None else load_image(picture)
            if shown is not None and width and height:
                if abs(shown.width * height / (shown.height * width) - 1) > 0.02:
                    sizes = f"{shown.width} x {shown.height} pixels, the image of id {image!r} {width} x {height}"
                    raise ValueError(f"the picture has {sizes}; give the picture of that image")
            elif shown is not None:  # the store does not know the size
                width, height = shown.size
            boxes = torch.from_numpy(rows.boxes) if store.has_boxes else None
            return EncodedImage(torch.from_numpy(rows.features).to(self.device), boxes, (width, height), shown)
        reading = reading_of(self.extractor)
        shown = load_image(image, window=reading.get("window"))
        regions = self.extractor([load_image(image, **reading) if "at_least" in reading else shown])[0]
        return EncodedImage(
            torch.from_numpy(regions.features).to(self.device), torch.from_numpy(regions.boxes), shown.size, shown
        )

    def ask(
        self,
        image: AnyImage,
        question: str,
        *,
        top_k: int = 5,
        max_risk: float | None = None,
        answer_anyway: bool = False,
    ) -> Answers:
        """Answer one question about one image.

        Args:
            image: An encoded image, or anything that `encode` takes.
            question: The question in plain words. One that is longer than in training is cut, with a warning.
            top_k: Number of answers. A model that writes them searches with as many beams, or its own number if that is
                more.
            max_risk: The share of wrong answers that may be given, for example 0.05. Answers that the model's risk
                certificate does not cover, answers about images unlike those of training, and answers to questions with
                several unknown words, without a known one or longer than those of training are withheld. When None,
                doubts are warnings only.
            answer_anyway: Keep the answers that would be withheld, with the reasons.

        Returns:
            The `top_k` best answers, best first (fewer if the model knows fewer), with the reasons to doubt them; none
            where they are withheld.

        Raises:
            ValueError: An empty question, `top_k` below 1, `max_risk` outside (0, 1), or as `encode` says.
        """
        return self.ask_many([(image, question)], top_k=top_k, max_risk=max_risk, answer_anyway=answer_anyway)[0]

    def ask_many(
        self,
        questions: Sequence[tuple[AnyImage, str]],
        *,
        top_k: int = 5,
        batch_size: int = 64,
        max_risk: float | None = None,
        answer_anyway: bool = False,
    ) -> list[Answers]:
        """Answer many questions, `batch_size` at a time; see `ask`.

        Args:
            questions: Pairs of an image and a question. Encode an image that comes up again beforehand, once.
            top_k: Number of answers to each.
            batch_size: Bounds the memory; changes answers by rounding only.
            max_risk: See `ask`.
            answer_anyway: See `ask`.
        """
        check_max_risk(max_risk, answer_anyway)
        answers: list[Answers] = []
        for start in range(0, len(questions), batch_size):
            batch = questions[start : start + batch_size]
            images = [self._encoded(image) for image, _ in batch]
            texts = [question for _, question in batch]
            output = self._run(images, texts, top_k=top_k)
            answers += self.safeguards.judged(
                ranked_answers(output, self.directory, top_k),
                images,
                texts,
                self._reader,
                max_risk=max_risk,
                answer_anyway=answer_anyway,
            )
        return answers

    def maps(self, image: AnyImage, question: str, *, top_k: int = 5) -> Explanation:
        """Answer one question and keep every attention map, with the words and boxes that belong to it; see `ask`."""
        encoded = self._encoded(image)
        output = self._run([encoded], [question], top_k=top_k, need_weights=True)
        return self._explanation(encoded, question, output, top_k)

    def attribute(self, image: AnyImage, question: str, *, method: str = "dependence", top_k: int = 5) -> Explanation:
        """Answer one question and measure how much each region and word matters for the best answer.

        Args:
            image: See `ask`.
            question: See `ask`.
            method: A name of `coattn.explain.methods.METHODS`, which says what each measures and costs. The default
                shows each region and word alone and leaves each out. Image features are computed once.
            top_k: Number of answers.

        Returns:
            The explanation with its `attribution`, and the attention maps.

        Raises:
            ValueError: As `ask`; no such method, or this model has no attention maps for it.
        """
        find_method(method)
        encoded = self._encoded(image)
        output = self._run([encoded], [question], top_k=top_k, need_weights=True)
        explanation = self._explanation(encoded, question, output, top_k)
        answer, text = best_answer(output, self.directory)
        ablation = Ablation(
            self.model,
            question=read_questions([question], self._reader, self.directory.max_tokens)[0].to(self.device),
            regions=encoded.features.to(self.device),
            boxes=encoded.boxes,
            size=image_sizes([encoded]),
            answer=answer,
            activation=self.directory.activation,
            temperature=self.directory.temperature,
        )
        found = attribute(method, ablation, text, explanation.words, explanation.maps)
        found = found._replace(faithfulness=self.faithfulness.get(method))
        return dataclasses.replace(explanation, attribution=found)

    def explain(
        self,
        image: AnyImage,
        question: str,
        *,
        method: str | None = None,
        map: str | None = None,
        head: Head = None,
        word: int | str | None = None,
        region: int | None = None,
        top_k: int = 5,
    ) -> Image.Image:
        """A picture of what the best answer depends on, or of one attention map.

        Args:
            image: See `ask`.
            question: See `ask`.
            method: See `attribute`; "dependence" when neither it nor a map is named.
            map: The name of one map of `maps`, to show where the answer was read.
            head: Which head of it, or "mean"; needed where there are several.
            word: Show the attention of this word, by text or place; of the answer, in a decoder's map.
            region: Show the attention of this region, by number.
            top_k: Number of answers.

        Raises:
            ValueError: As `attribute`; or no such map, head, word or region, or one of them must be named.
        """
        from coattn.visualization.attention import draw

        if any(choice is not None for choice in (map, head, word, region)):
            if method is not None:
                raise ValueError("name a method, or a map with its head, word or region, not both")
            return draw(self.maps(image, question, top_k=top_k), map=map, head=head, word=word, region=region)
        return draw(self.attribute(image, question, method=method or "dependence", top_k=top_k))

    def _explanation(
        self, encoded: EncodedImage, question: str, output: VQAOutput | GeneratorOutput, top_k: int
    ) -> Explanation:
        """The answers and maps of a pass over one question."""
        written: list[str] = []
        vocabulary = self.directory.answer_vocabulary
        if isinstance(output, GeneratorOutput) and isinstance(vocabulary, AnswerWords):
            written = vocabulary.decode(output.tokens[0, 0].tolist())
        ranked = ranked_answers(output, self.directory, top_k)
        (answers,) = self.safeguards.judged(ranked, [encoded], [question], self._reader)
        tokens, words = question_words(question, self._reader, self.directory.max_tokens)
        return Explanation(
            question=question,
            tokens=tokens,
            boxes=np.zeros((len(encoded.features), 4)) if encoded.boxes is None else encoded.boxes.numpy(),
            image=encoded.image,
            size=encoded.size,
            maps={
                name: (weights[0, :, : len(written)] if parse(name).rows == "answer" else weights[0])
                .float()
                .cpu()
                .numpy()
                for name, weights in output.maps.items()
            },
            answers=answers,
            written=tuple(written),
            words=words,
        )

    @cached_property
    def extractor(self) -> Extractor:
        """The image extractor that the model was trained with."""
        weights = self.directory.extractor_weights
        try:
            return build_extractor(self.directory.extractor, weights=weights, device=str(self.device))
        except ValueError as error:
            raise ValueError(f"{self.directory.folder}: {error}") from None

    @cached_property
    def text_encoder(self) -> TextEncoder | None:
        """The frozen text encoder that the model was trained on; None for a model that reads token ids."""
        wanted = self.directory.text_encoder
        if wanted is None or self.directory.question_vocabulary is not None:
            return None
        from coattn.text.encoders import TextEncoder

        source = self.directory.text_encoder_folder or wanted["weights"]["id"]
        encoder = TextEncoder.load(source, max_tokens=wanted["settings"]["max_tokens"])
        if not same_extractor(wanted, encoder.record):
            raise ValueError(f"{source}: not the text encoder that {self.directory.folder} was trained with")
        return encoder

    def _checked(self, features: FeatureStore | str | os.PathLike[str]) -> FeatureStore:
        """The store, if its features are those that the model was trained on."""
        from coattn.features.store.reader import FeatureStore

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
            warnings.warn(str(error), UserWarning, stacklevel=3)
        return store

    def _encoded(self, image: AnyImage) -> EncodedImage:
        return image if isinstance(image, EncodedImage) else self.encode(image)

    def _run(
        self, images: Sequence[EncodedImage], questions: Sequence[str], *, top_k: int, need_weights: bool = False
    ) -> VQAOutput | GeneratorOutput:
        """One forward pass, or search, over pairs of image and question, padded to the longest."""
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        question, question_mask = padded(read_questions(questions, self._reader, self.directory.max_tokens))
        regions, region_mask = padded([image.features.to(self.device) for image in images])
        known = [image.boxes for image in images if image.boxes is not None]
        boxes = padded(known)[0].to(self.device) if len(known) == len(images) else None
        sizes = image_sizes(images)
        ask: Callable[..., VQAOutput | GeneratorOutput] = self.model
        if isinstance(self.model, VQAGenerator):
            ask = partial(self.model.generate, num_beams=max(top_k, self.model.num_beams))
        with torch.inference_mode():
            return ask(
                question.to(self.device),
                regions,
                question_mask=question_mask.to(self.device),
                region_mask=region_mask.to(self.device),
                boxes=boxes,
                image_sizes=None if sizes is None else sizes.to(self.device),
                need_weights=need_weights,
            )

    @cached_property
    def faithfulness(self) -> dict[str, float]:
        """Points above a random order of each method that `coattn explain-test` measured for this model."""
        return read_scores(self.directory.folder)

    @cached_property
    def safeguards(self) -> Safeguards:
        """The risk certificates and the image index of the model directory."""
        return Safeguards.load(self.directory.folder)

    @property
    def _reader(self) -> Vocabulary | PretrainedTokenizer | TextEncoder:
        """The reader of questions: the model's vocabulary or tokenizer, or its frozen text encoder."""
        reader = self.directory.question_vocabulary or self.text_encoder
        assert reader is not None
        return reader
