"""What makes no progress is told as stuck, at once, and nothing else is."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode

import agenttrace
from agenttrace import safety, semconv
from agenttrace.clock import COARSE
from agenttrace.registry import OpenSpan, OpenSpans, Usual
from agenttrace.watchdog.limits import Limits
from agenttrace.watchdog.watch import Watchdog
from tests.watchdog.given import SECOND, TICK, Body, Told, World, opened, ticking, world

if TYPE_CHECKING:
    from collections.abc import Iterator

HOUR = 3600


@pytest.fixture(params=[False, True], ids=["ours", "attached"])
def given(request: pytest.FixtureRequest) -> Iterator[World]:
    """Watch the spans of each provider: all are watched alike."""
    with world(attached=request.param) as made:
        yield made


def test_a_silent_tool_is_told_as_stuck_while_its_owner_goes_on(given: World) -> None:
    """The dashboard is to show it while it hangs, and not when it is over."""
    with given.block("execute_tool search", "execute_tool") as span:
        given.clock.pass_(299)
        before = given.endings()
        given.clock.pass_(2)
        after = given.endings()
        still = span.is_recording()

    assert before == {}
    assert after == {"execute_tool search": "stuck"}
    assert still
    told = given.sent()["execute_tool search"]
    values = told.attributes or {}
    assert told.status.status_code is StatusCode.ERROR
    assert told.status.description == "no progress for 300 s (limit 300 s)"
    assert values[semconv.ERROR_TYPE] == "stuck"
    assert values[semconv.ENDED_BY] == "watchdog"
    assert semconv.LAST_HEARTBEAT in values


def test_the_verdict_is_an_event_on_the_span(given: World) -> None:
    """What is known of the hang stands where the span is looked at."""
    with given.block("step"):
        given.clock.pass_(301)

    (event,) = given.sent()["step"].events
    values = event.attributes or {}
    assert event.name == "agenttrace.hang"
    assert values[semconv.HANG_RULE] == "silence"
    assert values[semconv.HANG_LIMIT] == 300
    assert 300 <= float(str(values[semconv.HANG_IDLE])) < 301


def test_what_finishes_after_all_is_told_as_a_span_of_its_own(given: World) -> None:
    """A span id has one final form; and a false alarm is to be seen as one."""
    before = safety.counts()["late_given_up"]
    with given.block("slow") as span:
        given.clock.pass_(301)
        span.set_attribute("tokens", 7)

    assert safety.counts()["late_given_up"] == before
    sent = given.sent()
    judged, late = sent["slow"], sent["agenttrace.late_finish: slow"]
    one, other = judged.get_span_context(), late.get_span_context()
    assert one is not None
    assert other is not None
    assert len(given.made.sent()) == 2
    assert one.trace_id == other.trace_id
    assert one.span_id != other.span_id
    assert late.parent is not None
    assert late.parent.span_id == one.span_id
    assert [link.context.span_id for link in late.links] == [one.span_id]
    assert given.endings()["agenttrace.late_finish: slow"] == "ok"
    assert late.start_time == judged.start_time
    assert "tokens" not in (judged.attributes or {})
    assert (late.attributes or {})["tokens"] == 7
    assert late.status.status_code is StatusCode.UNSET
    assert late.events == ()


def test_a_step_that_is_cancelled_later_was_no_false_alarm(given: World) -> None:
    """It had not gone on by itself, and no longer limit would have helped."""
    before = safety.counts()

    with contextlib.suppress(asyncio.CancelledError), given.block("slow"):
        given.clock.pass_(301)
        raise asyncio.CancelledError

    after = safety.counts()
    assert given.endings()["agenttrace.late_finish: slow"] == "cancelled"
    assert after["late_finishes"] == before["late_finishes"] + 1
    assert after["late_given_up"] == before["late_given_up"] + 1


def test_a_late_finish_says_how_it_really_ended(given: World) -> None:
    """A step that was stuck and then failed has failed."""
    with pytest.raises(LookupError), given.block("slow"):  # noqa: PT012 - it has to take its time
        given.clock.pass_(301)
        raise LookupError

    late = given.sent()["agenttrace.late_finish: slow"]
    assert given.endings()["agenttrace.late_finish: slow"] == "error"
    assert late.status.status_code is StatusCode.ERROR
    assert (late.attributes or {})[semconv.ERROR_TYPE] == "LookupError"


def test_a_heartbeat_is_progress(given: World) -> None:
    """Tools report theirs in this way."""
    with given.block("long"):
        (record,) = given.made.registry
        for _ in range(5):
            given.clock.pass_(200)
            record.beat()
        in_between = given.endings()
        given.clock.pass_(299)
        still = given.endings()
        given.clock.pass_(2)
        silent = given.endings()

    assert (in_between, still, silent) == ({}, {}, {"long": "stuck"})


def test_the_deepest_open_step_is_to_blame(given: World) -> None:
    """An agent that waits for a healthy slow tool is healthy."""
    with given.block("agent"), given.block("tool"), given.block("chat"):
        given.clock.pass_(301)
        told = given.endings()

    assert told == {"chat": "stuck"}


def test_ancestors_say_what_they_were_waiting_on(given: World) -> None:
    """However they end: that is what an outcome alone does not say."""
    with given.block("agent"), given.block("tool"), given.block("chat"):
        given.clock.pass_(301)

    sent = given.sent()
    for name in ("agent", "tool"):
        assert (sent[name].attributes or {})[semconv.WAITING_ON] == "chat"
        assert given.endings()[name] == "ok"
    assert semconv.WAITING_ON not in (sent["chat"].attributes or {})


def test_a_judged_child_shields_nobody(given: World) -> None:
    """Who goes on waiting for it is judged by its own limit, later: one by one."""
    with given.block("agent"), given.block("tool"), given.block("chat"):
        given.clock.pass_(301)
        first = set(given.endings())
        given.clock.pass_(298)
        not_yet = set(given.endings())
        given.clock.pass_(5)
        second = set(given.endings())
        given.clock.pass_(303)
        third = set(given.endings())
        waiting = (given.sent()["agent"].attributes or {})[semconv.WAITING_ON]

    assert first == not_yet == {"chat"}
    assert second == {"chat", "tool"}
    assert third == {"chat", "tool", "agent"}
    assert waiting == "tool"


def test_a_parents_clock_starts_again_when_its_child_has_ended(given: World) -> None:
    """It has something to go on with."""
    with given.block("agent"):
        with given.block("chat", heartbeat_timeout=math.inf):
            given.clock.pass_(HOUR)
        given.clock.pass_(299)
        in_time = "agent" in given.endings()
        given.clock.pass_(2)
        silent = given.endings()

    assert not in_time
    assert silent == {"chat": "ok", "agent": "stuck"}


def test_a_child_that_has_ended_shields_its_parent_no_more(given: World) -> None:
    """Whoever is asked about children must not answer from what was long ago."""
    with given.block("agent", heartbeat_timeout=5):
        with given.block("chat"):
            given.clock.pass_(7)
        given.clock.pass_(4)
        in_time = given.endings()
        given.clock.pass_(2)
        silent = given.endings()

    assert in_time == {"chat": "ok"}
    assert silent == {"chat": "ok", "agent": "stuck"}


def test_one_open_child_is_enough(given: World) -> None:
    """Of many that work for it, the last one counts."""
    with given.block("agent"):
        slow = given.block("slow", heartbeat_timeout=math.inf)
        with slow:
            for _ in range(4):
                with given.block("quick"):
                    given.clock.pass_(200)
            given.clock.pass_(HOUR)
            told = given.endings()

    assert told == {"quick": "ok"}


def test_a_span_of_its_own_limit_is_judged_by_that(given: World) -> None:
    """The decorator, or the block, knows best."""
    with (
        given.block("short", heartbeat_timeout=2),
        given.block("endless", heartbeat_timeout=math.inf),
    ):
        given.clock.pass_(3 * HOUR)
        told = given.endings()

    assert told == {}  # the endless one is open beneath the short one

    with given.block("short", heartbeat_timeout=2):
        given.clock.pass_(1)
        in_time = given.endings().get("short")
        given.clock.pass_(2)

    assert in_time == "ok"  # the one before
    assert given.endings()["short"] == "stuck"


def test_the_total_time_passes_whatever_the_progress(given: World) -> None:
    """It was said how long it may take."""
    with (
        given.block("run", max_duration=60),
        given.block("child", heartbeat_timeout=math.inf),
    ):
        for _ in range(61):
            given.clock.pass_(1)
            for record in given.made.registry:
                record.beat()
        told = given.sent()["run"]

    assert given.endings()["run"] == "timed_out"
    assert told.status.description == "not done after 60 s (max_duration)"
    assert (told.attributes or {})[semconv.ERROR_TYPE] == "timeout"
    assert given.endings()["child"] == "ok"


def test_a_stream_may_think_first_and_not_be_silent_after_that(given: World) -> None:
    """The limit that shrinks with the first chunk counts from there on."""
    with given.block("chat", heartbeat_timeout=Usual(120)):
        (record,) = given.made.registry
        given.clock.pass_(5)
        record.heartbeat_timeout = Usual(60)
        record.beat()
        given.clock.pass_(59)
        in_time = given.endings()
        given.clock.pass_(2)
        silent = given.endings()

    assert (in_time, silent) == ({}, {"chat": "stuck"})


def test_a_span_that_was_dropped_is_not_judged() -> None:
    """How that one ended is the sweeper's to tell: it was abandoned."""
    reports: list[object] = []
    registry = OpenSpans()
    dog = Watchdog(registry, Limits(), hooks=[reports.append])
    with ticking(dog) as clock:
        opened(registry, Body())  # nobody holds it
        clock.pass_(301)

    assert reports == []


