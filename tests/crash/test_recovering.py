"""Recovery beside a living application: it neither waits for it nor gets in its way."""

from __future__ import annotations

import os
import signal

import pytest

from tests.core.programs import run

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")

NOBODY = "http://127.0.0.1:9"  # discard: nobody listens there

LARGE = """
    import os, signal, time
    import agenttrace
    runtime = agenttrace.configure()
    for _ in range(100):
        with agenttrace.span("large", attributes={"text": "x" * 150_000}):
            pass
    while runtime.status().delivery.buffered_spans < 100:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_recover_returns_in_time_while_the_collector_is_down() -> None:
    """More than may be on its way at once has been left, and none of it can go."""
    killed = run(LARGE, OTEL_EXPORTER_OTLP_ENDPOINT=NOBODY)

    ran = run(
        """
        import time
        import agenttrace
        agenttrace.configure(flush_timeout=0.1)
        began = time.monotonic()
        agenttrace.recover(timeout=0.5)
        agenttrace.recover(timeout=0.5)
        print(time.monotonic() - began < 5)
        """,
        OTEL_EXPORTER_OTLP_ENDPOINT=NOBODY,
        timeout=30,
    )

    assert killed.code == -signal.SIGKILL
    assert (ran.code, ran.out) == (0, "True\n"), ran.err
