"""Hands spans to an exporter of OpenTelemetry's own interface.

For what is no OTLP endpoint: the console, an exporter of the application's.  It is
given the spans of the frame, decoded, as the SDK would give them.

Two things an exporter cannot be asked for.  It knows no refusal, so a batch that its
backend will never take is tried until the spool needs the room.  And it cannot be
interrupted: the time limit is its own, and one that hangs holds its own lane's thread,
and nothing else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Protocol

from agenttrace._otel import suppress_instrumentation
from agenttrace.delivery.senders import Answer, Delivered, Later
from agenttrace.lazy import no_fork_at_first

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from agenttrace.delivery.frames import Frame


class Exporter(Protocol):
    """What is needed of a `SpanExporter`."""

    def export(self, spans: Sequence[ReadableSpan], /) -> object:
        """Send *spans*; `SpanExportResult.SUCCESS` or None, else it is a failure."""
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
        with no_fork_at_first("exporter"):
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
        # The SDK asks nobody for a result, and many an exporter has none: what says
        # nothing, and did not raise, has the spans.
        if result is SpanExportResult.SUCCESS or result is None:
            return Delivered()
        return Later(f"{self._name} failed")

    def close(self) -> None:
        """Shut the exporter down."""
        with suppress_instrumentation():
            self._exporter.shutdown()
