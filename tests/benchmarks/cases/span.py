"""One span with ten attributes, beside the same span by the SDK."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final

from opentelemetry import trace

import agenttrace
from tests.benchmarks import harness
from tests.benchmarks.peer import attributes, bare_sdk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

SPANS: Final = 250
"""Spans of a batch.  It is over before the interpreter is handed to another thread."""


def microseconds(
    start: Callable[[str], AbstractContextManager[trace.Span]],
    flush: Callable[[], object],
) -> float:
    """Return the CPU time of this thread for one span of a batch."""
    facts = tuple(attributes(0).items())
    began = time.thread_time_ns()
    for _ in range(SPANS):
        with start("chat gpt-4o") as span:
            set_attribute = span.set_attribute
            for key, value in facts:
                set_attribute(key, value)
    took = time.thread_time_ns() - began
    # Sending is a row of its own.
    flush()
    return took / SPANS / 1000


def measure(rounds: int) -> Iterator[harness.Figure]:
    """Yield what `agenttrace.span` and our provider's own tracer come to."""
    with harness.tracing() as (runtime, receiver), bare_sdk(receiver) as sdk:

        def by_the_sdk() -> float:
            with sdk.context():
                return microseconds(sdk.tracer.start_as_current_span, sdk.flush)

        for row, start in (
            ("span", agenttrace.span),
            ("otel_span", trace.get_tracer("application").start_as_current_span),
        ):
            ours, theirs = harness.in_turns(
                rounds * 10,
                partial(microseconds, start, runtime.flush),
                by_the_sdk,
            )
            yield harness.Figure(
                row, harness.ratios(ours, theirs), harness.against(ours, theirs)
            )


if __name__ == "__main__":
    harness.main(measure)
