"""What a runtime of a test's own has recorded, with nothing left behind."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import agenttrace
from agenttrace import safety
from agenttrace.runtime.process import PROCESS
from agenttrace.testing.garbage import collect_garbage

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from opentelemetry.sdk.trace import ReadableSpan


@contextmanager
def recorded(*instrumented: str) -> Generator[Callable[[], list[ReadableSpan]]]:
    """Configure agenttrace, and give what returns the spans that have ended.

    In the end nothing may be open, and the guard must not have swallowed anything.

    Args:
        instrumented: Names of libraries that are, meanwhile.
    """
    exporter = InMemorySpanExporter()
    before = safety.guard_hits()

    def ended() -> list[ReadableSpan]:
        assert runtime.flush(30)
        return list(exporter.get_finished_spans())

    with agenttrace.configure(span_exporter=exporter) as runtime:
        if instrumented:
            agenttrace.instrument(*instrumented)
        yield ended
        if instrumented:
            agenttrace.uninstrument()
        collect_garbage()
        PROCESS.sweep()
        assert runtime.open_spans() == ()
    assert safety.guard_hits() == before
