"""One model behind a front end: its process, questions in batches, explanations on request."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from coattn.explain.answers import Answers

from .answering import Answered, AnsweringModel, Job, UnknownImageError
from .batcher import Batcher
from .process import RemoteObject
from .schema import AskedQuestion, AskRequest, AskResponse, asked_question


class ServedModel:
    """A model that computes in another process, which begins to read it. Call `wait` before anything else.

    Args:
        name: the name of the model in requests.
        folder, max_pixels, num_threads: see `AnsweringModel`.
        max_batch, max_waiting, observe: see `Batcher`.
        max_seconds: see `RemoteObject`.

    Attributes:
        num_images: images that the process keeps.
        explains: see `AnsweringModel.explains`.
        missing: see `Safeguards.missing`.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        max_pixels: int,
        max_batch: int,
        max_waiting: int,
        max_seconds: float,
        num_threads: int | None = None,
        observe: Callable[[int], object] = lambda size: None,
    ) -> None:
        self.name = name
        self.num_images, self.explains, self.missing = 0, False, ""
        self._model = RemoteObject(
            AnsweringModel, folder, max_pixels, num_threads, max_seconds=max_seconds, on_restart=self._forget
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)  # calls the process
        self._encoding = asyncio.Lock()
        self._batcher: Batcher[Job, Answered] = Batcher(
            lambda jobs: self._model.call("ask", jobs),
            self._thread,
            max_batch=max_batch,
            max_waiting=max_waiting,
            observe=observe,
        )

    def wait(self) -> None:
        """Wait until the model is read.

        Raises:
            ValueError, FileNotFoundError: the folder cannot be read.
        """
        self.explains = self._model.call("explains")
        self.missing = self._model.call("missing")

    async def answer(self, request: AskRequest) -> AskResponse:
        """Answer a request.

        Raises:
            ValueError: not exactly one image, an unreadable image, or a question without a word.
            UnknownImageError: the image id is not known.
            OverloadedError: too many questions are waiting.
            ProcessLostError: the process of the model ended.
        """
        if (request.image is None) == (request.image_id is None):
            raise ValueError("give exactly one of image and image_id")
        if request.image is None:
            assert request.image_id is not None
            return await self._answer_kept(request.image_id, request)
        image_id = hashlib.sha256(request.image).hexdigest()
        try:
            return await self._answer_kept(image_id, request)
        except UnknownImageError:  # only now the process needs the image
            async with self._encoding:  # one at a time, so that questions about other images are answered in between
                self.num_images = await self._call("encode", image_id, request.image)
        return await self._answer_kept(image_id, request)

    async def _answer_kept(self, image_id: str, request: AskRequest) -> AskResponse:
        """Answer a request about an image that the process may keep."""
        jobs = [Job(image_id, question, request.top_k, request.max_risk) for question in request.questions]
        found = await self._batcher.submit(jobs)
        results = [
            await self._result(image_id, question, answered.answers, request)
            for question, answered in zip(request.questions, found, strict=True)
        ]
        width, height = found[0].size
        return AskResponse(model=self.name, image_id=image_id, width=width, height=height, results=results)

    async def _result(self, image_id: str, question: str, answers: Answers, request: AskRequest) -> AskedQuestion:
        """A question with its answers, and an explanation if one was asked for."""
        if request.map is None:
            return asked_question(question, answers)
        settings = msgspec.structs.replace(request, image=None)
        explained = await self._call("explain", image_id, question, request.map, settings)
        return asked_question(question, answers, explained)

    def _forget(self) -> None:
        self.num_images = 0  # a new process keeps none

    async def _call(self, method: str, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._model.call, method, *arguments)

    def close(self) -> None:
        """End the process after the call that it works on; see `RemoteObject.close`."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._model.close()


def close_all(models: Collection[ServedModel]) -> None:
    """Close models at the same time: one that is stuck takes some seconds."""
    with ThreadPoolExecutor(max(1, len(models))) as threads:
        list(threads.map(lambda model: model.close(), models))
