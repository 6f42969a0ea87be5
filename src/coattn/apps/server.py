"""`coattn serve`: models over HTTP.

    POST /ask, POST /models/NAME/ask     questions about an image: JSON (`schema.AskRequest`), or a multipart form with
                                         the fields image, question (repeated), image_id, top_k, max_risk and map
    GET  /models /health /metrics        names and sizes; Prometheus' text format
    GET  /schema /openapi.json /docs     the contract, as JSON Schema, OpenAPI, and a page

The server opens no URL and no path that a request names. A request has the status 200, or 4xx or 503 with a JSON
message (`schema.Problem`).
"""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from coattn import __version__
from coattn._internal.hints import did_you_mean

from .answering import UnknownImageError
from .batcher import OverloadedError
from .process import ProcessLostError
from .schema import MAX_QUESTIONS, AskRequest, Problem, json_schema, openapi_document
from .served import ServedModel, close_all

_PAGES = Path(__file__).with_name("pages")
# A page runs its own scripts and styles, and talks to this server only.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of a server.

    Attributes:
        body: bytes of a request.
        pixels: pixels of an image.
        waiting: questions that wait for their batch, for each model; more get the status 503.
        requests: requests that are in work at once; more get the status 503.
        seconds: for receiving a request, and again for answering it.
        batch: questions of one pass of a model.
    """

    body: int = 20_000_000
    pixels: int = 40_000_000
    waiting: int = 1024
    requests: int = 256
    seconds: float = 30.0
    batch: int = 64


class RequestError(Exception):
    """A request that cannot be answered, with its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Metrics:
    """Counters in Prometheus' format."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("coattn_requests", "Requests by status.", ["status"], registry=self.registry)
        self.questions = Counter("coattn_questions", "Questions answered.", ["model"], registry=self.registry)
        self.seconds = Histogram("coattn_request_seconds", "Seconds to answer a request.", registry=self.registry)
        sizes = (1, 2, 4, 8, 16, 32, 64)
        self.batches = Histogram(
            "coattn_batch_size", "Questions of a batch.", ["model"], buckets=sizes, registry=self.registry
        )
        self.images = Gauge("coattn_cached_images", "Images in the cache.", ["model"], registry=self.registry)


def make_app(
    folders: Mapping[str, Path],
    *,
    limits: Limits | None = None,
    hosts: tuple[str, ...] = (),
    page: bool = False,
    num_threads: int | None = None,
) -> ASGIApp:
    """The application that serves models, each in a separate process.

    A script that calls this needs `if __name__ == "__main__":` around the call, because the processes import it.

    Args:
        folders: model directories, or folders that `coattn export` wrote, by the name that requests use. A request to
            `/ask` gets the first.
        limits: see `Limits`.
        hosts: accepted values of the Host header besides those of the loopback interface; "*" accepts any.
        page: show the demo page at `/`.
        num_threads: see `load_predictor`.

    Raises:
        ValueError, FileNotFoundError: a folder cannot be read.
    """
    limits, metrics = limits or Limits(), Metrics()
    models: dict[str, ServedModel] = {}
    try:
        for name, folder in folders.items():
            models[name] = ServedModel(
                name,
                folder,
                num_threads=num_threads,
                max_pixels=limits.pixels,
                max_batch=limits.batch,
                max_waiting=limits.waiting,
                max_seconds=10 * limits.seconds,
                observe=metrics.batches.labels(name).observe,
            )
        for model in models.values():  # all read their folders at the same time
            model.wait()
            if model.missing:
                print(f"coattn: note: {model.missing}", file=sys.stderr)
    except BaseException:
        close_all(models.values())
        raise

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        with suppress(asyncio.CancelledError):  # by a second Ctrl-C, which does not wait for the requests in work
            yield
        close_all(models.values())

    endpoints = _Endpoints(models, limits, metrics)
    routes = [
        Route("/ask", endpoints.ask, methods=["POST"]),
        Route("/models/{name}/ask", endpoints.ask, methods=["POST"]),
        Route("/models", endpoints.models),
        Route("/health", endpoints.health),
        Route("/metrics", endpoints.metrics),
        Route("/schema", endpoints.schema),
        Route("/openapi.json", endpoints.openapi),
        Route("/docs", _page("docs.html")),
        *([Route("/", _page("demo.html"))] if page else []),
    ]
    handled = (RequestError, OverloadedError, ProcessLostError, ValueError, ClientDisconnect, 404, 405, Exception)
    handlers: dict[Any, Any] = dict.fromkeys(handled, _problem)
    app = Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan)
    return _counted(_guarded(app, (*_LOOPBACK, *hosts)), metrics)


class _Endpoints:
    """The answers to the requests of the routes."""

    def __init__(self, models: Mapping[str, ServedModel], limits: Limits, metrics: Metrics) -> None:
        self._models, self._limits, self._metrics = models, limits, metrics
        self._working = 0  # requests in work

    async def ask(self, request: Request) -> Response:
        limits = self._limits
        if self._working >= limits.requests:
            raise RequestError(503, f"the server works on {limits.requests} requests already; try again")
        self._working += 1
        try:
            model = self._find_model(request.path_params.get("name"))
            asked = await _within(limits.seconds, _read_request(request, limits), 408, "the request took too long")
            with self._metrics.seconds.time():
                busy = "answering took too long; ask fewer questions at once, or try again"
                found = await _within(limits.seconds, model.answer(asked), 503, busy)
        finally:
            self._working -= 1
        self._metrics.questions.labels(model.name).inc(len(found.results))
        return _json(found)

    async def models(self, request: Request) -> Response:
        listed = [
            {"name": name, "images": model.num_images, "explains": model.explains}
            for name, model in self._models.items()
        ]
        return _json({"models": listed, "version": __version__})

    async def health(self, request: Request) -> Response:
        return _json({"status": "ok", "models": list(self._models)})

    async def metrics(self, request: Request) -> Response:
        for name, model in self._models.items():
            self._metrics.images.labels(name).set(model.num_images)
        return Response(generate_latest(self._metrics.registry), media_type="text/plain; version=0.0.4")

    async def schema(self, request: Request) -> Response:
        return _json(json_schema())

    async def openapi(self, request: Request) -> Response:
        return _json(openapi_document())

    def _find_model(self, name: str | None) -> ServedModel:
        if name is None:
            return next(iter(self._models.values()))
        if name not in self._models:
            raise RequestError(404, f"there is no model {name!r}{did_you_mean(name, list(self._models))}")
        return self._models[name]


def _page(name: str) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint that shows a page."""
    content = (_PAGES / name).read_text(encoding="utf-8")

    async def show(request: Request) -> Response:
        return HTMLResponse(content, headers={"Content-Security-Policy": _POLICY})

    return show