def test_a_span_that_says_it_started_long_ago_has_only_just_started() -> None:
    """Some record what was before: that is not silence."""
    with world() as given:
        span = given.tracer.start_span(
            "imported", start_time=COARSE.now - HOUR * SECOND
        )
        given.clock.pass_(299)
        in_time = given.endings()
        given.clock.pass_(2)
        silent = given.endings()
        span.end()

    assert (in_time, silent) == ({}, {"imported": "stuck"})


def test_what_is_not_sampled_is_judged_and_not_sent() -> None:
    """Its hang is counted; there is no span to tell it on."""
    told = Told()
    with world(describe=told, sampler=ALWAYS_OFF) as given, given.block("unseen"):
        given.clock.pass_(301)

    assert told.names == ["unseen"]
    assert given.made.sent() == []


def test_at_rest_nothing_is_kept_of_who_had_children() -> None:
    """Who they were was last asked while they were open."""

    def records() -> int:
        found: list[object] = gc.get_objects()
        return sum(type(each) is OpenSpan and each.name == "above" for each in found)

    registry, body = OpenSpans(), Body()
    dog = Watchdog(registry, Limits())
    with ticking(dog) as clock:
        above = opened(registry, body, "above")
        below = opened(registry, body, parent=above, heartbeat_timeout=HOUR)
        clock.pass_(301)
        judged = body.copies
        for span in (below, above):
            registry.claim(span)
        dog.rest()
        del above, below, span
        gc.collect()
        left = records()

    assert (judged, left) == ([], 0)


