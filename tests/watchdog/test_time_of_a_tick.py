"""A tick serves others as well: what it has no time for comes at the next."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from agenttrace import safety
from agenttrace.registry import OpenSpans
from agenttrace.watchdog.errands import Errands
from agenttrace.watchdog.limits import Limits
from agenttrace.watchdog.watch import Watchdog
from tests.watchdog.given import Body, opened, ticking, until

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agenttrace.registry import OpenSpan
    from agenttrace.watchdog.verdict import Verdict

LONG = 60


class Slow:
    """Takes so many seconds of a clock for each span that it is asked about."""

    def __init__(self, seconds: float) -> None:
        self.now = 0.0
        self.names: list[str] = []
        self._seconds = seconds

    def clock(self) -> float:
        """Return the time."""
        return self.now

    def describe(self, span: OpenSpan, verdict: Verdict) -> None:
        """Know nothing, after a while."""
        del verdict
        self.now += self._seconds
        self.names.append(span.name)

    def cancel(self, asked: Iterable[tuple[OpenSpan, str]]) -> int:
        """Cancel nothing, after a while."""
        for span, _ in asked:
            self.now += self._seconds
            self.names.append(span.name)
        return 0


def test_reports_that_take_long_are_spread_over_ticks() -> None:
    """A hundred spans that hang together must not stop the clock for a minute."""
    registry, slow = OpenSpans(), Slow(0.2)
    before = safety.counts()["looks_put_off"]
    dog = Watchdog(registry, Limits(), describe=slow.describe, clock=slow.clock)
    of_each_tick: list[int] = []
    with ticking(dog) as clock:
        bodies = [Body() for _ in range(10)]
        spans = [opened(registry, body, f"{n}") for n, body in enumerate(bodies)]
        clock.pass_(300)
        for _ in range(6):
            told = len(slow.names)
            clock.tick()
            of_each_tick.append(len(slow.names) - told)

    assert max(of_each_tick) == 3
    assert sorted(slow.names) == [span.name for span in spans]
    assert safety.counts()["looks_put_off"] > before


def test_tasks_that_are_cancelled_together_are_spread_over_ticks() -> None:
    """To find the task of a span takes longer the more tasks there are."""
    registry, slow = OpenSpans(), Slow(0.2)
    dog = Watchdog(
        registry, Limits(), on_stuck="cancel", cancel=slow.cancel, clock=slow.clock
    )
    with ticking(dog) as clock:
        bodies = [Body() for _ in range(10)]
        spans = [opened(registry, body, f"{n}") for n, body in enumerate(bodies)]
        clock.pass_(300)
        clock.tick()
        clock.tick()
        after_two = len(slow.names)
        clock.pass_(2)

    assert after_two <= 6
    assert sorted(slow.names) == [span.name for span in spans]


def test_what_nobody_cancels_keeps_no_tick_waiting() -> None:
    """It would keep the ticker awake for ever, and every span that was judged."""
    registry, body = OpenSpans(), Body()
    dog = Watchdog(registry, Limits(), on_stuck="cancel")
    with ticking(dog) as clock:
        span = opened(registry, body)
        clock.pass_(302)

    assert (span.is_open, dog.is_behind) == (False, False)


def test_nothing_is_judged_that_could_not_be_told() -> None:
    """While processors hang, what waits for them is open, and in the journal."""
    registry, go, entered = OpenSpans(), threading.Event(), threading.Event()
    errands = Errands("verdicts", most=2)
    bodies = [Body() for _ in range(6)]

    def hang() -> None:
        entered.set()
        go.wait(LONG)

    errands.ask("hangs", hang)
    assert entered.wait(LONG)
    with ticking(Watchdog(registry, Limits(), errands=errands)) as clock:
        kept = [opened(registry, body) for body in bodies]
        clock.pass_(302)
        judged = [span for span in kept if not span.is_open]
        go.set()
        until(lambda: errands.finish(LONG))
        clock.tick()
        until(lambda: errands.finish(LONG))
        clock.tick()
        until(lambda: errands.finish(LONG))

    assert len(judged) == 2
    assert [len(body.copies) for body in bodies] == [1] * 6


def test_a_verdict_ends_no_span_before_its_start() -> None:
    """The clock of the wall may be set back, by any amount."""
    registry, body = OpenSpans(), Body()
    with ticking(Watchdog(registry, Limits())) as clock:
        span = opened(registry, body)
        clock.tick(-3_600_000_000_000, 200_000_000)
        clock.pass_(305)

    (ending,) = body.copies
    assert ending.end_time == span.started_at
    assert [event.time for event in ending.events] == [span.started_at]
