"""Slots as the tests of the live view need them."""

from __future__ import annotations

from opentelemetry.trace import SpanKind

from agenttrace.journal import Slot, State
from agenttrace.live import Process, forest
from agenttrace.model import EndedBy, Outcome

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND
TRACE = bytes([7]) * 16


def slot(  # noqa: PLR0913 - what tests vary, one at a time
    number: int,
    parent: int | None = None,
    *,
    state: State = State.OPEN,
    age: float = 10,
    idle: float = 0,
    operation: str | None = None,
    heartbeat_timeout: float | None = None,
    max_duration: float | None = None,
    trace: bytes = TRACE,
) -> tuple[Slot, int]:
    """Return the slot of step *number*, part of step *parent*, and its heartbeat."""
    is_judged = state is State.JUDGED
    beat = NOW - round(idle * SECOND)
    found = Slot(
        state=state,
        sequence=1,
        outcome=Outcome.STUCK if is_judged else None,
        ended_by=EndedBy.WATCHDOG if is_judged else None,
        error_type=None,
        last_beat=beat,
        end_time=0,
        started_at=NOW - round(age * SECOND),
        trace_id=trace,
        span_id=_id(number),
        parent_id=b"" if parent is None else _id(parent),
        parent_is_remote=False,
        thread_id=1,
        flags=1,
        kind=SpanKind.INTERNAL,
        heartbeat_timeout=heartbeat_timeout,
        max_duration=max_duration,
        name=f"step {number}",
        operation=operation,
        scope_name="agenttrace",
        scope_version="1.0",
        attributes={},
        number=number,
    )
    return found, beat


def process(*slots: tuple[Slot, int], pid: int = 1, is_frozen: bool = False) -> Process:
    """Return a process with *slots*."""
    name = f"{pid}-0123456789abcdef"
    return Process(pid, (name,), "support", NOW, 0.0, forest(slots, NOW), is_frozen)


def _id(number: int) -> bytes:
    return (number + 1).to_bytes(8, "big")