# Pauses.


def test_the_time_in_a_hold_is_no_part_of_the_total_time(given: World) -> None:
    """Humans take weekends."""
    with given.block("ask", max_duration=60):
        (record,) = given.made.registry
        given.clock.pass_(30)
        record.pause()
        given.clock.pass_(HOUR)
        held = given.endings()
        record.unpause()
        record.held = HOUR * SECOND  # as long as it was by the test's clock
        given.clock.pass_(25)
        in_time = given.endings()
        given.clock.pass_(10)

    assert held == in_time == {}
    assert given.endings()["ask"] == "timed_out"


def test_silence_is_counted_anew_when_a_hold_is_over() -> None:
    """Whoever was waited for has answered: now there is something to do again."""
    with world() as given, given.block("agent"), given.block("ask"):
        with agenttrace.hold("approval"):
            given.clock.pass_(HOUR)
        given.clock.pass_(299)
        in_time = given.endings()
        given.clock.pass_(2)
        silent = given.endings()

    assert (in_time, silent) == ({}, {"ask": "stuck"})


def test_a_hold_within_a_hold_ends_with_the_last_one() -> None:
    """Two tools of one agent may wait for two people."""
    record = opened(OpenSpans(), Body())
    record.pause()
    record.pause()
    record.unpause()
    inside = record.held_for
    record.unpause()
    after = record.held_for

    assert 0 < inside <= after == record.held_for
    assert record.holds == 0


# Time.


