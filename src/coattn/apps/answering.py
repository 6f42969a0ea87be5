"""The answers of one model, with the images that it has seen. The server runs this in another process."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from coattn.explain.answers import Answers
from coattn.features.extract.images import FORMATS

from .cache import ImageCache
from .schema import AskRequest, Explained, MapChoice, RegionValue, WordValue

SHOWN_SIDE = 1024  # pixels of the longer side of a kept image, which explanations are drawn on


class Job(NamedTuple):
    """A question about a kept image."""

    image_id: str
    question: str
    top_k: int
    max_risk: float | None


class Answered(NamedTuple):
    """The answers to a question, with the width and height of its image."""

    answers: Answers
    size: tuple[int, int]


class UnknownImageError(ValueError):
    """An image id that the cache does not hold (any more)."""


class AnsweringModel:
    """A predictor with its image cache.

    Args:
        folder: the model directory, or a folder that `coattn export` wrote.
        max_pixels: the most pixels of an image.
        num_threads: see `load_predictor`.

    Raises:
        ValueError, FileNotFoundError: the folder cannot be read.
    """

    def __init__(self, folder: Path, max_pixels: int, num_threads: int | None = None) -> None:
        self.max_pixels = max_pixels
        self.predictor = load_predictor(folder, num_threads=num_threads)
        self.cache = ImageCache(self._num_bytes)

    def explains(self) -> bool:
        """Whether it can explain its answers; an exported model cannot."""
        return hasattr(self.predictor, "attribute")

    def missing(self) -> str:
        """See `Safeguards.missing`."""
        return self.predictor.safeguards.missing

    def encode(self, image_id: str, content: bytes) -> int:
        """Encode an image unless it is kept, with a picture of at most `SHOWN_SIDE` pixels to draw explanations on.

        Returns:
            The number of images that are kept.

        Raises:
            ValueError: not a readable image, or too many pixels.
        """
        if self.cache.get(image_id) is None:
            check_pixels(content, self.max_pixels)
            image = self.predictor.encode(content)
            shown = image.image.copy()
            shown.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
            self.cache.put(image_id, dataclasses.replace(image, image=shown))
        return len(self.cache)

    def ask(self, jobs: Sequence[Job]) -> list[Answered | UnknownImageError]:
        """The answers to a batch. Jobs with the same settings share a pass.

        Returns:
            For each job its answers with the size of the image, or the error of an image that is not kept.

        Raises:
            ValueError: a question without a word.
        """
        outcomes: dict[int, Answered | UnknownImageError] = {}
        images: dict[int, Any] = {}
        for place, job in enumerate(jobs):
            try:
                images[place] = self._kept(job.image_id)
            except UnknownImageError as error:
                outcomes[place] = error
        for top_k, max_risk in {(jobs[place].top_k, jobs[place].max_risk) for place in images}:
            places = [place for place in images if (jobs[place].top_k, jobs[place].max_risk) == (top_k, max_risk)]
            pairs = [(images[place], jobs[place].question) for place in places]
            found = self.predictor.ask_many(pairs, top_k=top_k, max_risk=max_risk)
            for place, answers in zip(places, found, strict=True):
                outcomes[place] = Answered(answers, images[place].size)
        return [outcomes[place] for place in range(len(jobs))]

    def explain(self, image_id: str, question: str, name: str, request: AskRequest) -> Explained:
        """The explanation of the best answer by the method or attention map called `name`.

        Args:
            image_id, question: what was asked.
            name: of the method or map.
            request: names the head, word and region of a map.

        Raises:
            UnknownImageError: the image is not kept.
            ValueError: no such method or map, or the model has no explanations.
        """
        if not self.explains():
            raise ValueError("an exported model has no explanations; serve the model directory")
        from coattn.explain.methods import METHODS
        from coattn.nn.maps import parse
        from coattn.visualization.attention import draw

        image = self._kept(image_id)
        picture: Image.Image | None
        if name in METHODS:
            explanation = self.predictor.attribute(image, question, method=name)
            found = explanation.attribution
            regions, words, signed, uniform = found.regions, found.words, found.signed, None
            picture = draw(explanation)
        else:
            explanation = self.predictor.maps(image, question)
            heads = explanation.maps.get(name, ())
            head = request.head if request.head is not None else "mean" if len(heads) > 1 else None
            word = request.word
            if word is not None and name in explanation.maps and parse(name).rows != "answer":
                if word >= len(explanation.words):
                    raise ValueError(f"the question has the words 0 to {len(explanation.words) - 1}, not {word}")
                word = explanation.words[word].places[0]  # the first of its pieces, where a text encoder splits it
            chosen: dict[str, Any] = {"head": head, "word": word, "region": request.region}
            line = explanation.line(name, **chosen)
            over_regions = line.side == "regions"
            regions = line.weights if over_regions else [0.0] * len(explanation.boxes)
            words = [0.0 if over_regions else line.weights[list(word.places)].sum() for word in explanation.words]
            signed, uniform = False, line.uniform
            picture = draw(explanation, map=name, **chosen) if over_regions else None
        kinds = {map_name: parse(map_name) for map_name in explanation.maps}
        return Explained(
            method=name,
            answer=explanation.answers[0].text if explanation.answers else "",
            signed=signed,
            uniform=uniform,
            written=list(explanation.written),
            regions=[
                RegionValue(box=box, weight=float(weight))
                for box, weight in zip(explanation.boxes.tolist(), regions, strict=True)
            ],
            words=[
                WordValue(word=word.text, weight=float(weight), unknown=not word.known)
                for word, weight in zip(explanation.words, words, strict=True)
            ],
            picture=None if picture is None else _png(picture),
            choices=[
                MapChoice(name=map_name, heads=len(explanation.maps[map_name]), rows=kind.rows, columns=kind.columns)
                for map_name, kind in kinds.items()
            ],
        )

    def _num_bytes(self, image: Any) -> int:
        """Bytes of an encoded image: features and boxes, or all that an exported model reads, and the kept picture."""
        arrays = (image.features, image.boxes) if self.explains() else self.predictor.image_inputs(image).values()
        width, height = image.image.size
        return sum(array.nbytes for array in arrays) + 3 * width * height

    def _kept(self, image_id: str) -> Any:
        if (image := self.cache.get(image_id)) is None:
            raise UnknownImageError(f"there is no image {image_id!r}; send the image again")
        return image


def load_predictor(folder: Path, *, num_threads: int | None = None) -> Any:
    """The predictor of a model directory, or of an exported folder, without importing torch for the latter.

    Args:
        folder: the model directory or exported folder.
        num_threads: threads of a forward pass. If not given, torch takes half of the cores: its waiting threads keep
            their cores busy, which slows down the process that reads requests. onnxruntime takes all, and sleeps.
    """
    from coattn.runtime.folder import CONFIG

    if (folder / CONFIG).is_file():
        from coattn.runtime.predictor import Predictor as ExportedPredictor

        return ExportedPredictor.load(folder, num_threads=num_threads)
    import torch

    from coattn.features.extract.processes import num_cores
    from coattn.predictor import Predictor

    torch.set_num_threads(num_threads or max(1, num_cores() // 2))
    return Predictor.load(folder)


def check_pixels(content: bytes, max_pixels: int) -> None:
    """Raise ValueError for an image of more than `max_pixels` pixels, by its header, before it is decoded."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
    except Image.DecompressionBombError:
        raise ValueError(f"the image has too many pixels; at most {max_pixels:,} are accepted, shrink it") from None
    except Exception:  # not an image: `load_image` says so with the reason
        return
    if width * height > max_pixels:
        raise ValueError(f"the image has {width * height:,} pixels; at most {max_pixels:,} are accepted, shrink it")


def _png(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()
