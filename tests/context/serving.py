"""Applications served on loopback, and clients that read to the end or leave."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any, Final

import uvicorn

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.context.runners import Runner

PATIENCE: Final = 20
"""Seconds."""


class Service:
    """An application and the port that it is served on."""

    def __init__(self, app: object, port: int) -> None:
        self.app = app
        self.port = port

    def read(self, path: str) -> list[str]:
        """Return the lines of a response, read to its end."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            assert answer.status == 200
            return answer.read().decode().splitlines()
        finally:
            connection.close()

    def leave(self, path: str, *, chunked: bool = True) -> str:
        """Return the first line of a response, and leave before the second."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            with client.makefile("rb") as answer:
                while answer.readline().strip():
                    pass
                if chunked:
                    answer.readline()  # the length of the first chunk
                return answer.readline().decode().strip()


@contextmanager
def served(app: Any, runner: Runner) -> Generator[Service]:  # noqa: ANN401 - an ASGI application
    """Serve *app* on loopback; in the end all its work is done."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, log_level="warning", lifespan="off")
    )

    thread = threading.Thread(target=lambda: runner.run(server.serve([listener])))
    thread.start()
    try:
        yield Service(app, listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        listener.close()
        assert not thread.is_alive()
