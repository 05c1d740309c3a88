"""What thousands of open spans have in memory: no more than each of them needs."""

from __future__ import annotations

import copy
import gc
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanLimits
from opentelemetry.trace import Link, SpanKind, StatusCode

from agenttrace import semconv
from agenttrace.metrics.open_work import agent_of, lineage
from agenttrace.model import RETURNED, Opening
from agenttrace.registry.records import NOTHING_YET, Aside, OpenSpan, Teller
from agenttrace.spans.lean import LeanSpan
from agenttrace.spans.names import NO_EXTRAS, Extras
from agenttrace.spans.tracer import LeanTracer
from agenttrace.tracing import ending_of, record_of
from tests.spans.bodies import ELSEWHERE
from tests.spans.given import ended_as, lean, waiting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agenttrace.registry import Claim

AGENT = Opening(
    "invoke_agent triage",
    "invoke_agent",
    SpanKind.INTERNAL,
    {semconv.GEN_AI_OPERATION_NAME: "invoke_agent"},
)


def test_what_starts_below_a_span_that_has_ended_is_told_with_its_agent() -> None:
    """Work that an agent leaves behind may hang, and dashboards go by the agent."""
    given = lean()
    tracer = given.tracer
    assert isinstance(tracer, LeanTracer)
    agent = tracer.start(AGENT, otel.get_current())
    here = trace.set_span_in_context(agent)
    agent.end()

    late = [tracer.start_span("left behind", here) for _ in range(2)]

    records = list(given.registry)
    assert [agent_of(lineage(each)) for each in records] == ["triage", "triage"]
    (above,) = {each.parent for each in records}
    assert above is not None
    assert (above.teller, above.is_open) == (Teller.OWNER, False)
    assert records[0].path() == "invoke_agent triage / left behind"
    for span in late:
        span.end()
    agent.end()
    assert [span.name for span in given.sunk] == [
        "invoke_agent triage",
        "left behind",
        "left behind",
    ]
    assert len(given.registry) == 0


def test_a_record_made_in_place_has_what_its_constructor_gives() -> None:
    """Two places know what a record has: the one that others use, and the fast one."""
    given = lean()
    assert isinstance(given.tracer, LeanTracer)
    opening = Opening("chat", "chat", heartbeat_timeout=3.0, max_duration=4.0)
    with given.tracer.start_as_current_span("run") as run:
        span = given.tracer.start(opening, otel.get_current())
    record, above = span.record, record_of(run)
    assert record is not None

    made = OpenSpan(
        span,
        span.trace_id,
        span.span_id,
        span.parent_id,
        above,
        opening.name,
        opening.operation,
        span.start_time or 0,
        True,  # noqa: FBT003 - as it is called
        opening.heartbeat_timeout,
        opening.max_duration,
    )

    there = [name for name in OpenSpan.__slots__ if hasattr(made, name)]
    assert len(there) > 10
    assert [getattr(record, name) for name in there] == [
        getattr(made, name) for name in there
    ]
    span.end()


def test_the_second_of_two_who_end_a_span_at_once_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was told is queued, and what is queued says what the journal does."""
    given = lean()
    queue = waiting(given)
    span = given.tracer.start_span("step")
    assert isinstance(span, LeanSpan)
    claim = given.registry.claim

    def after_another(record: OpenSpan) -> Claim:
        monkeypatch.undo()
        span.finish(RETURNED)
        return claim(record)

    monkeypatch.setattr(given.registry, "claim", after_another)
    span.finish(ending_of(ValueError("too late")))

    assert queue == [span]
    assert ended_as(span) == ("ok", "return")
    assert span.status.status_code is StatusCode.UNSET


def test_a_copy_of_an_open_span_has_no_part_in_its_end() -> None:
    """Whoever copies a state that a span stands in copies the span as well."""
    given = lean()
    span = given.tracer.start_span("original")
    twin = copy.deepcopy(span)

    given.tracer.start_span("child", trace.set_span_in_context(twin)).end()
    twin.end()
    del twin
    gc.collect()

    assert not given.registry.collected
    assert [each.name for each in given.registry] == ["original"]
    span.end()
    assert [form.name for form in given.sunk] == ["child", "original"]


def test_half_of_a_copy_takes_nothing_from_the_original(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C may come in the middle of it."""
    given = lean()
    span = given.tracer.start_span("original")
    span.add_event("said")

    def interrupted(_extras: Extras) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Extras, "__init__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            copy.deepcopy(span)
    gc.collect()

    assert not given.registry.collected
    span.end()
    assert [form.name for form in given.sunk] == ["original"]


def values_of(thing: Aside | Extras) -> dict[str, object]:
    return {name: getattr(thing, name) for name in thing.__slots__}


def test_nothing_is_written_on_what_all_spans_share() -> None:
    """What one span has seldom, none of the others may find on itself."""
    given = lean(span_limits=SpanLimits(max_span_attributes=2, max_events=1))
    other = given.tracer.start_span("other")
    span = given.tracer.start_span("step", links=[Link(ELSEWHERE)])
    record = given.record("step")

    span.add_event("said")
    span.add_event("said again")
    span.add_link(ELSEWHERE)
    span.get_span_context()
    span.set_attributes({"a": 1, "b": 2, "c": 3})
    span.set_status(StatusCode.ERROR, "broken")
    span.record_exception(LookupError())
    record.pause()
    record.note, record.progress, record.origin = "waits", 0.5, "app.py:1"
    record.evicted = True
    record.evicted = False
    record.unpause()
    span.end()
    with suppress(LookupError), given.tracer.start_as_current_span("fails"):
        raise LookupError

    shared = NOTHING_YET, NO_EXTRAS
    assert [values_of(each) for each in shared] == [
        values_of(Aside()),
        values_of(Extras()),
    ]
    theirs = given.record("other")
    assert (theirs.holds, theirs.note, theirs.progress) == (0, None, None)
    assert (record.note, record.progress, record.origin) == ("waits", 0.5, "app.py:1")
    other.end()
    form = next(each for each in given.sunk if each.name == "other")
    assert [*form.events, *form.links, form.status_message] == [""]


@pytest.fixture
def restless() -> Iterator[None]:
    """Have threads take turns as often as they can."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("restless")
def test_pauses_of_many_threads_are_all_counted() -> None:
    """Each of them may be the first that has something to keep aside."""
    given = lean()
    for _ in range(50):
        span = given.tracer.start_span("step")
        record = given.record("step")
        ready = threading.Barrier(8)

        def pause(record: OpenSpan = record, ready: threading.Barrier = ready) -> None:
            ready.wait()
            record.pause()
            record.note = "waits"

        threads = [threading.Thread(target=pause) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert record.holds == 8
        for _ in threads:
            record.unpause()
        assert record.holds == 0
        assert 0 <= record.held_for == record.held
        span.end()
