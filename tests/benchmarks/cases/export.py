"""The CPU time to deliver a span, beside the SDK's OTLP exporter, HTTP included.

It is what the process uses beyond the thread that makes the spans: encoding, sending,
and whatever the threads do to find each other.  The receiver is another process.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final

import agenttrace
from tests.benchmarks import harness
from tests.benchmarks.peer import attributes, bare_sdk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from opentelemetry.trace import Span

SPANS: Final = 1500
"""Spans of a batch: fewer than the SDK's queue holds before it drops some."""


def microseconds(
    start: Callable[[str], AbstractContextManager[Span]],
    flush: Callable[[], object],
) -> float:
    """Return the CPU time for one span of a batch, flushed at its end."""
    process = time.process_time_ns()
    thread = time.thread_time_ns()
    for number in range(SPANS):
        with start("chat gpt-4o") as span:
            for key, value in attributes(number).items():
                span.set_attribute(key, value)
    made = time.thread_time_ns() - thread
    # The SDK's flush exports on the thread that asks for it.
    flush()
    return (time.process_time_ns() - process - made) / SPANS / 1000


def measure(rounds: int) -> Iterator[harness.Figure]:
    """Yield the ratio."""
    with harness.tracing() as (runtime, receiver), bare_sdk(receiver) as sdk:
        ours, theirs = harness.in_turns(
            rounds * 3,
            partial(microseconds, agenttrace.span, partial(runtime.flush, 60)),
            partial(microseconds, sdk.tracer.start_as_current_span, sdk.flush),
        )
        assert receiver.spans("/sdk/v1/traces") == SPANS * (rounds * 3 + 1)
    yield harness.Figure(
        "export", harness.ratios(ours, theirs), harness.against(ours, theirs)
    )


if __name__ == "__main__":
    harness.main(measure)
