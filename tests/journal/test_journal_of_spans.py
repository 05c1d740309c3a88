"""Real spans, ours and the SDK's, stand in the journal as what they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.trace import SpanKind

from agenttrace import semconv
from agenttrace.attributes import flat
from agenttrace.context.bound import bind
from agenttrace.journal import Journal, State
from agenttrace.model import Opening
from agenttrace.registry import OpenSpans
from agenttrace.registry.records import SINK
from agenttrace.spans.provider import Ended, Provider
from agenttrace.spans.tracer import LeanTracer
from tests.journal.given import slot_of, slots_of
from tests.spans.given import beside, lean, waiting

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHAT = Opening(
    "chat gpt-5",
    "chat",
    SpanKind.CLIENT,
    {
        semconv.GEN_AI_OPERATION_NAME: "chat",
        semconv.GEN_AI_REQUEST_MODEL: "gpt-5",
        semconv.GEN_AI_PROVIDER_NAME: "openai",
        semconv.GEN_AI_INPUT_MESSAGES: "the secret",
    },
    heartbeat_timeout=30.0,
)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """Yield an empty journal."""
    made = Journal(tmp_path, first_slots=64, on_low=lambda: None)
    yield made
    made.close(remove=True)


def states(journal: Journal) -> list[State]:
    """Return the states of all slots that are taken."""
    return [slot.state for slot in slots_of(journal.path)]


def test_a_span_of_ours_tells_all_that_a_slot_has_room_for(journal: Journal) -> None:
    """The journal reads span objects by names of theirs, which must be right."""
    given = lean()
    given.registry.slots = journal
    tracer = given.tracer
    assert isinstance(tracer, LeanTracer)

    run = tracer.start_span("run")
    with trace.use_span(run, end_on_exit=True):
        chat = tracer.start(CHAT, otel.get_current())
        found = {slot.name: slot for slot in slots_of(journal.path)}
        chat.end()

    parent, slot = found["run"], found["chat gpt-5"]
    assert slot.parent_id == parent.span_id
    assert slot.trace_id == run.get_span_context().trace_id.to_bytes(16, "big")
    assert (slot.kind, slot.parent_is_remote) == (SpanKind.CLIENT, False)
    assert slot.flags == run.get_span_context().trace_flags
    assert (slot.scope_name, slot.scope_version) == ("lib", "1.2")
    assert slot.operation == "chat"
    assert slot.heartbeat_timeout == 30.0
    assert slot.attributes == {
        semconv.GEN_AI_REQUEST_MODEL: "gpt-5",
        semconv.GEN_AI_PROVIDER_NAME: "openai",
    }
    assert b"secret" not in journal.path.read_bytes()


def test_a_step_says_whose_conversation_it_is_where_no_span_above_it_does(
    journal: Journal,
) -> None:
    """A server's span begins before its endpoint binds what it has found out."""
    given = lean()
    given.registry.slots = journal
    start = given.tracer.start_as_current_span

    with (
        start("server"),
        bind(conversation_id="c-17"),
        start("answer"),
        start("step"),
        bind(conversation_id="c-18"),
        start("other"),
    ):
        found = {slot.name: slot.attributes for slot in slots_of(journal.path)}

    assert found == {
        "server": {},
        "answer": {semconv.GEN_AI_CONVERSATION_ID: "c-17"},
        "step": {},
        "other": {semconv.GEN_AI_CONVERSATION_ID: "c-18"},
    }
    assert slots_of(journal.path) == [], "written by the sink"


def test_a_span_that_ended_stands_there_until_it_is_written(journal: Journal) -> None:
    """Between the two, the slot is all there is of it."""
    found: list[State] = []
    registry = OpenSpans(journal)

    def sink(ended: Ended) -> None:
        found.append(slot_of(journal.path).state)
        ended.written()

    provider = Provider(registry, sink, resource=Resource({}))

    provider.get_tracer("lib").start_span("run").end()

    assert found == [State.ENDED]
    assert slots_of(journal.path) == []


def test_a_slot_is_freed_once(journal: Journal) -> None:
    """Who comes second would free that of the span which has it by then."""
    given = lean()
    given.registry.slots = journal
    queue = waiting(given)
    given.tracer.start_span("first").end()
    queue[0].written()
    second = given.tracer.start_span("second")

    queue[0].written()

    assert states(journal) == [State.OPEN]
    second.end()


