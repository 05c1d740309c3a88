"""An OTLP/HTTP receiver on loopback that remembers what it got, and misbehaves on cue.

    with Collector() as collector:
        collector.answer(Reply(503))   # the first request only
        ...                            # send to collector.endpoint
        spans = collector.wait_for(2)  # blocks until they are there

It reads requests with OpenTelemetry's own protobuf classes, never with agenttrace's
decoder, and keeps spans only of the requests that it answered with 2xx.
"""

from __future__ import annotations

import gzip
import threading
import time
import zlib
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self, cast

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue


@dataclass(frozen=True)
class Received:
    """One span as it came off the wire; ids in lower-case hex, times in nanoseconds."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    start_time: int
    end_time: int
    attributes: Mapping[str, Any]
    events: Sequence[tuple[str, Mapping[str, Any]]]
    links: Sequence[str]
    status: int
    status_message: str
    scope: str
    resource: Mapping[str, Any]


@dataclass(frozen=True)
class Request:
    """One request, and the status it was answered with (None: with none at all)."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    spans: Sequence[Received]
    status: int | None
    at: float
    """Seconds of the monotonic clock."""
    client: int
    """The port it came from: the same one for requests over one connection."""


@dataclass(frozen=True)
class Reply:
    """How one request is answered.

    Args:
        status: HTTP status.
        headers: Beside the content length.
        body: As it is sent.
        delay: Seconds to wait before answering.
        raw: Bytes to write in place of an answer, before the connection closes.
        drip: Write the answer byte by byte, with so many seconds between two.
        hangs: Never answer.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""
    delay: float = 0.0
    raw: bytes | None = None
    drip: float | None = None
    hangs: bool = False

    @property
    def is_an_answer(self) -> bool:
        """Whether it is one by HTTP."""
        return self.raw is None and not self.hangs

    @property
    def bytes(self) -> bytes:
        """What goes over the wire."""
        if self.raw is not None:
            return self.raw
        headers = {"content-length": str(len(self.body)), **self.headers}
        lines = [f"HTTP/1.1 {self.status} Whatever"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


def partial_success(rejected: int, message: str) -> Reply:
    """Return the answer of a collector that took all but *rejected* spans."""
    response = ExportTraceServiceResponse(
        partial_success=ExportTracePartialSuccess(
            rejected_spans=rejected, error_message=message
        )
    )
    return Reply(
        headers={"content-type": "application/x-protobuf"},
        body=response.SerializeToString(),
    )


class Collector:
    """A receiver of traces that listens while it is entered.

    Args:
        port: Where to listen; 0 takes a free one.
        tls: With what to speak TLS.
        usual: The answer to every request for which no other was scripted.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        usual: Reply | None = None,
    ) -> None:
        self._scheme = "https" if tls else "http"
        self._server = _Server(port, usual or Reply())
        if tls:
            # The handshake is the handling thread's: one client that makes none must
            # not keep others from being accepted.
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True
        )

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._server.server_port

    @property
    def base(self) -> str:
        """What `OTEL_EXPORTER_OTLP_ENDPOINT` is set to."""
        return f"{self._scheme}://127.0.0.1:{self.port}"

    @property
    def endpoint(self) -> str:
        """What `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is set to."""
        return f"{self.base}/v1/traces"

    @property
    def requests(self) -> list[Request]:
        """Every request so far, refused ones included, in order of arrival."""
        with self._server.changed:
            return list(self._server.requests)

    def answer(self, *replies: Reply) -> None:
        """Answer the next requests with *replies*, one each, then as usual."""
        with self._server.changed:
            self._server.script.extend(replies)

    def spans(self) -> list[Received]:
        """Return the spans that were taken, in order of arrival."""
        return [
            span
            for request in self.requests
            if request.status is not None and 200 <= request.status < 300
            for span in request.spans
        ]

    def wait_for(self, spans: int, timeout: float = 30.0) -> list[Received]:
        """Return the spans once there are that many.

        Raises:
            TimeoutError: There are fewer after *timeout* seconds.
        """
        self._wait(lambda: len(self.spans()) >= spans, f"{spans} spans", timeout)
        return self.spans()

    def wait_for_requests(self, requests: int, timeout: float = 30.0) -> list[Request]:
        """Return the requests once there are that many, whatever their answers.

        Raises:
            TimeoutError: There are fewer after *timeout* seconds.
        """
        what = f"{requests} requests"
        self._wait(lambda: len(self.requests) >= requests, what, timeout)
        return self.requests

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _wait(self, is_there: Callable[[], bool], what: str, timeout: float) -> None:
        with self._server.changed:
            if self._server.changed.wait_for(is_there, timeout):
                return
        statuses = [request.status for request in self.requests]
        message = (
            f"no {what} within {timeout} s: {len(self.spans())} spans, "
            f"requests answered with {statuses}"
        )
        raise TimeoutError(message)


