"""A meter provider of our own, where OpenTelemetry's variables ask for metrics.

`OTEL_METRICS_EXPORTER` says which exporters (`otlp`, `prometheus`, `console`, or
`none`); not set, an OTLP endpoint for all signals, or for metrics, is enough.  What the
variables mean is read when something is configured, what they ask for is imported later
(see `measuring`).
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import math
import os
from typing import TYPE_CHECKING, Any, Final

from agenttrace import safety
from agenttrace.delivery import otlp_env
from agenttrace.errors import SettingError
from agenttrace.lazy import no_fork
from agenttrace.runtime import checks
from agenttrace.runtime.checks import METRICS_EXPORTER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import MetricReader
    from opentelemetry.sdk.resources import Resource

    from agenttrace.delivery.senders.metrics import Reader

_ALLOWED: Final = ("otlp", "prometheus", "console")
_PROMETHEUS: Final = "opentelemetry.exporter.prometheus"
_PORT: Final = 9464
"""The specification's."""


def asked_for() -> tuple[str, ...]:
    """Return the names of the exporters that the environment asks for.

    Raises:
        SettingError: A variable cannot be meant, or names what is not installed.
    """
    said = os.environ.get(METRICS_EXPORTER, "").strip()
    if not said:
        return ("otlp",) if checks.wants_metrics() else ()
    names = tuple(dict.fromkeys(each.strip().lower() for each in said.split(",")))
    if names == ("none",):
        return ()
    if not set(names) <= set(_ALLOWED):
        message = f"{', '.join(_ALLOWED)} (any of them, with commas) or none"
        raise SettingError(METRICS_EXPORTER, said, message)
    if "otlp" in names:
        otlp_env.otlp_settings(os.environ, "metrics")
    if "prometheus" in names:
        if not _is_installed(_PROMETHEUS):
            message = "a name whose exporter is installed: the extra 'prometheus'"
            raise SettingError(METRICS_EXPORTER, said, message)
        _scraped_at()
    return names


class OwnMeters:
    """A meter provider, and all that is to be stopped with it.

    Args:
        names: Of the exporters.
        resource: Who this process is.

    Attributes:
        names: As given.
        provider: The provider.
    """

    def __init__(self, names: Sequence[str], resource: Resource) -> None:
        self.names = names
        self._stops: list[Callable[[], object]] = []
        self._readers: list[Reader] = []
        self._sockets: list[Any] = []
        self._is_late = False
        """Whether a reader has no thread, which would export once more."""
        self.provider: MeterProvider
        try:
            self._make(resource)
        except BaseException:
            self.abandon()
            self._close()
            raise

    def _make(self, resource: Resource) -> None:
        with no_fork():
            # Its readers take the words of the variables for interval and time-out.
            from opentelemetry.sdk.metrics import (  # noqa: PLC0415 - see the header
                MeterProvider,
            )

            readers = [self._reader(name) for name in self.names]
        self.provider = MeterProvider(
            [reader for reader in readers if reader is not None],
            resource,
            # After our last spans, and so by us.
            shutdown_on_exit=False,
        )

    def stop(self, timeout: float) -> None:
        """Export once more, and end.

        Args:
            timeout: Longest wait in seconds; with none left nothing is exported.
        """
        if timeout <= 0:
            self.abandon()
        try:
            if self._is_late and timeout > 0:
                self.provider.force_flush(timeout * 1000)
            self.provider.shutdown(timeout_millis=max(timeout, 0.001) * 1000)
        finally:
            self._close()

    def after_fork(self) -> None:
        """Be a child's, who has its own: export nothing, and let go of the port."""
        self.abandon()
        for each in self._sockets:
            # Not the server: its thread, which that would wait for, is the parent's.
            each.close()

    def abandon(self) -> None:
        """Export nothing more."""
        for reader in self._readers:
            reader.is_over = True

    def _close(self) -> None:
        """Stop what the provider does not: each, whatever becomes of the others."""
        for stop in self._stops:
            safety.guarded("metrics.stop", stop)

    def _reader(self, name: str) -> MetricReader | None:
        if name == "prometheus":
            return safety.guarded("metrics.prometheus", self._scraped)
        from agenttrace.delivery.senders.metrics import (  # noqa: PLC0415 - see the header
            Reader,
            exporter_of,
        )

        exporter = exporter_of(name)
        try:
            reader = Reader(exporter)
        except RuntimeError:
            # No thread begins any more at the end of the interpreter (3.12).
            reader = Reader(exporter, math.inf)
            self._is_late = True
        self._readers.append(reader)
        # Where the provider has done it already, it does nothing.
        self._stops.append(reader.end)
        return reader

    def _scraped(self) -> MetricReader | None:
        """Return a reader that a Prometheus scrapes; None where it has no port."""
        exporter: Any = importlib.import_module(_PROMETHEUS)
        client: Any = importlib.import_module("prometheus_client")
        host, port = _scraped_at()
        # Not that of the application: it has its own address, and other readers.
        registry = client.CollectorRegistry()
        try:
            reader: Any = exporter.PrometheusMetricReader(registry=registry)
        except TypeError:  # one that is older knows the usual one alone
            reader, registry = exporter.PrometheusMetricReader(), client.REGISTRY
        try:
            server, thread = client.start_http_server(port, host, registry)
            thread.name = "agenttrace-metrics-server"
        except OSError as error:
            safety.log_once(
                "metrics.prometheus",
                logging.WARNING,
                "no metrics can be scraped from %s:%s (%s): they are told nowhere",
                host,
                port,
                error,
            )
            reader.shutdown()
            return None
        self._stops.extend((server.shutdown, server.server_close))
        self._sockets.append(server.socket)
        made: MetricReader = reader
        return made


def _scraped_at() -> tuple[str, int]:
    """Return host and port that metrics are scraped from."""
    name = "OTEL_EXPORTER_PROMETHEUS_PORT"
    said = os.environ.get(name, "").strip()
    try:
        port = int(said or _PORT)
    except ValueError:
        port = 0
    if not 0 < port < 65536:  # noqa: PLR2004 - ports are what they are
        raise SettingError(name, said, "the number of a port")
    host = os.environ.get("OTEL_EXPORTER_PROMETHEUS_HOST", "").strip()
    return host or "127.0.0.1", port


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