@pytest.mark.parametrize(
    ("wall", "steady"),
    [(HOUR, HOUR), (HOUR, 0.2), (-HOUR, 0.2)],
    ids=["starved", "suspended", "set back"],
)
def test_time_in_which_nothing_ran_is_not_held_against_anybody(
    given: World, wall: float, steady: float
) -> None:
    """A laptop that was closed for a night has no stuck spans in the morning."""
    with given.block("tool"):
        given.clock.pass_(290)
        given.clock.tick(int(wall * SECOND), int(steady * SECOND))
        given.clock.pass_(8)
        in_time = given.endings()
        given.clock.pass_(4)
        silent = given.endings()

    assert (in_time, silent) == ({}, {"tool": "stuck"})


def test_a_tick_that_came_late_judges_nobody(given: World) -> None:
    """What it finds silent had no chance to be anything else."""
    with given.block("tool"):
        given.clock.pass_(299.8)
        given.clock.tick(30 * SECOND)
        at_once = given.endings()
        given.clock.pass_(0.4)

    assert at_once == {}
    assert given.endings()["tool"] == "stuck"


# What it costs.


def test_a_hundred_thousand_spans_that_are_not_due_are_not_looked_at() -> None:
    """The watchdog must cost nothing where nothing is wrong."""
    registry, body = OpenSpans(limit=200_000), Body()
    dog = Watchdog(registry, Limits())
    with ticking(dog) as clock:
        agents = [opened(registry, body, "agent") for _ in range(1_000)]
        spans = [opened(registry, body, parent=agents[n % 1000]) for n in range(99_000)]
        clock.pass_(59)
        before = dog.looks
        clock.pass_(5)
        once = dog.looks
        clock.pass_(235)
        unlooked = dog.looks
        for span in spans:
            span.beat()
        clock.pass_(250)

    # Once when the shortest of all limits could have passed, once when theirs had.
    assert (before, once, unlooked) == (0, 100_000, 100_000)
    assert dog.looks <= 300_000
    assert body.copies == []


def test_more_than_can_be_looked_at_in_a_tick_is_looked_at_in_the_next() -> None:
    """A tick must not take seconds, and nothing may be forgotten."""
    registry, body = OpenSpans(limit=200_000), Body()
    dog = Watchdog(registry, Limits(5.0), clock=lambda: 0.0)
    with ticking(dog) as clock:
        for _ in range(25_000):
            opened(registry, body)
        clock.pass_(6)

    assert len(body.copies) == 25_000


def test_an_evicted_span_is_watched_no_more() -> None:
    """Its record is forgotten; its owner may still end it."""
    registry, body = OpenSpans(limit=2), Body()
    with ticking(Watchdog(registry, Limits())) as clock:
        opened(registry, body, "evicted")
        kept = [opened(registry, body, name) for name in ("first", "second")]
        clock.pass_(301)

    assert len(body.copies) == len(kept) == 2


def test_a_child_that_was_evicted_shields_its_parent_no_more() -> None:
    """It leaves without a word to its parent, which must not be healthy for ever."""
    registry = OpenSpans(limit=2)
    with ticking(Watchdog(registry, Limits())) as clock:
        child = opened(registry, Body(), "child", heartbeat_timeout=math.inf)
        body = Body()
        parent = opened(registry, body, "parent")
        child.parent = parent
        clock.pass_(301)
        shielded = list(body.copies)
        opened(registry, Body(), "third", heartbeat_timeout=math.inf)
        clock.pass_(301)

    assert child.evicted
    assert (len(shielded), len(body.copies)) == (0, 1)


def test_the_spans_of_a_runtime_before_are_taken_over() -> None:
    """`configure()` again leaves open spans open, and they may hang."""
    registry, body = OpenSpans(), Body()
    with ticking(Watchdog(registry, Limits())) as clock:
        span = opened(registry, body)
        clock.pass_(200)
        clock.dog = Watchdog(registry, Limits())
        clock.pass_(99)
        before = len(body.copies)
        clock.pass_(2)

    assert (before, len(body.copies)) == (0, 1)
    assert span.watched is clock.dog


def test_ticks_are_exact_to_a_tick() -> None:
    """A verdict that is a second late makes a limit of two seconds useless."""
    registry, body = OpenSpans(), Body()
    with ticking(Watchdog(registry, Limits())) as clock:
        opened(registry, body, heartbeat_timeout=2)
        began = clock.wall
        while not body.copies:
            clock.tick()

    assert 0 <= clock.wall - began - 2 * SECOND <= 2 * TICK
