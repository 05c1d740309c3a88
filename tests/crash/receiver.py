"""A collector in a process of its own: goes, comes back, and takes its time.

    with Receiver() as receiver:
        receiver.say("up")
        receiver.say("delay 0.3")
        receiver.say("down")
        receiver.told()

Of each span it keeps a digest of all its bytes, those of its resource and scope too:
what came twice has to be the same.  What it has read it has taken, answered or not.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import IO, TYPE_CHECKING, Any, Final, Self, cast

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)

from agenttrace import semconv
from tests.crash.truth import NO_PARENT, Told

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

_OK: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


class Receiver:
    """The process, as whoever started it sees it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self.say("port"))

    @property
    def endpoint(self) -> str:
        """What `OTEL_EXPORTER_OTLP_ENDPOINT` is set to."""
        return f"http://127.0.0.1:{self.port}"

    def say(self, command: str) -> str:
        """Give a command; return the answer when it has been carried out."""
        commands = cast("IO[str]", self._process.stdin)
        answers = cast("IO[str]", self._process.stdout)
        commands.write(command + "\n")
        commands.flush()
        return answers.readline().strip()

    def has(self, ids: Iterable[str]) -> int:
        """Return how many of the spans *ids* it has."""
        return int(self.say("has " + " ".join(ids)))

    def told(self) -> dict[str, Told]:
        """Return all that it was told so far."""
        said: dict[str, Any] = json.loads(self.say("tell"))
        return {
            ids: Told(Counter(digests), *rest) for ids, (digests, *rest) in said.items()
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        cast("IO[str]", self._process.stdin).close()  # which ends it
        self._process.wait()
        cast("IO[str]", self._process.stdout).close()


class _State:
    """What the handling threads share, from one server to the next."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.told: dict[str, Told] = {}
        self.delay = 0.0
        self.down = threading.Event()


class _Server(ThreadingHTTPServer):
    """One stay of the collector, from `up` to `down`."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, port: int, state: _State) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.state = state
        state.down = self.down = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients are killed here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        server = cast("_Server", self.server)
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        spans = _keep(server.state, body)
        if server.down.wait(server.state.delay):
            self.close_connection = True
            with server.state.lock:
                for span in spans:
                    span.unanswered += 1
            return
        self.wfile.write(_OK)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base calls it so
        """Say nothing."""


def _keep(state: _State, body: bytes) -> list[Told]:
    """Remember the spans of a request; return what is known of each now."""
    request = ExportTraceServiceRequest.FromString(body)
    kept: list[Told] = []
    for of_resource in request.resource_spans:
        resource = {pair.key: pair.value for pair in of_resource.resource.attributes}
        who = of_resource.resource.SerializeToString(deterministic=True)
        for of_scope in of_resource.scope_spans:
            scope = of_scope.scope.SerializeToString(deterministic=True)
            for span in of_scope.spans:
                data = span.SerializeToString(deterministic=True)
                said = {pair.key: pair.value.string_value for pair in span.attributes}
                ids = span.trace_id.hex() + span.span_id.hex()
                digest = hashlib.sha256(who + scope + data).hexdigest()[:16]
                with state.lock:
                    told = state.told.setdefault(ids, Told())
                    told.digests[digest] += 1
                    told.outcome = said[semconv.OUTCOME]
                    told.parent = span.parent_span_id.hex() or NO_PARENT
                    told.service = resource["service.name"].string_value
                kept.append(told)
    return kept


def _obey(commands: Iterable[str]) -> None:
    """Carry out *commands*, one a line, and answer each with a line."""
    state = _State()
    with _Server(0, state) as first:
        port = first.server_port
    running: _Server | None = None
    for command in commands:
        answer: object = "done"
        match command.split():
            case ["port"]:
                answer = port
            case ["up"] if running is None:
                running = _Server(port, state)
                threading.Thread(
                    target=running.serve_forever, args=(0.01,), daemon=True
                ).start()
            case ["down"] if running is not None:
                running.down.set()
                running.shutdown()
                running.server_close()
                running = None
            case ["delay", seconds]:
                state.delay = float(seconds)
            case ["has", *wanted]:
                with state.lock:
                    answer = sum(ids in state.told for ids in wanted)
            case ["tell"]:
                with state.lock:
                    answer = json.dumps(
                        {
                            ids: (
                                told.digests,
                                told.outcome,
                                told.parent,
                                told.service,
                                told.unanswered,
                            )
                            for ids, told in state.told.items()
                        }
                    )
            case _:
                pass
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _obey(sys.stdin)
