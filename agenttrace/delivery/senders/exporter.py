"""Hands spans to an exporter of OpenTelemetry's own interface.

For what is not a URL that takes OTLP over HTTP: grpc, the console, an exporter of the
application's.  It is given the spans of the frame, decoded, as the SDK would give them.

Two things an exporter cannot be asked for.  It knows no refusal, so a batch that its
backend will never take is tried until the spool needs the room.  And it cannot be
interrupted: the time limit is its own, and one that hangs holds its own lane's thread,
and nothing else.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from agenttrace._otel import suppress_instrumentation
from agenttrace.delivery.forks import no_fork
from agenttrace.delivery.otlp_env import Compression, OtlpSettings
from agenttrace.delivery.senders import Answer, Delivered, Later

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

    from agenttrace.delivery.frames import Frame


class Exporter(Protocol):
    """What is needed of a `SpanExporter`."""

    def export(self, spans: Sequence[ReadableSpan], /) -> object:
        """Send *spans*; what is not `SpanExportResult.SUCCESS` is a failure."""
        ...

    def shutdown(self) -> None:
        """Let go of everything."""
        ...


class ExporterSender:
    """Sends frames through *exporter*.

    Args:
        exporter: Where they go; closing the sender shuts it down.
        name: What it is called in logs; None means its class.
    """

    def __init__(self, exporter: Exporter, *, name: str | None = None) -> None:
        self._exporter = exporter
        self._name = name or type(exporter).__name__

    def __repr__(self) -> str:
        """Return the name alone: an exporter's own repr may show its headers."""
        return f"ExporterSender({self._name!r})"

    def send(self, frame: Frame, timeout: float) -> Answer:  # noqa: ARG002 - an exporter brings its own
        """Export the spans of *frame* once."""
        with no_fork():
            from opentelemetry.sdk.trace.export import (  # noqa: PLC0415 - it takes milliseconds
                SpanExportResult,
            )

            from agenttrace.delivery import (  # noqa: PLC0415 - whoever sends to a URL needs neither
                otlp,
                readable,
            )

            # What decoding will import.
            importlib.import_module(
                "opentelemetry.proto.collector.trace.v1.trace_service_pb2"
            )

        try:
            spans = [readable.to_readable(span) for span in otlp.decode(frame.payload)]
            with suppress_instrumentation():
                result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001 - an exporter may raise anything
            # Its message may hold what the spans hold.
            return Later(f"{self._name} raised {type(error).__name__}")
        if result is SpanExportResult.SUCCESS:
            return Delivered()
        return Later(f"{self._name} failed")

    def close(self) -> None:
        """Shut the exporter down."""
        with suppress_instrumentation():
            self._exporter.shutdown()


def grpc_sender(settings: OtlpSettings) -> ExporterSender:
    """Return a sender through the official grpc exporter, as *settings* ask for."""
    return ExporterSender(_GrpcExporter(settings), name="OTLP over grpc")


class _GrpcExporter:
    """The official exporter, made when it is first needed, in each process anew.

    Importing grpc takes tenths of a second, and its channels do not survive a fork.
    """

    def __init__(self, settings: OtlpSettings) -> None:
        self._settings = settings
        self._made: tuple[int, SpanExporter] | None = None

    def export(self, spans: Sequence[ReadableSpan], /) -> object:
        if self._made is None or self._made[0] != os.getpid():
            self._made = os.getpid(), _official_grpc_exporter(self._settings)
        return self._made[1].export(spans)

    def shutdown(self) -> None:
        if self._made is not None and self._made[0] == os.getpid():
            self._made[1].shutdown()


def _official_grpc_exporter(settings: OtlpSettings) -> SpanExporter:
    with no_fork():
        grpc: Any = importlib.import_module("grpc")  # it brings no types
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415 - see _GrpcExporter
            OTLPSpanExporter,
        )

    insecure = settings.insecure
    if insecure is None:
        insecure = settings.endpoint.startswith("http://")
    credentials = None
    if not insecure:
        credentials = grpc.ssl_channel_credentials(
            _content(settings.certificate),
            _content(settings.client_key),
            _content(settings.client_certificate),
        )
    return OTLPSpanExporter(
        endpoint=settings.endpoint,
        insecure=insecure,
        credentials=credentials,
        headers=dict(settings.headers),
        timeout=settings.timeout,
        compression={
            Compression.NONE: grpc.Compression.NoCompression,
            Compression.GZIP: grpc.Compression.Gzip,
            Compression.DEFLATE: grpc.Compression.Deflate,
        }[settings.compression],
    )


def _content(path: str | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()
