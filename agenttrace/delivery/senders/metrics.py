"""Exporters of metrics: what the senders of spans are to spans.

By http they go through the sender that spans go through, with its TLS, proxies and time
limits.  Nothing is kept or tried again: figures add up, and the next export has all of
them.  A backend that has no place for metrics, and has never taken any, is asked once.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.environment_variables import OTEL_METRICS_EXPORTER
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics.export import (
    ConsoleMetricExporter,
    MetricExporter,
    MetricExportResult,
    PeriodicExportingMetricReader,
)

from agenttrace.delivery import otlp_env
from agenttrace.delivery.frames import Frame
from agenttrace.delivery.senders import Delivered, Refused
from agenttrace.delivery.senders.answers import Place
from agenttrace.safety import log_once

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricsData

_OK: Final = MetricExportResult.SUCCESS
_FAILED: Final = MetricExportResult.FAILURE


class HttpMetrics(MetricExporter):
    """Posts metrics by OTLP/HTTP.

    Args:
        settings: Where to, and how.
    """

    def __init__(self, settings: otlp_env.OtlpSettings) -> None:
        super().__init__()
        from agenttrace.delivery.senders.http import (  # noqa: PLC0415 - only where it is asked for
            HttpSender,
        )

        self._sender = HttpSender.from_settings(settings)
        self._timeout = settings.timeout
        self._place = Place()
        is_asked = os.environ.get(OTEL_METRICS_EXPORTER, "").strip()
        # An endpoint alone may be meant for spans; whoever names metrics wants them.
        self._level = logging.WARNING if is_asked else logging.INFO

    def export(
        self,
        metrics_data: MetricsData,
        timeout_millis: float = 10_000,
        **_: Any,  # noqa: ANN401 - the SDK's signature
    ) -> MetricExportResult:
        """Post them once."""
        if self._place.is_none:
            return _FAILED
        frame = Frame((), encode_metrics(metrics_data).SerializeToString())
        timeout = min(timeout_millis / 1000, self._timeout)
        answer = self._sender.send(frame, timeout)
        self._place.hear(answer)
        if isinstance(answer, Delivered):
            return _OK
        if isinstance(answer, Refused):
            self._take_no(answer.reason)
        return _FAILED

    def _take_no(self, reason: str) -> None:
        if self._place.is_none:
            message = "%s takes no metrics (%s): none are sent any more"
        else:
            message = "%s has refused metrics (%s); later ones are sent (logged once)"
        log_once("metrics.refused", self._level, message, self._sender, reason)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:  # noqa: ARG002 - the SDK's signature
        """Find nothing to flush."""
        return True

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:  # noqa: ANN401, ARG002 - the SDK's signature
        """Close the connection."""
        self._sender.close()


class Reader(PeriodicExportingMetricReader):
    """The SDK's reader, until it is over.

    Attributes:
        is_over: Whether nothing is to be exported any more: the SDK has its thread
            begin anew in a forked child, where it would speak for the parent.
    """

    is_over = False

    def end(self) -> None:
        """Stop the thread, unless it was shut down."""
        self.is_over = True
        self._shutdown_event.set()

    def _at_fork_reinit(self) -> None:
        if not self.is_over:
            super()._at_fork_reinit()  # type: ignore[no-untyped-call]  # it has no types

    def _ticker(self) -> None:
        # Whoever asks which threads are the application's goes by the names of ours.
        threading.current_thread().name = "agenttrace-metrics-reader"
        super()._ticker()

    def _receive_metrics(
        self,
        metrics_data: MetricsData,
        timeout_millis: float = 10_000,
        **kwargs: Any,  # noqa: ANN401 - the SDK's signature
    ) -> None:
        if not self.is_over:
            super()._receive_metrics(metrics_data, timeout_millis, **kwargs)  # pyright: ignore[reportUnknownMemberType]  # its types are not complete


def exporter_of(name: str) -> MetricExporter:
    """Return the exporter called *name*, as the environment has it: otlp, console."""
    if name == "console":
        return ConsoleMetricExporter()
    settings = otlp_env.otlp_settings(os.environ, "metrics")
    if settings.protocol is otlp_env.Protocol.GRPC:
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import (  # noqa: PLC0415 - only where it is asked for
            OTLPMetricExporter,
        )

        return OTLPMetricExporter()
    return HttpMetrics(settings)