def test_a_copy_of_a_span_that_has_ended_has_no_slot(journal: Journal) -> None:
    given = lean()
    given.registry.slots = journal
    queue = waiting(given)
    given.tracer.start_span("step").end()

    queue[0].__copy__().written()

    assert states(journal) == [State.ENDED]
    queue[0].written()
    assert states(journal) == []


def test_heartbeats_for_a_span_that_has_ended_go_nowhere(journal: Journal) -> None:
    """A child that outlives it beats for it, while the slot is another span's."""
    given = lean()
    given.registry.slots = journal
    queue = waiting(given)
    above = given.tracer.start_span("above")
    record = given.record("above")
    below = given.tracer.start_span("below", trace.set_span_in_context(above))

    above.end()
    queue[0].written()
    record.beat()

    assert record.words is SINK
    assert given.record("below").parent is record
    below.end()


@pytest.mark.parametrize("is_judged", [False, True])
def test_a_slot_is_kept_whoever_tells_the_end(
    journal: Journal, is_judged: object
) -> None:
    """The watchdog tells a copy; the slot is the owner's until it is done as well."""
    given = lean()
    given.registry.slots = journal
    queue = waiting(given)
    span = given.tracer.start_span("step")
    if is_judged:
        assert given.judge("step")
        assert states(journal) == [State.OPEN]
        queue.pop().written()
        assert states(journal) == [State.JUDGED]

    span.end()
    for each in queue:
        each.written()

    assert states(journal) == []


def test_an_adopted_span_is_written_as_far_as_it_is_known(journal: Journal) -> None:
    """Other libraries' spans are recovered, too."""
    given = beside()
    given.registry.slots = journal

    with given.tracer.start_as_current_span(
        "GET /", attributes={semconv.GEN_AI_OPERATION_NAME: "http"}
    ) as span:
        slot = slot_of(journal.path)

    assert slot.span_id == span.get_span_context().span_id.to_bytes(8, "big")
    assert (slot.name, slot.operation, slot.state) == ("GET /", "http", State.OPEN)
    assert slots_of(journal.path) == []


def test_an_adopted_span_tells_all_that_one_of_ours_does(journal: Journal) -> None:
    """What recovery makes of it is to be found where its library's spans are."""
    given = beside()
    given.registry.slots = journal
    remote = trace.SpanContext(7, 8, is_remote=True, trace_flags=trace.TraceFlags(1))
    tracer = given.tracer

    span = tracer.start_span(
        "chat gpt-5",
        trace.set_span_in_context(trace.NonRecordingSpan(remote)),
        CHAT.kind,
        {key: flat(value) for key, value in CHAT.attributes.items()},  # type: ignore[misc]  # flat is what it takes
    )
    slot = slot_of(journal.path)
    span.end()

    assert (slot.kind, slot.flags) == (SpanKind.CLIENT, 1)
    assert (slot.parent_id, slot.parent_is_remote) == (bytes([0] * 7 + [8]), True)
    assert (slot.scope_name, slot.scope_version) == ("lib", "1.2")
    assert slot.attributes == {
        semconv.GEN_AI_REQUEST_MODEL: "gpt-5",
        semconv.GEN_AI_PROVIDER_NAME: "openai",
    }
    assert b"secret" not in journal.path.read_bytes()


def test_the_slot_of_an_adopted_span_is_free_when_all_processors_have_it(
    journal: Journal,
) -> None:
    """Until then a crash would cost it; from then on it is theirs to lose."""
    given = beside()
    given.registry.slots = journal
    found: list[tuple[State, str | None]] = []

    class Looks(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            del span
            slot = slot_of(journal.path)
            found.append((slot.state, slot.error_type))

    given.provider.add_span_processor(Looks())
    with pytest.raises(LookupError), given.tracer.start_as_current_span("work"):
        raise LookupError

    assert found == [(State.ENDED, "LookupError")]
    assert slots_of(journal.path) == []


def test_an_adopted_span_that_is_judged_is_free_as_well(journal: Journal) -> None:
    """Its verdict was handed over, and what its owner says is another span."""
    given = beside()
    given.registry.slots = journal
    span = given.tracer.start_span("hung")

    assert given.judge("hung")
    assert slots_of(journal.path) == []

    span.end()
    assert slots_of(journal.path) == []
    assert len(given.sent()) == 2
