"""The watchdog: looks at open spans when they are due, and acts on what the rules say.

Driven by ticks, and by nothing else: a test can tick it through hours in a moment.  It
is on one thread, the ticker's, which has others to serve: what a tick has no time for
is done at the next, and code of the application is called elsewhere (`errands`).

What it costs is for each span that is still open at a tick, once, and then for each
time that one is due.  Open spans are never gone through, but for one thing: whether a
span has an open child.  No span keeps account of its children, since that would cost
every span.  But their starts and ends are heartbeats of it.  So one set of all parents,
made at some time, is right for every span that has been silent since; it is made anew
when one is asked for that has not, and before anything is judged.

What the rules are, and the limits, is the business of `rules` and `limits`; what is
known of where a span hangs, that of whoever gives `describe`.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from agenttrace import safety, semconv
from agenttrace.errors import StuckSpanWarning
from agenttrace.registry import UNLIMITED, Usual
from agenttrace.watchdog.agenda import Agenda
from agenttrace.watchdog.hooks import Hooks
from agenttrace.watchdog.limits import SILENT
from agenttrace.watchdog.rules import SECOND, Facts, Healthy, judge
from agenttrace.watchdog.timeline import TICK, Timeline
from agenttrace.watchdog.verdict import OVERDUE, SILENCE, PlainReport, ending_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from agenttrace.registry import OpenSpan, OpenSpans
    from agenttrace.watchdog.errands import Errands
    from agenttrace.watchdog.limits import Limits
    from agenttrace.watchdog.markers import Markers
    from agenttrace.watchdog.verdict import Report, Verdict

    Note = Callable[[OpenSpan, Report, list[OpenSpan]], object]

OFF: Final = "off"
OBSERVE: Final = "observe"
WARN: Final = "warn"
FAIL: Final = "fail"
CANCEL: Final = "cancel"
_FAILING: Final = frozenset({FAIL, CANCEL})
UNREAD: Final = int(SILENT * SECOND)
"""How long a stream may be silent that nobody waits for: its consumer is busy."""
_SOON: Final = 60 * SECOND
"""How soon to look again at a span whose limit may become shorter."""
_SOMETIME: Final = 600 * SECOND
"""How soon to look again where nothing can pass: it may be given a limit."""
_FRESH: Final = 30 * SECOND
"""How long a set of parents is used: spans that are evicted say nothing to theirs."""
_HANDFUL: Final = 64
_MOST: Final = 10_000
"""Spans that are looked at in one tick; the rest in the next."""
_BUDGET: Final = 0.5
"""Seconds of one tick that may go into looks.  With the last one, and the sleep between
two ticks, that is less than what makes a tick late (`timeline`)."""


class Watchdog:
    """Judges the spans of *registry*.

    Args:
        registry: Whose spans.
        limits: The limits of each.
        on_stuck: `off`, `observe`, `warn`, `fail` or `cancel`: how far it goes.
        hooks: Called with the report of each verdict, on a thread of their own.
        describe: Returns what is known of where a span hangs, None if nothing is; must
            neither wait nor hang.
        cancel: Cancels the tasks that spans hang in, each with a message, and returns
            how many there were.  What it is given ends when a tick has no more time.
        errands: Where the application's processors are called, and its handlers of
            the log; None = at once, on the thread that ticks.
        markers: Tells of what is open for long; None = nobody does.
        note: Told of each verdict before anybody else: of which span, what is known of
            it, and its open ancestors, the nearest first.
        clock: The time in seconds, by which a tick has its time.
    """

    def __init__(  # noqa: PLR0913 - what it is made of
        self,
        registry: OpenSpans,
        limits: Limits,
        *,
        on_stuck: str = FAIL,
        hooks: Iterable[Callable[[Report], object]] = (),
        describe: Callable[[OpenSpan, Verdict], Report | None] | None = None,
        cancel: Callable[[Iterable[tuple[OpenSpan, str]]], int] | None = None,
        errands: Errands | None = None,
        markers: Markers | None = None,
        note: Note | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._limits = limits
        self._on_stuck = on_stuck
        self._hooks = Hooks(hooks)
        self._describe = describe
        self._cancel = cancel
        self._cancelled: deque[tuple[OpenSpan, str]] = deque()
        """Of which spans the tasks are to be cancelled."""
        self._errands = errands
        self._markers = markers
        self._note = note
        self._clock = clock
        self._timeline = Timeline()
        self._agenda = Agenda()
        self._before = 0
        self._parents: set[OpenSpan | None] = set()
        self._parents_at: int | None = None
        self._told: dict[OpenSpan, int | None] = {}
        """What was judged and left open, and when; None = for good."""
        self.looks = 0
        """How often it has looked at a span."""

    @property
    def is_behind(self) -> bool:
        """Whether a tick had no time to cancel the tasks of all that it has judged."""
        return bool(self._cancelled)

    def tick(self, wall: int, steady: int) -> None:
        """Take in what has started, and judge what is due.

        A tick that came late, on a machine that is starved or was suspended, judges
        nothing: what it finds silent had no chance to be anything else.

        Args:
            wall: What heartbeats are told as now, nanoseconds since the epoch.
            steady: A clock that nobody sets, in nanoseconds.
        """
        in_time = self._timeline.advance(wall, steady)
        self._take_in(wall)
        if not in_time:
            return
        self._look_at_due(wall)
        if self._markers is not None:
            self._mark(self._markers, wall)
        if self._agenda.tidy(len(self._registry)):
            self._told = {span: at for span, at in self._told.items() if span.is_open}
        if self._parents and not self._is_fresh():
            self._parents = set()

    def rest(self) -> None:
        """Let go of all spans: each has ended, and the next tick may be hours away."""
        self._agenda.tidy(0, room=0)
        self._told, self._parents = {}, set()
        if self._markers is not None:
            self._markers.rest()

    def _mark(self, markers: Markers, wall: int) -> None:
        """Tell of what has been open for long, unless verdicts wait to be told."""
        if self._errands is None or not self._errands.is_waiting:
            markers.tick(self._timeline.now, wall)
        markers.tidy(len(self._registry))

    def _look_at_due(self, wall: int) -> None:
        """Look at what is due, for as long as a tick may take."""
        until = self._clock() + _BUDGET
        self._cancel_all(until)  # of the last tick
        self._look_until(until, wall)
        self._cancel_all(until)

    def _look_until(self, until: float, wall: int) -> None:
        due = self._agenda.due(self._timeline.now, _MOST)
        for number, span in enumerate(due):
            if self._clock() >= until or self._is_held_up():
                for each in due[number:]:
                    self._agenda.put(each, self._timeline.now)
                safety.count(safety.Count.LOOKS_PUT_OFF, len(due) - number)
                return
            safety.guarded("watchdog", self._look, span, wall)

    def _cancel_all(self, until: float) -> None:
        """Cancel the tasks of what was judged, for as long as there is time."""
        if self._cancel is None or not self._cancelled:
            return
        asked = iter(partial(self._next_cancelled, until), None)
        number = safety.guarded("watchdog.cancel", self._cancel, asked)
        safety.count(safety.Count.TASKS_CANCELLED, number or 0)

    def _next_cancelled(self, until: float) -> tuple[OpenSpan, str] | None:
        if not self._cancelled or self._clock() >= until:
            return None
        return self._cancelled.popleft()

    def _is_held_up(self) -> bool:
        """Return whether processors of the application hang, and verdicts wait."""
        return self._errands is not None and self._errands.is_full

    def _take_in(self, wall: int) -> None:
        """Put on the agenda what has started since the last tick.

        The registry lists spans in the order of their start, so what is new is at its
        end: nothing is asked of a span that starts.
        """
        count = _HANDFUL
        new = self._registry.latest(count)
        while len(new) == count and getattr(new[-1], "watched", None) is not self:
            count *= 8
            new = self._registry.latest(count)
        backdated = self._before - SECOND
        self._before = wall
        soon = self._timeline.now + self._limits.shortest
        for span in new:
            if getattr(span, "watched", None) is self:
                break
            span.watched = self
            if span.started_at < backdated:
                # It says that it started earlier, but it is only just there.
                span.beat()
            if self._markers is not None:
                self._markers.put(span, self._timeline.now)
            if self._on_stuck == OFF:
                continue
            if span.heartbeat_timeout is None and span.max_duration is None:
                # Most are over by then, and have cost next to nothing.
                self._agenda.put(span, soon)
            else:
                safety.guarded("watchdog", self._look, span, wall)

    def _look(self, span: OpenSpan, wall: int) -> None:
        """Judge *span*, or have it come up again."""
        if not span.is_open:
            self._told.pop(span, None)
            return
        self.looks += 1
        now = self._timeline.now
        facts = self._facts_of(span)
        if span in self._told and not self._is_back(span, facts):
            self._agenda.put(span, now + (facts.silence or _SOMETIME))
            return
        answer = judge(facts, now, wall)
        if (
            not isinstance(answer, Healthy)
            and answer.rule == SILENCE
            and self._has_open_child(span, facts.beat)
        ):
            facts.is_shielded = True
            answer = judge(facts, now, wall)
        report: Report | None = None
        if not isinstance(answer, Healthy) and self._is_of_a_stream(span, facts):
            # The usual wait is that for a model.
            report = self._report_on(span, answer)
            if (
                isinstance(report, PlainReport)
                and self._describe is not None
                and answer.idle < 2 * answer.limit
            ):
                self._agenda.put(span, now + TICK)  # there was no time to look
                return
            if report.is_left:
                facts.silence = max(facts.silence or 0, UNREAD)
                answer = judge(facts, now, wall)
        if not isinstance(answer, Healthy):
            self._pronounce(span, answer, report)
            if self._on_stuck not in _FAILING:
                self._agenda.put(span, now + (facts.silence or _SOMETIME))
            return
        until = now + _SOMETIME if answer.until is None else answer.until
        usual = span.heartbeat_timeout
        if type(usual) is Usual and usual is not UNLIMITED:
            # It may become shorter, and a stream that was left may be read again.
            until = min(until, now + min(_SOON, int(usual * SECOND)))
        self._agenda.put(span, until)

    def _facts_of(self, span: OpenSpan) -> Facts:
        instant = self._timeline.instant
        # The word itself: a clock that was set back tells of instants before the start.
        started_at, told = span.started_at, span.beat_word
        started = beat = instant(started_at)
        if told != started_at:
            # Heartbeats are told to a tick: it may have come just before the next one.
            beat = min(instant(told) + TICK, self._timeline.now)
        return Facts(
            started,
            beat,
            silence=self._limits.silence_of(span),
            duration=self._limits.duration_of(span),
            held=span.held_for,
            is_held=span.holds > 0,
        )

    def _is_of_a_stream(self, span: OpenSpan, facts: Facts) -> bool:
        """Return whether *facts* have the usual limit of a stream, not a setting."""
        usual = span.heartbeat_timeout
        if type(usual) is not Usual or usual is UNLIMITED:
            return False
        return facts.silence == int(usual * SECOND)

    def _is_back(self, span: OpenSpan, facts: Facts) -> bool:
        """Return whether *span*, which was judged, has made progress since."""
        told = self._told[span]
        if told is None or facts.beat <= told + TICK:
            return False
        del self._told[span]
        return True

    def _has_open_child(self, span: OpenSpan, beat: int) -> bool:
        """Return whether *span*, silent since *beat*, has a child to be judged."""
        if not self._is_fresh() or (self._parents_at or 0) <= beat:
            self._see_parents()
        if span not in self._parents and self._parents_at != self._timeline.now:
            self._see_parents()
        return span in self._parents

    def _is_fresh(self) -> bool:
        at = self._parents_at
        return at is not None and self._timeline.now - at < _FRESH

    def _see_parents(self) -> None:
        told = self._told
        self._parents = {
            span.parent
            for span in self._registry.snapshot()
            if span not in told or self._is_back(span, self._facts_of(span))
        }
        self._parents_at = self._timeline.now

    def _pronounce(
        self, span: OpenSpan, verdict: Verdict, report: Report | None = None
    ) -> None:
        """Do what is to be done about a span of which a limit has passed."""
        if report is None:
            report = self._report_on(span, verdict)
        above = _ancestors_of(span)
        if self._on_stuck in _FAILING:
            tell = self._registry.take_over(span)
            if tell is None:
                return  # it has ended in this moment
            self._take_note(span, report, above)
            self._call("judge", partial(tell, ending_of(span, verdict, report)))
        else:
            self._take_note(span, report, above)
            self._told[span] = None if verdict.rule == OVERDUE else self._timeline.now
            if span.parent is not None:
                # That it was judged is progress: the parent may still see to it.
                span.parent.beat()
        safety.count(_COUNTS[verdict.rule])
        for ancestor in above:
            live = ancestor()
            if live is not None:
                safety.guarded("remark", live.remark, semconv.WAITING_ON, span.name)
        if self._on_stuck == WARN:
            message = f"{span.path()}: {verdict.reason}"
            self._call("watchdog.warn", partial(_warn, message))
        if self._on_stuck == CANCEL and self._cancel is not None:
            self._cancelled.append((span, f"agenttrace: {verdict.reason}"))
        self._hooks.call(report)

    def _take_note(self, span: OpenSpan, report: Report, above: list[OpenSpan]) -> None:
        if self._note is not None:
            safety.guarded("watchdog.note", self._note, span, report, above)

    def _call(self, site: str, call: Callable[[], object]) -> None:
        """Make a call that ends in code of the application's."""
        if self._errands is None:
            safety.guarded(site, call)
        else:
            self._errands.ask(site, call)

    def _report_on(self, span: OpenSpan, verdict: Verdict) -> Report:
        report: Report | None = None
        if self._describe is not None:
            report = safety.guarded("describe", self._describe, span, verdict)
        return report or PlainReport(span, verdict)


_COUNTS: Final = {
    SILENCE: safety.Count.SPANS_STUCK,
    OVERDUE: safety.Count.SPANS_OVERDUE,
}


def _ancestors_of(span: OpenSpan) -> list[OpenSpan]:
    """Return the open ancestors of *span*, the nearest first."""
    found: list[OpenSpan] = []
    above = span.parent
    while above is not None:
        found.append(above)
        above = above.parent
    return found


def _warn(message: str) -> None:
    """Say it to whoever reads logs, or collects warnings."""
    safety.logger.warning("%s", message)
    # Where warnings are errors there is nobody on this thread to raise it to.
    with contextlib.suppress(StuckSpanWarning):
        warnings.warn(StuckSpanWarning(message), stacklevel=1)
