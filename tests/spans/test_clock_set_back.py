"""Spans that were open while the clock of the wall was set back."""

from __future__ import annotations

import time

import pytest

from agenttrace.model import RETURNED, EndedBy, Ending, Outcome
from tests.spans.given import beside, lean

HOUR = 3_600_000_000_000
FAILED = Ending(Outcome.ERROR, EndedBy.EXCEPTION, error=ValueError("broke"))


@pytest.mark.parametrize(
    ("method", "said"),
    [("finish", (RETURNED,)), ("finish", (FAILED,)), ("end", ()), ("end", (1,))],
    ids=["returned", "failed", "ended by its owner", "ended at a time"],
)
def test_a_span_ends_no_earlier_than_it_started(
    method: str, said: tuple[object, ...]
) -> None:
    """Backends refuse, or show as hundreds of years, what has lasted less than none."""
    given = lean()
    # As if the clock had been set back by an hour since.
    started_at = time.time_ns() + HOUR
    span = given.tracer.start_span("step", start_time=started_at)

    getattr(span, method)(*said)

    (sunk,) = given.sunk
    assert (sunk.start_time, sunk.end_time) == (started_at, started_at)
    told = given.one("step")
    assert (told.start_time, told.end_time) == (started_at, started_at)


def test_a_verdict_on_somebody_elses_span_ends_it_no_earlier_than_it_started() -> None:
    """What its owner says of its end is the owner's; the copy is ours."""
    given = beside()
    started_at = time.time_ns() + HOUR
    span = given.tracer.start_span("step", start_time=started_at)

    assert given.judge("step")

    told = given.one("step")
    assert (told.start_time, told.end_time) == (started_at, started_at)
    span.end()
