"""One model behind a front end: images by content, questions in batches, explanations on request."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hashlib
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from coattn.explain.answers import Answers
from coattn.features.extract.images import FORMATS

from .batcher import Batcher
from .cache import ImageCache
from .schema import (
    AskedQuestion,
    AskRequest,
    AskResponse,
    Explained,
    MapChoice,
    RegionValue,
    WordValue,
    asked_question,
)

SHOWN_SIDE = 1024  # pixels of the longer side of a kept image, which explanations are drawn on


class Job(NamedTuple):
    """A question about an encoded image."""

    image: Any
    question: str
    top_k: int
    max_risk: float | None


class UnknownImageError(Exception):
    """An image id that the cache does not hold (any more)."""


class ServedModel:
    """A predictor with its image cache and its batches.

    Args:
        name: the name of the model in requests.
        predictor: the result of `load_predictor`.
        max_pixels: the most pixels of an image.
        max_batch, max_waiting, observe: see `Batcher`.
    """

    def __init__(
        self,
        name: str,
        predictor: Any,
        *,
        max_pixels: int,
        max_batch: int,
        max_waiting: int,
        observe: Callable[[int], object] = lambda size: None,
    ) -> None:
        self.name, self.max_pixels = name, max_pixels
        self.predictor = predictor
        self.cache = ImageCache(_num_bytes)
        self._model_thread = ThreadPoolExecutor(1, thread_name_prefix=f"{name}-model")
        self._image_thread = ThreadPoolExecutor(1, thread_name_prefix=f"{name}-images")
        self._encoding: dict[str, asyncio.Future[Any]] = {}
        self._batcher: Batcher[Job, Answers] = Batcher(
            self._ask, self._model_thread, max_batch=max_batch, max_waiting=max_waiting, observe=observe
        )

    @property
    def explains(self) -> bool:
        """Whether it can explain its answers; an exported model cannot."""
        return hasattr(self.predictor, "attribute")

    async def answer(self, request: AskRequest) -> AskResponse:
        """Answer a request.

        Raises:
            ValueError: not exactly one image, an unreadable image, or a question without a word.
            UnknownImageError: the image id is not known.
            OverloadedError: too many questions are waiting.
        """
        image_id, image = await self._image(request)
        jobs = [Job(image, question, request.top_k, request.max_risk) for question in request.questions]
        answers = await self._batcher.submit(jobs)
        results = [
            await self._result(image, question, found, request)
            for question, found in zip(request.questions, answers, strict=True)
        ]
        width, height = image.size
        return AskResponse(model=self.name, image_id=image_id, width=width, height=height, results=results)

    async def _image(self, request: AskRequest) -> tuple[str, Any]:
        """The id and the encoded image of a request; an image that is being encoded already is waited for."""
        if (request.image is None) == (request.image_id is None):
            raise ValueError("give exactly one of image and image_id")
        if request.image is None:
            assert request.image_id is not None
            if (image := self.cache.get(request.image_id)) is None:
                raise UnknownImageError(f"there is no image {request.image_id!r}; send the image again")
            return request.image_id, image
        content = request.image
        image_id = hashlib.sha256(content).hexdigest()
        if (image := self.cache.get(image_id)) is not None:
            return image_id, image
        if image_id not in self._encoding:
            loop = asyncio.get_running_loop()
            future = loop.run_in_executor(self._image_thread, self._encode, content)
            self._encoding[image_id] = future
            future.add_done_callback(lambda done: self._encoded(image_id, done))
        return image_id, await asyncio.shield(self._encoding[image_id])

    def _encoded(self, image_id: str, done: asyncio.Future[Any]) -> None:
        del self._encoding[image_id]
        if not done.cancelled() and done.exception() is None:
            self.cache.put(image_id, done.result())

    def _encode(self, content: bytes) -> Any:
        """The encoded image, with a picture of at most `SHOWN_SIDE` pixels to draw explanations on."""
        check_pixels(content, self.max_pixels)
        image = self.predictor.encode(content)
        shown = image.image.copy()
        shown.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
        return dataclasses.replace(image, image=shown)

    def _ask(self, jobs: Sequence[Job]) -> list[Answers]:
        """The answers to a batch. Jobs that share their settings are computed together."""
        answers: dict[int, Answers] = {}
        settings = {(job.top_k, job.max_risk) for job in jobs}
        for top_k, max_risk in settings:
            places = [place for place, job in enumerate(jobs) if (job.top_k, job.max_risk) == (top_k, max_risk)]
            pairs = [(jobs[place].image, jobs[place].question) for place in places]
            risk = {} if max_risk is None else {"max_risk": max_risk}
            found = self.predictor.ask_many(pairs, top_k=top_k, **risk)
            answers |= zip(places, found, strict=True)
        return [answers[place] for place in range(len(jobs))]

    async def _result(self, image: Any, question: str, answers: Answers, request: AskRequest) -> AskedQuestion:
        """A question with its answers, and an explanation if one was asked for."""
        if request.map is None:
            return asked_question(question, answers)
        loop = asyncio.get_running_loop()
        explained = await loop.run_in_executor(self._model_thread, self._explain, image, question, request)
        return asked_question(question, answers, explained)

    def _explain(self, image: Any, question: str, request: AskRequest) -> Explained:
        """The explanation of the best answer by a method, or by an attention map of that name."""
        from coattn.explain.methods import METHODS
        from coattn.nn.maps import parse
        from coattn.visualization.attention import draw

        name = request.map
        assert name is not None
        if not self.explains:
            raise ValueError("an exported model has no explanations; serve the model directory")
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

    def close(self) -> None:
        """End the threads once their work is done."""
        self._model_thread.shutdown()
        self._image_thread.shutdown()


def load_predictor(folder: Path, *, num_threads: int | None = None) -> Any:
    """The predictor of a model directory, or of an exported folder, without importing torch for the latter.

    Args:
        folder: the model directory or exported folder.
        num_threads: threads of a forward pass. If not given, torch takes half of the cores: its waiting threads keep
            their cores busy, which slows down the thread that reads requests. onnxruntime takes all, and sleeps.
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


def _num_bytes(image: Any) -> int:
    """Bytes of an encoded image: features, boxes and the kept picture."""
    width, height = image.image.size
    return image.features.nbytes + image.boxes.nbytes + 3 * width * height


def _png(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()
