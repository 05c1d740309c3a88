"""What of a span is written into its slot, beyond the usual case that `file` writes.

Spans whose texts come for the first time, span objects of other libraries, and
whatever has values that are not as usual; and how a span that did not just return has
ended.  None of this fails because of what it is given.
"""

from __future__ import annotations

import contextlib
import logging
import math
import struct
from typing import TYPE_CHECKING, Final, Protocol

from agenttrace import safety, semconv
from agenttrace.journal.format import (
    ERROR_CELL,
    ERROR_SIZE,
    State,
    commit_code,
    payload_with,
)
from agenttrace.journal.texts import (
    KEY_ATTRIBUTES,
    TEXTS_SIZE,
    encoded,
    pack_texts,
)
from agenttrace.model import error_type_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.trace import SpanKind

    from agenttrace.model import Ending, ScopeData
    from agenttrace.registry import OpenSpan

UNUSUAL: Final = (
    AttributeError,
    LookupError,
    OverflowError,
    TypeError,
    ValueError,
    struct.error,
)
"""What packing raises.  No more than that: what a signal handler of the application
raises in the middle of it, a time-out for one, is the application's.
"""
_MOST_TEXTS: Final = 1024
_CONVERSATION: Final = semconv.GEN_AI_CONVERSATION_ID
_ROUND: Final = 32
"""Bytes that the length of texts is rounded up to: few lengths, a packer for each."""
NOTHING: Final[Mapping[str, object]] = {}
_pack_error: Final = struct.Struct(f"{ERROR_SIZE + 1}p").pack_into


Packed = tuple["Callable[..., None]", bytes]
"""The texts of a span, and what packs as much of a payload as they need."""


class Tracer(Protocol):
    """What made a span, as far as it is read here."""

    @property
    def scope_data(self) -> ScopeData:
        """The instrumentation scope of its spans."""
        ...


class Described(Protocol):
    """What is read of a span object beyond its record, where it has that.

    These are the names of `spans.lean`: a property in front of them would cost a call
    at the start of every span.
    """

    _tracer: Tracer
    _kind: SpanKind
    _values: Mapping[str, object] | None
    flags: int
    remote_parent: bool


def write(
    span: OpenSpan,
    words: memoryview[int],
    payload: int,
    known: dict[object, Packed],
) -> bool:
    """Write what is known of *span* at its start.

    Args:
        span: The record.
        words: The segment of its slot.
        payload: Where in it the payload begins, in bytes.
        known: The texts that have come before, by what they are made of; bounded.

    Returns:
        Whether it could be written.
    """
    try:
        live = span()
        kind = getattr(live, "_kind", None)
        pack, texts = _texts_of(span, live, known)
        pack(
            words,
            payload,
            span.started_at,
            0,
            span.started_at,
            span.trace_id,
            span.span_id,
            span.parent_id,
            span.thread_id,
            _seconds(span.heartbeat_timeout),
            _seconds(span.max_duration),
            getattr(live, "flags", int(span.sampled)),
            0 if kind is None else kind.value,
            bool(getattr(live, "remote_parent", False)),
            texts,
        )
    except UNUSUAL as error:
        safety.log_once(
            "journal.take",
            logging.WARNING,
            "a span cannot be written to the journal (%s); it is not recovered if the "
            "process is killed (logged once)",
            type(error).__name__,
        )
        return False
    except Exception as error:  # noqa: BLE001 - what a foreign span object raises
        safety.swallow("journal.take", error)
        return False
    return True


def is_a_step(span: OpenSpan, live: object) -> bool:
    """Return whether of *span* only its name is written, and of which scope it is.

    Most spans without an operation are steps of what says itself whose conversation it
    is.  One that nothing above it in this process says that of is none: a run, or what
    is the first in a `bind` below the span of a server.
    """
    if span.operation is not None:
        return False
    said = _conversation_of(live)
    above = span.parent
    # By identity: what is bound is handed down as it is, and what is equal and another
    # object is written twice at worst, with no foreign `__eq__` called.
    return said is None or (above is not None and _conversation_of(above()) is said)


def _conversation_of(live: object) -> object:
    return (getattr(live, "_values", None) or NOTHING).get(_CONVERSATION)


def write_error(
    words: memoryview[int], word: int, state: State, ending: Ending | None
) -> int:
    """Write `error.type` into its cell and return what is to be committed."""
    if ending is None:
        return commit_code(state, None, None)
    said = ending.attributes.get(semconv.ERROR_TYPE)
    error_type = said if isinstance(said, str) else error_type_of(ending)
    text = encoded(error_type or "", ERROR_SIZE)
    _pack_error(words, 8 * (word - 1) + ERROR_CELL, text)
    return commit_code(state, ending.outcome, ending.ended_by)


def _seconds(limit: float | None) -> float:
    return math.nan if limit is None else limit


def _texts_of(span: OpenSpan, live: object, known: dict[object, Packed]) -> Packed:
    tracer: Tracer | None = getattr(live, "_tracer", None)
    # A foreign span may be called after anything.
    name = str(span.name)
    scope_name = scope_version = ""
    attributes = NOTHING
    key: tuple[object, ...]
    if tracer is None:
        key = (name, span.operation)
    elif is_a_step(span, live):
        key = (name, tracer)
    else:
        attributes = getattr(live, "_values", None) or attributes
        key = (name, tracer, span.operation, *map(attributes.get, KEY_ATTRIBUTES))
    with contextlib.suppress(TypeError, KeyError):  # TypeError: of a list among them
        return known[key]
    if tracer is not None:
        scope_name, scope_version, *_ = tracer.scope_data
    texts = pack_texts(name, span.operation, scope_name, scope_version, attributes)
    size = min(-(-(len(texts) + 1) // _ROUND) * _ROUND, TEXTS_SIZE)
    packed = payload_with(size).pack_into, texts
    if len(known) >= _MOST_TEXTS:
        known.clear()
    with contextlib.suppress(TypeError):
        known[key] = packed
    return packed
