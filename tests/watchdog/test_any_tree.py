"""Whatever a run does, it is judged by what it did, within a tick or two."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from agenttrace.clock import COARSE
from agenttrace.registry import OpenSpan, OpenSpans
from agenttrace.watchdog.limits import Limits
from agenttrace.watchdog.watch import Watchdog
from tests.watchdog.given import SECOND, TICK, Body, Clock, opened

LIMIT = 2 * SECOND
LONGEST = 5 * SECOND
LATE = 3 * TICK
"""A heartbeat is told to a tick, a span is taken in at one, and judged at one."""


class Step:
    """What a test knows of one span, by its own clock."""

    def __init__(self, parent: Step | None, now: int, span: OpenSpan) -> None:
        self.parent = parent
        self.started = self.progress = now
        self.span = span
        self.is_over = False
        self.children: list[Step] = []

    @property
    def waits(self) -> bool:
        """Whether a child is open that was not judged."""
        return any(not child.is_over for child in self.children)


class Run(RuleBasedStateMachine):
    """Spans start, beat, pause and end, and time passes, in any order."""

    @initialize(on_stuck=st.sampled_from(["fail", "observe"]))
    def begin(self, on_stuck: str) -> None:
        self.registry = OpenSpans()
        self.steps: list[Step] = []
        self.bodies: list[Body] = []
        limits = Limits(LIMIT / SECOND, LONGEST / SECOND)
        self.verdicts: list[tuple[OpenSpan, str]] = []
        self.clock = Clock(
            Watchdog(
                self.registry,
                limits,
                on_stuck=on_stuck,
                describe=lambda span, said: self.verdicts.append((span, said.rule)),
            )
        )

    def teardown(self) -> None:
        COARSE.renew()

    @property
    def now(self) -> int:
        return self.clock.wall

    def open_steps(self) -> list[Step]:
        return [step for step in self.steps if not step.is_over]

    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        parents = [None, *self.open_steps()]
        parent = data.draw(st.sampled_from(parents))
        body = Body()
        self.bodies.append(body)
        above = None if parent is None else parent.span
        step = Step(parent, self.now, opened(self.registry, body, parent=above))
        self.steps.append(step)
        if parent is not None:
            parent.children.append(step)
            parent.progress = self.now

    @precondition(lambda self: self.open_steps())
    @rule(data=st.data())
    def beat(self, data: st.DataObject) -> None:
        step = data.draw(st.sampled_from(self.open_steps()))
        step.span.beat()
        step.progress = self.now

    @precondition(lambda self: self.open_steps())
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        step = data.draw(st.sampled_from(self.open_steps()))
        self.registry.claim(step.span)
        self.over(step)

    def over(self, step: Step) -> None:
        step.is_over = True
        if step.parent is not None:
            step.parent.progress = self.now

    @rule(ticks=st.integers(1, 15))
    def pass_(self, ticks: int) -> None:
        for _ in range(ticks):
            self.clock.tick()
            self.compare()

    @rule(seconds=st.integers(2, 10_000), stands=st.booleans())
    def skip(self, seconds: int, *, stands: bool) -> None:
        """Suspend the host, or starve it: neither is anybody's silence."""
        before = self.now
        self.clock.tick(seconds * SECOND, TICK if stands else None)
        assert not self.verdicts
        for step in self.steps:
            step.started += self.now - before - TICK
            step.progress += self.now - before - TICK

    def compare(self) -> None:
        """Check every verdict of this tick, and that none is missing."""
        told, self.verdicts[:] = list(self.verdicts), []
        by_span = {step.span: step for step in self.steps}
        for span, said in told:
            step = by_span[span]
            assert not step.is_over
            if said == "silence":
                assert not step.waits
                assert self.now - step.progress >= LIMIT
            else:
                assert self.now - step.started >= LONGEST
            self.over(step)
        for step in self.open_steps():
            assert self.now - step.started < LONGEST + LATE
            assert step.waits or self.now - step.progress < LIMIT + LATE

    @invariant()
    def every_body_is_told_at_most_once(self) -> None:
        if hasattr(self, "bodies"):
            assert all(len(body.copies) <= 1 for body in self.bodies)


TestAnyTree = Run.TestCase
TestAnyTree.settings = settings(deadline=None, stateful_step_count=30)
