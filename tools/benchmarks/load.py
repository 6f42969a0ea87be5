"""A load on an HTTP server: clients that each send their next request when the last one is answered.

python -P load.py PORT PATH CLIENTS REQUESTS    prints rate, latencies and what was lost as JSON
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import statistics
import sys
import time
from typing import Any

import numpy as np
from PIL import Image

QUESTIONS = (
    "what is the red shape?",
    "what is the color of the triangle?",
    "is there a blue circle?",
    "does the image contain a rectangle?",
    "what shape is in the image?",
)
NUM_IMAGES = 16


def request(path: str, value: Any) -> bytes:
    """The bytes of a POST of JSON."""
    body = json.dumps(value).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n".encode() + body


async def respond(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The status and the body of the next response."""
    head = await reader.readuntil(b"\r\n\r\n")
    start = head.lower().index(b"content-length:") + 15
    return int(head.split(maxsplit=2)[1]), await reader.readexactly(int(head[start : head.index(b"\r\n", start)]))


async def run(port: int, path: str, clients: int, requests: int) -> dict[str, Any]:
    """Send images once, then questions about them from all clients."""
    rng = np.random.default_rng(0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    ids = []
    for _ in range(NUM_IMAGES):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(file, format="PNG")
        image = base64.b64encode(file.getvalue()).decode()
        writer.write(request(path, {"image": image, "questions": [QUESTIONS[0]]}))
        status, body = await respond(reader)
        if status != 200:
            raise RuntimeError(f"status {status}: {body[:200]!r}")
        ids.append(json.loads(body)["image_id"])
    writer.close()
    asked = [request(path, {"image_id": name, "questions": [text]}) for name in ids for text in QUESTIONS]
    latencies: list[float] = []
    lost = 0
    left = iter(range(requests))

    async def client() -> None:
        nonlocal lost
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in left:
            start = time.perf_counter()
            writer.write(asked[number % len(asked)])
            status, body = await respond(reader)
            if status == 200 and b'"answers":[{' in body:
                latencies.append(time.perf_counter() - start)
            else:
                lost += 1
        writer.close()

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    elapsed = time.perf_counter() - start
    cuts = statistics.quantiles(latencies, n=100)
    return {
        "requests/s": requests / elapsed,
        "p50 ms": 1000 * cuts[49],
        "p99 ms": 1000 * cuts[98],
        "lost": lost,
    }


if __name__ == "__main__":
    port, path, clients, requests = sys.argv[1:]
    print(json.dumps(asyncio.run(run(int(port), path, int(clients), int(requests)))))
