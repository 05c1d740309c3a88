"""The far ends: a receiver of OTLP and a model server, each in a process of its own.

In the process that is measured they would take the interpreter from what is measured.
They listen on loopback, and stop when their standard input is closed, so that none
outlives a benchmark that is killed.
"""

from __future__ import annotations

import argparse
import http.client
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar, cast

if TYPE_CHECKING:
    from collections.abc import Generator


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where spans are sent to.

    Args:
        port: The port on loopback it listens on.
    """

    port: int

    @property
    def url(self) -> str:
        """What `OTEL_EXPORTER_OTLP_ENDPOINT` is set to."""
        return f"http://127.0.0.1:{self.port}"

    def spans(self, path: str = "/v1/traces") -> int:
        """Return how many different spans have come to *path*."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        try:
            connection.request("GET", path)
            return int(connection.getresponse().read())
        finally:
            connection.close()


@contextmanager
def receiver(delay: float = 0.0) -> Generator[Receiver]:
    """Run a receiver that takes *delay* seconds to answer a request."""
    with _serving("receiver", str(delay)) as port:
        yield Receiver(port)


@contextmanager
def models(kind: str = "models") -> Generator[str]:
    """Run a model server; return its base URL.

    Args:
        kind: `models` echo, and those that are `scripted` do what their names say.  The
            echo of `whole` ones arrives in one piece, a stream too: in how many it does
            is chance otherwise, and each costs its reader more than an item does.
    """
    with _serving(kind) as port:
        yield f"http://127.0.0.1:{port}/v1"


@contextmanager
def _serving(*arguments: str) -> Generator[int]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.servers", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.communicate()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, handler: type[_Handler], delay: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.delay = delay
        self.bodies: list[tuple[str, bytes]] = []
        self.closing = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body are one piece

    def do_POST(self) -> None:
        server = cast("_Server", self.server)
        body = self.rfile.read(int(self.headers["content-length"]))
        server.closing.wait(server.delay)
        server.bodies.append((self.path, body))
        self._answer(b"", "application/x-protobuf")

    def do_GET(self) -> None:
        bodies = cast("_Server", self.server).bodies
        count = _spans([body for path, body in bodies if path == self.path])
        self._answer(str(count).encode(), "text/plain")

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base calls it so
        """Say nothing."""


class _WholeAnswers(_Handler):
    """Passes on to a model server, and what that answers bit by bit in one piece."""

    models: ClassVar[int]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        asked = http.client.HTTPConnection("127.0.0.1", self.models)
        try:
            asked.request("POST", self.path, body, dict(self.headers))
            answer = asked.getresponse()
            self._answer(answer.read(), answer.headers["content-type"])
        finally:
            asked.close()


def _spans(bodies: list[bytes]) -> int:
    # Read only now, by OpenTelemetry's own classes, and by nobody while it is measured.
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (  # noqa: PLC0415 - see above
        ExportTraceServiceRequest,
    )

    return len(
        {
            span.span_id
            for body in bodies
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        }
    )


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("receiver", "models", "scripted", "whole"))
    parser.add_argument("delay", type=float, nargs="?", default=0.0)
    arguments = parser.parse_args()
    if arguments.kind == "receiver":
        _serve(_Server(_Handler, arguments.delay))
        return
    from agenttrace.testing.model_server import ModelServer  # noqa: PLC0415 - only here

    script = ModelServer.by_model_name if arguments.kind == "scripted" else None
    with ModelServer(script) as server:
        if arguments.kind == "whole":
            _WholeAnswers.models = server.port
            _serve(_Server(_WholeAnswers))
        else:
            _until_stdin_closes(server.port)


def _serve(server: _Server) -> None:
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        _until_stdin_closes(server.server_port)
        server.closing.set()
        server.shutdown()


def _until_stdin_closes(port: int) -> None:
    print(port, flush=True)  # noqa: T201 - how the other process learns it
    sys.stdin.read()


if __name__ == "__main__":
    _main()
