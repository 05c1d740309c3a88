"""What is made of a slot: always something, and always the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import SpanKind, StatusCode

from agenttrace import semconv
from agenttrace.delivery.otlp import frame_of
from agenttrace.journal import Slot, State
from agenttrace.journal.resources import (
    limits_from,
    resource_bytes,
    resource_from,
)
from agenttrace.journal.slot import read_slot
from agenttrace.model import EndedBy, Outcome, ResourceData
from agenttrace.recovery import span_of
from tests.journal.given import slot_bytes
from tests.recovery.given import STARTED_AT, TICK, forms_in, slot

if TYPE_CHECKING:
    from agenttrace.settings import Limit

RESOURCE = ResourceData({"service.name": "support"})
INSTANTS = st.integers(0, 2**64 - 1)
TEXTS = st.text(max_size=30)
SLOTS = st.builds(
    Slot,
    state=st.sampled_from([State.OPEN, State.ENDED, State.JUDGED]),
    sequence=st.integers(0, 2**32 - 1),
    outcome=st.none() | st.sampled_from(Outcome),
    ended_by=st.none() | st.sampled_from(EndedBy),
    error_type=st.none() | TEXTS,
    last_beat=INSTANTS,
    end_time=INSTANTS,
    started_at=INSTANTS,
    trace_id=st.binary(min_size=16, max_size=16),
    span_id=st.binary(min_size=8, max_size=8),
    parent_id=st.just(b"") | st.binary(min_size=8, max_size=8),
    parent_is_remote=st.booleans(),
    thread_id=INSTANTS,
    flags=st.integers(0, 255),
    kind=st.sampled_from(SpanKind),
    heartbeat_timeout=st.none() | st.floats(),
    max_duration=st.none() | st.floats(),
    name=TEXTS,
    operation=st.none() | TEXTS,
    scope_name=TEXTS,
    scope_version=TEXTS,
    attributes=st.dictionaries(TEXTS, TEXTS, max_size=3),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=10,
)


@given(slot=SLOTS, sign=INSTANTS)
def test_every_slot_has_a_form_that_can_be_sent(slot: Slot, sign: int) -> None:
    """A slot that could not be encoded would keep its whole batch on disk for ever."""
    frame = frame_of([span_of(slot, sign, RESOURCE)])

    assert frame.ids == ((slot.trace_id, slot.span_id),)
    assert len(forms_in(frame.payload)) == 1


@given(slot=SLOTS, sign=INSTANTS)
def test_the_form_is_the_same_whoever_makes_it(slot: Slot, sign: int) -> None:
    """Of two recoveries that were cut half way, both may have sent it."""
    first = frame_of([span_of(slot, sign, RESOURCE)]).payload
    second = frame_of([span_of(slot, sign, RESOURCE)]).payload

    assert first == second


@given(slot=SLOTS, sign=INSTANTS)
def test_no_span_ends_before_it_starts(slot: Slot, sign: int) -> None:
    """Clocks are set back; dashboards draw negative durations all the same."""
    span = span_of(slot, sign, RESOURCE)

    assert span.end_time >= span.start_time


@given(data=st.binary(min_size=512, max_size=512))
def test_bytes_that_can_be_read_as_a_slot_can_be_sent(data: bytes) -> None:
    """What a disk makes of a slot is not known before."""
    try:
        found = read_slot(bytes([data[0] % 4, 0, 0]) + data[3:])
    except ValueError:
        return
    if found is not None and found.state is not State.JUDGED:
        assert frame_of([span_of(found, TICK, RESOURCE)]).payload


def test_an_open_span_is_lost_at_the_last_sign_of_its_process() -> None:
    """Nobody knows more of it: a time of discovery would be the recoverer's."""
    span = span_of(slot(1, parent=9), TICK, RESOURCE)

    assert span.attributes[semconv.OUTCOME] == Outcome.LOST
    assert span.attributes[semconv.ENDED_BY] == EndedBy.RECOVERY
    assert semconv.LAST_HEARTBEAT in span.attributes
    assert span.end_time == TICK
    assert span.parent_id == (9).to_bytes(8, "big")
    assert span.status is StatusCode.ERROR


def test_a_span_that_was_lost_before_the_next_sign_has_taken_some_time() -> None:
    """Jaeger takes a span without any for a mistake, and says so on the page."""
    span = span_of(slot(1), STARTED_AT, RESOURCE)

    assert span.end_time > span.start_time


@pytest.mark.parametrize("outcome", [Outcome.OK, Outcome.ERROR, Outcome.CANCELLED])
def test_an_ended_span_keeps_its_own_ending(outcome: Outcome) -> None:
    """It is told by its owner; that its process died afterwards is no part of it."""
    read = read_slot(slot_bytes(slot(1, State.ENDED, outcome)))
    assert read is not None

    span = span_of(read, TICK, RESOURCE)

    assert span.attributes[semconv.OUTCOME] == outcome
    assert span.attributes[semconv.ENDED_BY] == EndedBy.RETURN
    assert span.attributes[semconv.ATTRIBUTES_LOST] is True
    assert span.end_time == STARTED_AT + 9
    assert semconv.LAST_HEARTBEAT not in span.attributes


@given(data=st.binary(max_size=200))
def test_any_bytes_of_a_header_are_a_resource(data: bytes) -> None:
    """Whoever made the journal may have written anything there."""
    resource_from(data)
    limits_from(data)


@given(attributes=st.dictionaries(TEXTS, JSON, max_size=4))
def test_any_resource_that_comes_out_of_a_header_can_be_sent(
    attributes: dict[str, object],
) -> None:
    """It is a part of every frame."""
    resource = resource_from(resource_bytes(ResourceData(attributes)))
    span = span_of(slot(1), TICK, resource)._replace(resource=resource)

    assert len(forms_in(frame_of([span]).payload)) == 1


LIMITS = st.none() | st.floats(0.001) | st.dictionaries(TEXTS, st.floats(0.001))


@given(limits=st.tuples(LIMITS, LIMITS))
def test_the_limits_of_a_process_come_out_of_a_header_as_they_went_in(
    limits: tuple[Limit, Limit],
) -> None:
    """Whoever shows what is open there has them from nowhere else."""
    data = resource_bytes(ResourceData({"service.name": "support"}), limits)

    assert limits_from(data) == limits
    assert resource_from(data) == ResourceData({"service.name": "support"})


@pytest.mark.parametrize(
    "said",
    [
        *("", "[]", "{}", "[1]", '["x", null]', "[%s]" % ("1" * 400), "1", "[[], 1]"),
        *("[NaN, 1]", "[1, -Infinity]", "[0, null]", '[{"chat": -5}, null]'),
    ],
)
def test_limits_that_cannot_be_read_are_none(said: str) -> None:
    """A journal of another version has none, and a damaged one has anything."""
    assert limits_from(f'{{"limits": {said}}}'.encode()) == (None, None)


def test_a_resource_that_is_nested_without_end_is_none() -> None:
    """A parser that gives up must not give up the spans as well."""
    assert resource_from(b"[" * 200_000) == ResourceData({})
    assert resource_from(b'{"attributes": 1, "schema_url": ""}') == ResourceData({})
