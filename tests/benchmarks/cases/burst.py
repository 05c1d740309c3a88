"""A burst of spans, with a backend that takes 300 ms for each answer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import agenttrace
from tests.benchmarks import harness
from tests.benchmarks.peer import attributes

if TYPE_CHECKING:
    from collections.abc import Iterator

SPANS: Final = 50_000
AWAY: Final = 0.3


def measure(_rounds: int) -> Iterator[harness.Figure]:
    """Yield how many spans were dropped; once is enough."""
    facts = tuple(attributes(17).items())
    with harness.tracing(AWAY) as (runtime, receiver):
        began = time.monotonic()
        for _ in range(SPANS):
            with agenttrace.span("chat gpt-4o") as span:
                for key, value in facts:
                    span.set_attribute(key, value)
        made = time.monotonic() - began
        assert runtime.flush(120)
        took = time.monotonic() - began
        lost = SPANS - receiver.spans()
    yield harness.Figure(
        "burst", [lost], f"made in {made:.2g} s, delivered after {took:.2g} s"
    )


if __name__ == "__main__":
    harness.main(measure)
