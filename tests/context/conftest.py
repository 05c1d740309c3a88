"""Fixtures of everything about contexts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import agenttrace
from agenttrace import safety
from agenttrace.runtime.process import PROCESS
from agenttrace.testing.garbage import collect_garbage
from tests.context.runners import runner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["runner", "spans"]


@pytest.fixture
def spans() -> Iterator[Callable[[], list[ReadableSpan]]]:
    """Configure agenttrace, and return what returns the spans that have ended.

    In the end nothing may be open, and the guard must not have swallowed anything.
    """
    exporter = InMemorySpanExporter()
    before = safety.guard_hits()

    def ended() -> list[ReadableSpan]:
        assert runtime.flush(30)
        return list(exporter.get_finished_spans())

    with agenttrace.configure(span_exporter=exporter) as runtime:
        yield ended
        collect_garbage()
        PROCESS.sweep()
        assert runtime.open_spans() == ()
    assert safety.guard_hits() == before
