"""What the tests of the real Collector share: it, and a runtime that sends to it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import agenttrace
from agenttrace.testing import fresh_runtime
from tests.e2e import servers

if TYPE_CHECKING:
    import signal
    import subprocess
    from contextlib import AbstractContextManager
    from pathlib import Path

    import pytest

    from agenttrace.testing import FreshRuntime

_CONFIG: Final = """
receivers: {otlp: {protocols: {http: , grpc: }}}
processors:
  batch: {timeout: 100ms}
  tail_sampling:
    {decision_wait: 1s, policies: [{name: all, type: always_sample}]}
exporters:
  otlp_http:
    endpoint: "${env:TRACES}"
    retry_on_failure:
      {initial_interval: 100ms, max_interval: 500ms, max_elapsed_time: 0}
extensions: {health_check: , file_storage: {directory: .}}
service:
  extensions: [health_check, file_storage]
  pipelines: {traces: {receivers: [otlp], exporters: [otlp_http]}}
"""


class Between:
    """A Collector between this process and a backend, always on the same port.

    Args:
        folder: Where its files are; made.
        settings: How it is configured, beside what is in *config*.
        config: The file that says the rest; default one pipeline to `$TRACES`.
        variables: Of its environment.

    Attributes:
        endpoint: What `OTEL_EXPORTER_OTLP_ENDPOINT` is set to.
        grpc: Host and port of its other receiver.
    """

    def __init__(
        self, folder: Path, *settings: str, config: Path | None = None, **variables: str
    ) -> None:
        folder.mkdir(exist_ok=True)
        if config is None:
            config = folder / "otelcol.yaml"
            config.write_text(_CONFIG)
        http, self.grpc = (f"127.0.0.1:{servers.free_port()}" for _ in range(2))
        self.endpoint = f"http://{http}"
        self._folder, self._config, self._variables = folder, config, variables
        self._settings = (
            f"receivers.otlp.protocols.http.endpoint={http}",
            f"receivers.otlp.protocols.grpc.endpoint={self.grpc}",
            *settings,
        )

    def running(
        self, ends: signal.Signals, *settings: str
    ) -> AbstractContextManager[subprocess.Popen[bytes]]:
        """Have it run in a block, at whose end it gets the signal *ends*."""
        return servers.otelcol(
            self._folder,
            self._config,
            *self._settings,
            *settings,
            ends=ends,
            **self._variables,
        )


def sending_to(
    endpoint: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    visible_after: float = math.inf,
) -> AbstractContextManager[FreshRuntime]:
    """Have a runtime in a block that is durable, as applications have it."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    return fresh_runtime(
        span_exporter=None,
        durable=True,
        state_dir=str(folder / "state"),
        service_name="sends",
        visible_after=visible_after,
    )


def step(name: str) -> str:
    """Trace something that is over at once, and return its span's id."""
    with agenttrace.span(name) as span:
        return f"{span.get_span_context().span_id:016x}"
