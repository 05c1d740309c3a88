"""A slot's bytes, read: what stands in it of a span, or would.

The layout is `format`'s.  Apart from what writes, because a process that is never
killed reads none.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from opentelemetry.trace import SpanKind, StatusCode

from agenttrace import semconv
from agenttrace.journal.format import (
    ENDED_BY,
    ERROR_CELL,
    ERROR_SIZE,
    LINK_COUNT,
    OUTCOMES,
    PAYLOAD,
    PAYLOAD_START,
    SLOT_SIZE,
    JournalError,
    State,
)
from agenttrace.journal.links import read_links
from agenttrace.journal.payload import write
from agenttrace.journal.texts import read_texts
from agenttrace.model import Outcome, ScopeData, SpanData

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agenttrace.model import EndedBy, LinkData, ResourceData
    from agenttrace.registry import OpenSpan

_SEQUENCE_SHIFT: Final = 32
_OUTCOME_OF: Final = {code: outcome for outcome, code in OUTCOMES.items()}
_ENDED_BY_OF: Final = {code: ended_by for ended_by, code in ENDED_BY.items()}
_KIND_OF: Final = {kind.value: kind for kind in SpanKind}
_NO_ID: Final = bytes(8)
_NO_TRACE: Final = bytes(16)


class Slot(NamedTuple):
    """What a slot says of its span: as `SpanData` and `OpenSpan` name it.

    *outcome*, *ended_by* and *error_type* are None where it has none; *end_time* is 0
    unless it is ENDED.  *number* is its place in the file, -1 where nobody said.
    """

    state: State
    sequence: int
    outcome: Outcome | None
    ended_by: EndedBy | None
    error_type: str | None
    last_beat: int
    end_time: int
    started_at: int
    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    parent_is_remote: bool
    thread_id: int
    flags: int
    kind: SpanKind
    heartbeat_timeout: float | None
    max_duration: float | None
    name: str
    operation: str | None
    scope_name: str
    scope_version: str
    attributes: Mapping[str, str]
    links: tuple[LinkData, ...] = ()
    number: int = -1


def as_span(  # noqa: PLR0913 - what the slot does not say
    slot: Slot,
    *,
    resource: ResourceData,
    end_time: int,
    attributes: Mapping[str, object],
    status: StatusCode = StatusCode.UNSET,
    status_message: str = "",
) -> SpanData:
    """Return the span in *slot*, with *attributes* beside those that stand there."""
    held: dict[str, object] = dict(slot.attributes)
    if slot.operation is not None:
        held[semconv.GEN_AI_OPERATION_NAME] = slot.operation
    held.update(attributes)
    return SpanData(
        trace_id=slot.trace_id,
        span_id=slot.span_id,
        parent_id=slot.parent_id,
        parent_is_remote=slot.parent_is_remote,
        name=slot.name,
        kind=slot.kind,
        start_time=slot.started_at,
        end_time=max(end_time, slot.started_at),
        attributes=held,
        links=slot.links,
        status=status,
        status_message=status_message,
        resource=resource,
        scope=ScopeData(slot.scope_name, slot.scope_version),
    )


def as_kept(span: OpenSpan) -> Slot | None:
    """Return what a slot says of *span*, which need not have one; without its links.

    Returns:
        None where nothing can be written of it, or nothing that could be read again.
    """
    data = bytearray(SLOT_SIZE)
    words = memoryview(data).cast("Q")
    if not write(span, words, PAYLOAD_START, {}):
        return None
    words[0] = State.OPEN
    try:
        return read_slot(bytes(data))
    except JournalError:  # an application's own generator of ids, or kind of span
        return None


def read_slot(data: bytes, number: int = -1) -> Slot | None:
    """Return what stands in the slot *data*; None where it is free.

    Raises:
        JournalError: *data* is not a slot, or a damaged one.
    """
    if len(data) != SLOT_SIZE:
        msg = f"torn slot: {len(data)} bytes of {SLOT_SIZE}"
        raise JournalError(msg)
    word = int.from_bytes(data[:PAYLOAD_START], "little")
    try:
        state = State(word & 0xFF)
        if state is State.FREE:
            return None
        return _taken(data, word, state, number)
    except (KeyError, ValueError, IndexError) as error:
        msg = f"damaged slot {number}: {error}"
        raise JournalError(msg) from error


def _taken(data: bytes, word: int, state: State, number: int) -> Slot:
    (
        last_beat,
        end_time,
        started_at,
        trace_id,
        span_id,
        parent_id,
        thread_id,
        heartbeat_timeout,
        max_duration,
        flags,
        kind,
        parent_is_remote,
        texts,
    ) = PAYLOAD.unpack_from(data, PAYLOAD_START)
    if trace_id == _NO_TRACE or span_id == _NO_ID or parent_is_remote > 1:
        msg = "no ids, or flags that do not exist"
        raise ValueError(msg)
    texts, links = read_links(texts, data[LINK_COUNT])
    outcome, ended_by = _ending_of(word, state)
    error_type = None
    if outcome is not None and outcome is not Outcome.OK:
        size = data[ERROR_CELL]
        if size > ERROR_SIZE:
            msg = f"an error.type of {size} bytes"
            raise ValueError(msg)
        error_type = data[ERROR_CELL + 1 : ERROR_CELL + 1 + size].decode() or None
    return Slot(
        state,
        word >> _SEQUENCE_SHIFT,
        outcome,
        ended_by,
        error_type,
        last_beat,
        end_time if state is State.ENDED else 0,
        started_at,
        trace_id,
        span_id,
        b"" if parent_id == _NO_ID else parent_id,
        bool(parent_is_remote),
        thread_id,
        flags,
        _KIND_OF[kind],
        None if math.isnan(heartbeat_timeout) else heartbeat_timeout,
        None if math.isnan(max_duration) else max_duration,
        *read_texts(texts),
        links,
        number,
    )


def _ending_of(word: int, state: State) -> tuple[Outcome | None, EndedBy | None]:
    outcome, ended_by = word >> 8 & 0xFF, word >> 16 & 0xFFFF
    if state is State.OPEN or (state is State.JUDGED and not outcome | ended_by):
        if outcome | ended_by:
            msg = "it is open and has an outcome"
            raise ValueError(msg)
        return None, None
    return _OUTCOME_OF[outcome], _ENDED_BY_OF[ended_by]
