"""Frames travel by grpc as they are, and the answer is understood."""

from __future__ import annotations

import contextlib
import importlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from agenttrace.delivery.otlp_env import OtlpSettings, otlp_settings
from agenttrace.delivery.senders import Answer, Delivered, Later, Refused
from agenttrace.delivery.senders.grpc import GrpcSender
from tests.delivery.collector import received
from tests.delivery.given import frame

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

# None of these brings types.
grpc: Any = importlib.import_module("grpc")
error_details: Any = importlib.import_module("google.rpc.error_details_pb2")
status: Any = importlib.import_module("google.rpc.status_pb2")
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


class TraceService:
    """A grpc server for traces, or for what goes to another *export*."""

    def __init__(self, export: str = EXPORT) -> None:
        self.export = export
        self.payloads: list[bytes] = []
        self.metadata: list[dict[str, str]] = []
        self.fails = ""
        self.details = b""
        self.rejects = 0

    @contextlib.contextmanager
    def serve(self, credentials: object = None) -> Generator[int]:
        """Yield the port it listens on."""
        handler = grpc.method_handlers_generic_handler(
            self.export.split("/")[1],
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
                server.stop(0).wait(30)

    def _export(self, payload: bytes, context: Any) -> bytes:  # noqa: ANN401 - grpc brings no types
        self.metadata.append(dict(context.invocation_metadata()))
        if self.fails:
            if self.details:
                context.set_trailing_metadata(
                    [("grpc-status-details-bin", self.details)]
                )
            context.abort(grpc.StatusCode[self.fails], "who are you?")
        # Read and written again, to be sure that it is one.
        request = ExportTraceServiceRequest.FromString(payload)
        self.payloads.append(request.SerializeToString())
        response = ExportTraceServiceResponse()
        if self.rejects:
            response.partial_success.rejected_spans = self.rejects
            response.partial_success.error_message = "too old"
        return response.SerializeToString()

    @property
    def names(self) -> list[str]:
        """The names of the spans that came."""
        return [span.name for payload in self.payloads for span in received(payload)]


def export(settings: OtlpSettings, *, attribute: str = "value") -> Answer:
    sender = GrpcSender(settings)
    try:
        return sender.send(frame("plan", attribute=attribute), 5)
    finally:
        sender.close()


def test_logs_go_to_a_service_of_their_own() -> None:
    """A collector that takes traces and logs has one port for both."""
    service = TraceService("/opentelemetry.proto.collector.logs.v1.LogsService/Export")

    with service.serve() as port:
        settings = OtlpSettings(endpoint=f"http://127.0.0.1:{port}")
        sender = GrpcSender(settings, "logs")
        answer = sender.send(frame("plan"), 5)
        sender.close()

    assert answer == Delivered()
    assert service.names == ["plan"]


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


def settings_for(endpoint: str, **more: str) -> OtlpSettings:
    """Return the settings of grpc to *endpoint*; *more* goes by the variables' ends."""
    variables = {"PROTOCOL": "grpc", "ENDPOINT": endpoint, **more}
    return otlp_settings(
        {f"OTEL_EXPORTER_OTLP_{name}": value for name, value in variables.items()}
    )


def plain(port: int) -> OtlpSettings:
    return settings_for(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        ("UNAUTHENTICATED", Refused("grpc status UNAUTHENTICATED")),
        ("INVALID_ARGUMENT", Refused("grpc status INVALID_ARGUMENT")),
        ("UNAVAILABLE", Later("grpc status UNAVAILABLE")),
        ("RESOURCE_EXHAUSTED", Later("grpc status RESOURCE_EXHAUSTED")),
    ],
)
def test_a_collector_that_will_never_take_a_frame_is_told_from_one_that_may(
    code: str, answer: Answer
) -> None:
    """A poisoned batch that is tried for ever keeps everything behind it."""
    service = TraceService()
    service.fails = code

    with service.serve() as port:
        assert export(plain(port)) == answer


@pytest.mark.parametrize(
    ("seconds", "nanos", "after"), [(3, 500_000_000, 3.5), (0, 0, 0.0), (-1, 0, 0.0)]
)
def test_a_collector_that_says_when_to_come_back_is_heard(
    seconds: int, nanos: int, after: float
) -> None:
    """One that is throttling is not relieved by being asked more often."""
    refusal = status.Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])
    delay = {"seconds": seconds, "nanos": nanos}
    refusal.details.add().Pack(error_details.DebugInfo(detail="queue is full"))
    refusal.details.add().Pack(error_details.RetryInfo(retry_delay=delay))
    service = TraceService()
    service.fails = "RESOURCE_EXHAUSTED"
    service.details = refusal.SerializeToString()

    with service.serve() as port:
        answer = export(plain(port))

    assert answer == Later("grpc status RESOURCE_EXHAUSTED", after)


@pytest.mark.parametrize(
    "details", [b"\xff\xff\xff", status.Status().SerializeToString()]
)
def test_details_that_name_no_delay_are_none(details: bytes) -> None:
    """What a proxy writes there must not cost the answer."""
    service = TraceService()
    service.fails = "UNAVAILABLE"
    service.details = details

    with service.serve() as port:
        assert export(plain(port)) == Later("grpc status UNAVAILABLE")


def test_a_message_too_large_for_the_collector_is_not_tried_again() -> None:
    """It would be tried for ever, with everything else behind it."""
    service = TraceService()

    with service.serve() as port:
        answer = export(plain(port), attribute="x" * 5_000_000)

    assert isinstance(answer, Refused)
    assert answer.reason.startswith("grpc status RESOURCE_EXHAUSTED, to a message of 5")
    assert service.payloads == []


def test_nobody_listening_is_a_reason_to_come_back() -> None:
    """A collector that is being restarted loses nothing."""
    with TraceService().serve() as port:
        pass

    assert isinstance(export(plain(port)), Later)


def test_what_a_collector_rejected_is_counted() -> None:
    """A partial success is an answer, and some of the spans are gone for good."""
    service = TraceService()
    service.rejects = 1

    with service.serve() as port:
        assert export(plain(port)) == Delivered(rejected=1, reason="too old")


def test_an_address_without_scheme_is_tls_and_one_may_say_otherwise() -> None:
    """As the specification and the official exporter have it."""
    service = TraceService()

    with service.serve() as port:
        answer = export(settings_for(f"127.0.0.1:{port}", INSECURE="true"))

    assert answer == Delivered()


@pytest.mark.parametrize(
    ("scheme", "insecure"), [("http", "false"), ("HTTP", ""), ("HTTP", "false")]
)
def test_http_is_without_tls_whatever_the_variable_says(
    scheme: str, insecure: str
) -> None:
    """The specification asks the variable only where there is no scheme."""
    service = TraceService()

    with service.serve() as port:
        answer = export(settings_for(f"{scheme}://127.0.0.1:{port}", INSECURE=insecure))

    assert answer == Delivered()


def test_https_is_never_without_tls() -> None:
    """Credentials would go over the network for everybody to read."""
    service = TraceService()

    with service.serve() as port:
        answer = export(
            settings_for(
                f"https://127.0.0.1:{port}",
                INSECURE="true",
                HEADERS="authorization=hidden",
            )
        )

    assert isinstance(answer, Later)
    assert service.metadata == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_no_proxy_stands_before_a_collector_on_the_loopback(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy's loopback is not ours, and a sidecar is reached without one."""
    monkeypatch.delenv("no_proxy", raising=False)
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    service = TraceService()

    with service.serve() as port:
        answer = export(settings_for(f"http://{host}:{port}"))

    assert answer == Delivered()
