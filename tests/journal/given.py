"""Spans and journals as the tests of the journal need them."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

from opentelemetry.trace import SpanKind

from agenttrace.journal import read_journal
from agenttrace.journal.format import (
    ERROR_CELL,
    LINK_COUNT,
    PAYLOAD,
    PAYLOAD_START,
    SLOT_SIZE,
    commit_code,
)
from agenttrace.journal.links import LINK_SIZE, pack_link
from agenttrace.journal.texts import pack_texts
from agenttrace.model import ScopeData
from agenttrace.registry import OpenSpan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from agenttrace.journal import Slot
    from agenttrace.model import Ending

_numbers = itertools.count(1)
STARTED_AT = 1_700_000_000_000_000_000


class Tracer:
    """Has the one thing of a tracer that the journal reads."""

    def __init__(self, scope: ScopeData) -> None:
        self.scope_data = scope


TRACER = Tracer(ScopeData("support", "1.2"))


class Live:
    """A span object of another library, of which nothing is known."""

    def tell(self, ending: Ending) -> None:
        """Nobody asks."""

    def copied(self) -> Callable[[Ending], None]:
        """Nobody asks."""
        return self.tell

    def remark(self, key: str, value: str) -> None:
        del key, value


class Step(Live):
    """A span object of ours, as far as the journal looks at it."""

    def __init__(
        self,
        attributes: Mapping[str, object] | None = None,
        tracer: Tracer = TRACER,
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> None:
        self._tracer = tracer
        self._kind = kind
        self._values = attributes or {}
        self.flags = 1
        self.remote_parent = False


_kept: list[Live] = [Step()]
STEP = _kept[0]


def span(  # noqa: PLR0913 - what tests vary, one at a time
    name: str = "step",
    live: Live = STEP,
    *,
    operation: str | None = None,
    started_at: int = STARTED_AT,
    parent_id: bytes = b"",
    parent: OpenSpan | None = None,
    heartbeat_timeout: float | None = None,
    max_duration: float | None = None,
) -> OpenSpan:
    """Return the record of a span that no other one has the id of."""
    number = next(_numbers)
    return OpenSpan(
        live,
        number.to_bytes(16, "big"),
        number.to_bytes(8, "big"),
        parent_id,
        parent,
        name,
        operation,
        started_at,
        sampled=True,
        heartbeat_timeout=heartbeat_timeout,
        max_duration=max_duration,
    )


def slots_of(path: Path) -> list[Slot]:
    """Return what a reader finds in the journal at *path*, nothing of it damaged."""
    with read_journal(path) as reading:
        found = list(reading)
        assert reading.damaged == 0
    return found


def slot_of(path: Path) -> Slot:
    """Return the one slot that is taken."""
    (slot,) = slots_of(path)
    return slot


class Calls:
    """Counts how often it was called."""

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        self.count = 0
        self._then = then

    def __call__(self) -> None:
        self.count += 1
        self._then()


def slot_bytes(slot: Slot) -> bytes:
    """Return *slot* as a writer leaves it in a journal."""
    word = commit_code(slot.state, slot.outcome, slot.ended_by) | slot.sequence << 32
    data = bytearray(SLOT_SIZE)
    data[:8] = word.to_bytes(8, "little")
    PAYLOAD.pack_into(
        data,
        PAYLOAD_START,
        slot.last_beat,
        slot.end_time,
        slot.started_at,
        slot.trace_id,
        slot.span_id,
        slot.parent_id or bytes(8),
        slot.thread_id,
        math.nan if slot.heartbeat_timeout is None else slot.heartbeat_timeout,
        math.nan if slot.max_duration is None else slot.max_duration,
        slot.flags,
        slot.kind.value,
        slot.parent_is_remote,
        pack_texts(
            slot.name,
            slot.operation,
            slot.scope_name,
            slot.scope_version,
            slot.attributes,
        ),
    )
    data[LINK_COUNT] = len(slot.links)
    for number, link in enumerate(slot.links, start=1):
        at = ERROR_CELL - number * LINK_SIZE
        data[at : at + LINK_SIZE] = pack_link(link)
    error = (slot.error_type or "").encode()
    data[ERROR_CELL : ERROR_CELL + 1 + len(error)] = bytes([len(error)]) + error
    return bytes(data)
