"""The HTTP server under the application, and connections that are closed if no whole request arrives on them."""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.auto import AutoHTTPProtocol


def protocol_with_head_timeout(seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's protocol, with a limit on the time in which the head of a request arrives.

    uvicorn itself waits indefinitely for the rest of a head, so that a client could use up all connections. The limit
    on the time of a body is in `server`.

    Args:
        seconds: a connection without a new request is closed after once to twice this time.
    """

    class Connection(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.checked = self.cycle
            self.check = self.loop.call_later(seconds, self.close_if_silent)

        def connection_lost(self, error: Exception | None) -> None:
            self.check.cancel()
            super().connection_lost(error)

        def close_if_silent(self) -> None:
            """Close the connection if no request has begun since the last check; look again later otherwise."""
            request = self.cycle
            if request is self.checked and (request is None or request.response_complete):
                self.transport.close()
                return
            self.checked = request
            self.check = self.loop.call_later(seconds, self.close_if_silent)

    return Connection


def http_server(app: ASGIApp, seconds: float) -> uvicorn.Server:
    """A server of an application.

    Args:
        app: the application.
        seconds: for the head of a request, see `protocol_with_head_timeout`, and for requests in work when the server
            is stopped.
    """
    config = uvicorn.Config(
        app,
        http=protocol_with_head_timeout(seconds),
        log_level="warning",
        timeout_graceful_shutdown=max(int(seconds), 1),
        timeout_keep_alive=5,
        server_header=False,
    )
    return uvicorn.Server(config)
