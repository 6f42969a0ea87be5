"""A LitServe server of one model with batches of 32 and the same cache of images.

python -P litserve_server.py MODEL PORT
"""

from __future__ import annotations

import base64
import hashlib
import sys
from pathlib import Path
from typing import Any

import litserve

from coattn.apps.answering import load_predictor

BATCH = 32


class AskAPI(litserve.LitAPI):
    """Answers `{"image" or "image_id", "questions": [one question]}` as `coattn serve` does."""

    def __init__(self, folder: Path) -> None:
        super().__init__(max_batch_size=BATCH, batch_timeout=0.001)
        self.folder = folder

    def setup(self, device: str) -> None:
        """Read the model in the worker process."""
        self.predictor = load_predictor(self.folder)
        self.images: dict[str, Any] = {}

    def decode_request(self, request):  # without annotations, which LitServe would read
        """The id and the encoded image, and the question."""
        if "image" in request:
            content = base64.b64decode(request["image"])
            image_id = hashlib.sha256(content).hexdigest()
            if image_id not in self.images:
                self.images[image_id] = self.predictor.encode(content)
        else:
            image_id = request["image_id"]
        return image_id, self.images[image_id], request["questions"][0]

    def batch(self, inputs: list[Any]) -> list[Any]:
        """A list stays a list."""
        return inputs

    def predict(self, inputs: list[tuple[str, Any, str]]) -> list[Any]:
        """Answer a batch."""
        answers = self.predictor.ask_many([(image, question) for _, image, question in inputs])
        return [(*each, found) for each, found in zip(inputs, answers, strict=True)]

    def unbatch(self, output: list[Any]) -> list[Any]:
        """A list stays a list."""
        return output

    def encode_response(self, output: tuple[str, Any, str, Any]) -> dict[str, Any]:
        """The fields of a response of `coattn serve`."""
        image_id, image, question, answers = output
        found = {
            "question": question,
            "answers": [answer._asdict() for answer in answers],
            "withheld": answers.withheld,
        }
        width, height = image.size
        return {"image_id": image_id, "width": width, "height": height, "results": [found]}


if __name__ == "__main__":
    server = litserve.LitServer(AskAPI(Path(sys.argv[1])), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning")