class _Server(ThreadingHTTPServer):
    """What the handling threads share."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, port: int, usual: Reply) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.usual = usual
        self.script: deque[Reply] = deque()
        self.requests: list[Request] = []
        self.changed = threading.Condition()
        self.closing = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that go away are what many tests are about."""

    def next_reply(self) -> Reply:
        with self.changed:
            return self.script.popleft() if self.script else self.usual

    def keep(self, request: Request) -> None:
        with self.changed:
            self.requests.append(request)
            self.changed.notify_all()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def _shared(self) -> _Server:
        return cast("_Server", self.server)

    def do_POST(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", "0")))
        reply = self._shared.next_reply()
        if self._shared.closing.wait(reply.delay):
            self.close_connection = True
            return
        # Kept first and answered then: who has the answer finds the spans here.
        self._shared.keep(
            Request(
                path=self.path,
                headers=headers,
                body=body,
                spans=received(_uncompressed(body, headers)),
                status=reply.status if reply.is_an_answer else None,
                at=time.monotonic(),
                client=self.client_address[1],
            )
        )
        self._write(reply)

    def _write(self, reply: Reply) -> None:
        self.close_connection = not reply.is_an_answer
        if reply.hangs:
            self._shared.closing.wait()
        elif reply.drip is None:
            self.wfile.write(reply.bytes)
        else:
            for byte in reply.bytes:
                self.wfile.write(bytes([byte]))
                if self._shared.closing.wait(reply.drip):
                    break

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base calls it so
        """Say nothing: what came is in `requests`."""


def received(payload: bytes) -> list[Received]:
    """Return the spans of an `ExportTraceServiceRequest`, of any garbage none."""
    try:
        request = ExportTraceServiceRequest.FromString(payload)
    except Exception:  # noqa: BLE001 - protobuf's own errors, by implementation
        return []
    return list(_spans(request))


def _spans(request: ExportTraceServiceRequest) -> Iterator[Received]:
    for resource_spans in request.resource_spans:
        resource = _attributes(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield Received(
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    kind=span.kind,
                    start_time=span.start_time_unix_nano,
                    end_time=span.end_time_unix_nano,
                    attributes=_attributes(span.attributes),
                    events=[
                        (event.name, _attributes(event.attributes))
                        for event in span.events
                    ],
                    links=[link.span_id.hex() for link in span.links],
                    status=span.status.code,
                    status_message=span.status.message,
                    scope=scope_spans.scope.name,
                    resource=resource,
                )


def _attributes(pairs: Sequence[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:  # noqa: ANN401 - as attributes are
    match value.WhichOneof("value"):
        case None:
            return None
        case "array_value":
            return [_value(item) for item in value.array_value.values]
        case "kvlist_value":
            return _attributes(value.kvlist_value.values)
        case kind:
            return getattr(value, kind)


def _uncompressed(body: bytes, headers: Mapping[str, str]) -> bytes:
    match headers.get("content-encoding"):
        case "gzip":
            return gzip.decompress(body)
        case "deflate":
            return zlib.decompress(body)
        case _:
            return body