async def _problem(request: Request, error: Exception) -> Response:
    status, message = _status_of(error)
    return _json(Problem(error=message), status)


async def _within(seconds: float, work: Awaitable[Any], status: int, message: str) -> Any:
    """The result of `work`, or a `RequestError` if it takes longer."""
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise RequestError(status, f"{message} (more than {seconds:g} seconds)") from None
    except asyncio.CancelledError:  # by a second Ctrl-C
        raise RequestError(503, "the server has been stopped") from None


async def _read_request(request: Request, limits: Limits) -> AskRequest:
    """The request of a JSON body or a multipart form."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limits.body:
            raise RequestError(413, f"the request is larger than {limits.body:,} bytes; shrink the image")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind == "multipart/form-data":
            return msgspec.convert(await _read_form(request, bytes(body), limits), AskRequest, strict=False)
        if kind in ("application/json", ""):
            return msgspec.json.decode(bytes(body), type=AskRequest)
    except msgspec.ValidationError as error:
        raise RequestError(422, f"{error}") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise RequestError(400, f"the body is not valid JSON: {error}") from None
    except MultiPartException as error:
        raise RequestError(400, f"the body is not a valid form: {error.message}") from None
    raise RequestError(415, f"the content type is {kind!r:.60}; send application/json or multipart/form-data")


async def _read_form(request: Request, body: bytes, limits: Limits) -> dict[str, Any]:
    """The fields of a multipart form, as values of `AskRequest`. Nothing is written to the disk."""

    async def stream() -> AsyncIterator[bytes]:
        yield body

    parser = MultiPartParser(request.headers, stream(), max_files=1, max_fields=MAX_QUESTIONS + 8)  # type: ignore[arg-type]
    parser.spool_max_size = limits.body + 1
    form = await parser.parse()
    values: dict[str, Any] = {"questions": [text for text in form.getlist("question") if isinstance(text, str)]}
    for name, value in form.items():
        if name == "question":
            continue
        if isinstance(value, str):
            values[name] = value
        else:
            values[name] = await value.read()
    return values


def _status_of(error: Exception) -> tuple[int, str]:
    """The HTTP status and the message of an error."""
    if isinstance(error, RequestError):
        return error.status, str(error)
    if isinstance(error, UnknownImageError):
        return 404, str(error)
    if isinstance(error, OverloadedError):
        return 503, "too many questions are waiting; try again in a moment"
    if isinstance(error, ProcessLostError):
        return 503, f"{error}; send the image and the question again"
    if isinstance(error, ClientDisconnect):
        return 400, "the connection ended before the whole request had arrived"
    if isinstance(error, ValueError):
        return 422, str(error)
    status = getattr(error, "status_code", 500)
    messages = {404: "there is no such page", 405: "this page does not take such a request"}
    return status, messages.get(status, "the server failed; its log says why")


def _json(value: Any, status: int = 200) -> Response:
    headers = {"Retry-After": "1"} if status == 503 else None
    return Response(msgspec.json.encode(value), status, headers, "application/json")


def _guarded(app: ASGIApp, hosts: tuple[str, ...]) -> ASGIApp:
    """Refuse requests that a foreign web page made a browser send: a foreign Host, or an Origin other than the Host."""

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
            host, origin = headers.get(b"host", ""), headers.get(b"origin")
            known = "*" in hosts or _name_of(f"//{host}") in hosts
            if not known or (origin is not None and urlsplit(origin).netloc != host):
                message = f"the host {host!r:.60} or the origin {origin!r:.60} is not accepted; see --allow-host"
                await _json(Problem(error=message), 403)(scope, receive, send)
                return
        await app(scope, receive, send)

    return guard


def _name_of(url: str) -> str | None:
    """The host name of a URL; None if it has none."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _counted(app: ASGIApp, metrics: Metrics) -> ASGIApp:
    """Count responses by status."""

    async def count(scope: Scope, receive: Receive, send: Send) -> None:
        async def counting(message: Any) -> None:
            if message["type"] == "http.response.start":
                metrics.requests.labels(message["status"]).inc()
            await send(message)

        await app(scope, receive, counting)

    return count


