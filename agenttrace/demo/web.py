"""The web around the desk: uvicorn in a thread, and the visitor who talks to it.

Both are on 127.0.0.1.  The visitor is plain blocking HTTP, so that what leaves, waits
and cancels is as foreign to the desk as a browser is.
"""

from __future__ import annotations

import codecs
import json
import logging
import socket
import threading
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

import uvicorn

from agenttrace.errors import AgenttraceError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from fastapi import FastAPI

_HOST: Final = "127.0.0.1"
_PATIENCE: Final = 30.0
"""Seconds without a word from the desk after which the visitor gives up."""
_STOP_TIMEOUT: Final = 5.0
_PIECE: Final = 4096


class DeskError(AgenttraceError):
    """The desk answered with an HTTP error: a model that cannot be reached, say."""


@contextmanager
def served(app: FastAPI) -> Generator[Visitor]:
    """Serve *app* on a free port of loopback and let a visitor in."""
    config = uvicorn.Config(
        app,
        http="h11",
        loop="asyncio",
        ws="none",
        # What goes wrong here is meant to, and told in words.
        log_config=None,
        log_level=logging.CRITICAL + 1,
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    # It listens from here on: a visitor who comes before the server is ready waits.
    with socket.create_server((_HOST, 0)) as listener:
        thread = threading.Thread(
            target=server.run,
            kwargs={"sockets": [listener]},
            name="agenttrace-demo-desk",
            daemon=True,
        )
        thread.start()
        try:
            yield Visitor(listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(_STOP_TIMEOUT)


class Visitor:
    """Somebody with a browser.

    Args:
        port: Where the desk listens.
    """

    def __init__(self, port: int) -> None:
        self._port = port

    def ask(self, method: str, path: str, question: str = "") -> str:
        """Ask *question* and return the whole answer."""
        with self._response(method, path, question) as response:
            answer: object = json.loads(response.read())
        return str(answer)

    @contextmanager
    def reading(self, path: str, question: str) -> Generator[Iterator[str]]:
        """Read the answer as it comes; leaving the block closes the browser's tab."""
        with self._response("GET", path, question) as response:
            yield _pieces(response)

    @contextmanager
    def _response(
        self, method: str, path: str, question: str
    ) -> Generator[HTTPResponse]:
        target = f"{path}?{urlencode({'question': question})}" if question else path
        connection = HTTPConnection(_HOST, self._port, timeout=_PATIENCE)
        try:
            connection.request(method, target)
            with connection.getresponse() as response:
                if not 200 <= response.status < 300:  # noqa: PLR2004 - HTTP's own numbers
                    message = f"{method} {path} was answered with {response.status}"
                    raise DeskError(message)
                yield response
        finally:
            connection.close()


def _pieces(response: HTTPResponse) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    while piece := response.read1(_PIECE):
        yield decoder.decode(piece)
