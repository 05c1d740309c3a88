"""Whatever speaks OpenTelemetry's interface for exporters can be a destination."""

from __future__ import annotations

import contextlib
import importlib
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import opentelemetry.context as otel
import pytest
import trustme
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agenttrace.delivery.otlp_env import OtlpSettings, otlp_settings
from agenttrace.delivery.senders import Answer, Delivered, Later
from agenttrace.delivery.senders.exporter import ExporterSender, grpc_sender
from tests.delivery.collector import received
from tests.delivery.given import frame

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

    from opentelemetry.sdk.trace import ReadableSpan

grpc: Any = importlib.import_module("grpc")  # it brings no types
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
HIDDEN = "s3cr3t"


class Exporter(SpanExporter):
    """Does with the spans what it is told to."""

    def __init__(self, does: Callable[[Sequence[ReadableSpan]], object]) -> None:
        self._does = does
        self.is_shut_down = False

    def export(self, spans: Sequence[ReadableSpan]) -> Any:  # noqa: ANN401 - what some return is no result
        """Do it."""
        return self._does(spans)

    def shutdown(self) -> None:
        """Take note."""
        self.is_shut_down = True


def test_the_exporter_is_given_the_spans_of_the_frame() -> None:
    """With ids, attributes, resource and scope, as the SDK would give them."""
    exporter = InMemorySpanExporter()

    answer = ExporterSender(exporter).send(frame("plan", "chat gpt-5"), 10)

    first, second = exporter.get_finished_spans()
    assert answer == Delivered()
    assert [first.name, second.name] == ["plan", "chat gpt-5"]
    assert dict(first.attributes or {}) == {"key": "value"}
    assert first.resource.attributes["service.name"] == "support"
    assert first.instrumentation_scope is not None
    assert first.instrumentation_scope.name == "agenttrace"


@pytest.mark.parametrize("result", [SpanExportResult.FAILURE, None, False])
def test_what_is_no_success_is_tried_later(result: object) -> None:
    """The interface knows no refusal."""
    sender = ExporterSender(Exporter(lambda _: result))

    assert sender.send(frame(), 10) == Later("Exporter failed")


def test_an_exporter_that_raises_is_tried_later_and_not_quoted() -> None:
    """Its message may hold what the spans hold."""

    def fail(spans: Sequence[ReadableSpan]) -> object:
        raise ValueError(HIDDEN, spans)

    answer = ExporterSender(Exporter(fail)).send(frame(attribute=HIDDEN), 10)

    assert answer == Later("Exporter raised ValueError")


def test_closing_the_sender_shuts_the_exporter_down() -> None:
    """It may hold the last batch back until then."""
    exporter = Exporter(lambda _: SpanExportResult.SUCCESS)

    ExporterSender(exporter).close()

    assert exporter.is_shut_down


def test_what_an_exporter_does_is_not_traced() -> None:
    """A traced export makes a span, which is exported, which makes a span."""
    seen: list[object] = []

    def look(_: Sequence[ReadableSpan]) -> object:
        seen.append(otel.get_value("suppress_instrumentation"))
        return SpanExportResult.SUCCESS

    ExporterSender(Exporter(look)).send(frame(), 10)

    assert seen == [True]


class TraceService:
    """A grpc server for traces."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.metadata: list[dict[str, str]] = []
        self.fails = False

    @contextlib.contextmanager
    def serve(self, credentials: object = None) -> Generator[int]:
        """Yield the port it listens on."""
        handler = grpc.method_handlers_generic_handler(
            EXPORT.split("/")[1],
            {"Export": grpc.unary_unary_rpc_method_handler(self._export)},
        )
        with ThreadPoolExecutor(2) as pool:
            server = grpc.server(pool, handlers=[handler])
            port = (
                server.add_secure_port("127.0.0.1:0", credentials)
                if credentials
                else server.add_insecure_port("127.0.0.1:0")
            )
            server.start()
            try:
                yield port
            finally:
                server.stop(0).wait(5)

    def _export(self, payload: bytes, context: Any) -> bytes:  # noqa: ANN401 - grpc brings no types
        self.metadata.append(dict(context.invocation_metadata()))
        if self.fails:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")
        # Read and written again, to be sure that it is one.
        request = ExportTraceServiceRequest.FromString(payload)
        self.payloads.append(request.SerializeToString())
        return ExportTraceServiceResponse().SerializeToString()

    @property
    def names(self) -> list[str]:
        """The names of the spans that came."""
        return [span.name for payload in self.payloads for span in received(payload)]


def export(settings: OtlpSettings) -> Answer:
    sender = grpc_sender(settings)
    try:
        return sender.send(frame("plan"), 5)
    finally:
        sender.close()


@pytest.mark.parametrize("compression", ["none", "gzip", "deflate"])
def test_spans_travel_by_grpc(compression: str) -> None:
    """It is what many collectors listen for, and nothing else."""
    service = TraceService()

    with service.serve() as port:
        answer = export(
            otlp_settings(
                {
                    "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                    "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
                    "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=gold",
                    "OTEL_EXPORTER_OTLP_COMPRESSION": compression,
                }
            )
        )

    assert answer == Delivered()
    assert service.names == ["plan"]
    assert service.metadata[0]["x-tenant"] == "gold"


def test_grpc_goes_over_tls_with_the_configured_certificates(tmp_path: Path) -> None:
    """The variables are the same as for http, and mean the same."""
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1")
    client = authority.issue_cert("client@agenttrace.invalid")
    files = {
        "CERTIFICATE": authority.cert_pem,
        "CLIENT_KEY": client.private_key_pem,
        "CLIENT_CERTIFICATE": client.cert_chain_pems[0],
    }
    for name, pem in files.items():
        pem.write_to_path(tmp_path / name)
    variables = {f"OTEL_EXPORTER_OTLP_{name}": str(tmp_path / name) for name in files}
    credentials = grpc.ssl_server_credentials(
        [(server.private_key_pem.bytes(), server.cert_chain_pems[0].bytes())],
        root_certificates=authority.cert_pem.bytes(),
        require_client_auth=True,
    )
    service = TraceService()

    with service.serve(credentials) as port:
        answer = export(
            otlp_settings(
                {
                    **variables,
                    "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                    "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://127.0.0.1:{port}",
                }
            )
        )

    assert answer == Delivered()
    assert service.names == ["plan"]


def test_a_grpc_failure_is_tried_later(caplog: pytest.LogCaptureFixture) -> None:
    """The official exporter tells no more than that it failed."""
    caplog.set_level(logging.CRITICAL, "opentelemetry")
    service = TraceService()
    service.fails = True

    with service.serve() as port:
        answer = export(
            otlp_settings(
                {
                    "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                    "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
                }
            )
        )

    assert answer == Later("OTLP over grpc failed")
    assert service.payloads == []