def serve(
    folders: Mapping[str, Path],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits | None = None,
    allow_hosts: tuple[str, ...] = (),
    page: bool = False,
    num_threads: int | None = None,
) -> None:
    """Serve models until the process gets SIGINT or SIGTERM; requests in work are finished first.

    A script that calls this needs `if __name__ == "__main__":` around the call; see `make_app`.

    Args:
        folders: see `make_app`.
        host: the address to listen on; the loopback interface unless told otherwise.
        port: the port; 0 takes a free one.
        limits: see `Limits`.
        allow_hosts: see `make_app`.
        page: see `make_app`.
        num_threads: see `load_predictor`.

    Raises:
        OSError: the port is in use.
        ValueError, FileNotFoundError: a folder cannot be read.
    """
    from .connections import http_server

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Without the protocol asyncio leaves TCP_NODELAY off, and the body of each response waits 40 ms.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise OSError(f"cannot listen on {host} port {port}: {error.strerror}; choose another --port") from None
        app = make_app(folders, limits=limits, hosts=(host, *allow_hosts), page=page, num_threads=num_threads)
        address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        print(f"{', '.join(folders)} at {address}/ask; the contract is at {address}/docs", flush=True)
        if page:
            print(f"open {address}/ in a browser", flush=True)
        gc.freeze()  # see `process`
        http_server(app, (limits or Limits()).seconds).run(sockets=[listener])
