"""What is open now, and for how long it has been silent.

Read off the registry when a reader asks: a start or an end of a span pays nothing.  All
gauges of one reading come from one look.

What once had a series goes on having one, with nothing open: a series that stops is
taken for its last value by backends that are pushed to.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Protocol

from agenttrace import semconv
from agenttrace.clock import COARSE
from agenttrace.semconv import metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from agenttrace.metrics.bounded import Bounded, Values
    from agenttrace.registry import OpenSpan, OpenSpans

_FRESH: Final = 1.0
"""Seconds for which a look is good for the other gauges of a reading."""
_SECOND: Final = 1_000_000_000
_MOST: Final = 1_000
"""Series of each gauge; what is more is told of as one."""

RUNS: Final = frozenset({semconv.INVOKE_AGENT, semconv.INVOKE_WORKFLOW})
"""Operations of what is a run, where it is the outermost."""

Step = tuple[str, str | None]
"""Operation, and the agent that it is a step of."""
_OVERFLOW: Final[Step] = (semconv.OTHER, semconv.OTHER)


class Work(Protocol):
    """Whose open spans are told of."""

    @property
    def spans(self) -> OpenSpans:
        """The registry."""
        ...

    def silence_of(self, span: OpenSpan) -> int | None:
        """Return how long *span* may be silent, in nanoseconds; None = no limit."""
        ...


class _Group:
    """What is open of one step."""

    __slots__ = ("idle", "limit", "open", "stuck")

    def __init__(self) -> None:
        self.open = 0
        self.stuck = 0
        self.idle = 0
        self.limit: int | None = None


class OpenWork:
    """The gauges of what is open.

    Args:
        bounded: What their attributes are taken from.
        judged: What was a step of when it was judged, by its id: records of spans that
            have ended do not know what is above them.
        observed: What was judged and left open, by its id, and its last sign of
            progress then; None = none would do.
        begun: Told the name of each run that is open.
    """

    def __init__(
        self,
        bounded: Bounded,
        judged: Mapping[bytes, Step],
        observed: Mapping[bytes, int | None],
        begun: Callable[[str], object],
    ) -> None:
        self._bounded = bounded
        self._judged = judged
        self._observed = observed
        self._begun = begun
        self._groups: dict[Step, _Group] = {}
        self._looked = 0.0

    def read(self, name: str, work: Work) -> Iterator[tuple[float, Values]]:
        """Return the values of the gauge *name*, and what each is of."""
        now = time.monotonic()
        if name == metrics.SPANS_OPEN or now - self._looked > _FRESH:
            self._looked = now
            self._look(work)
        for step, group in tuple(self._groups.items()):
            value = _value(name, group)
            if value is not None:
                yield value, attributes_of(step)

    def _look(self, work: Work) -> None:
        groups = self._groups
        for group in groups.values():
            group.open = group.stuck = group.idle = 0
        spans = work.spans.snapshot()
        waiting = {span.parent for span in spans}
        now = COARSE.read()
        for span in spans:
            group = self._group_of(self._step_of(span))
            group.open += 1
            if span.operation in RUNS and not _is_below_another(span):
                self._begun(name_of(span.name, span.operation))
            if self._hangs(span):
                group.stuck += 1
            if span in waiting or span.holds:
                continue
            idle = max(now - span.last_beat, 0)
            if idle >= group.idle:
                group.idle, group.limit = idle, work.silence_of(span)
        for span in work.spans.judged():
            step = self._judged.get(span.span_id) or self._step_of(span)
            self._group_of(step).stuck += 1

    def _hangs(self, span: OpenSpan) -> bool:
        """Return whether *span* was judged, and shows no progress since."""
        then = self._observed.get(span.span_id, 0)
        return then is None or (then > 0 and span.last_beat <= then)

    def _step_of(self, span: OpenSpan) -> Step:
        return step_of(span.operation, agent_of(lineage(span)), self._bounded)

    def _group_of(self, step: Step) -> _Group:
        group = self._groups.get(step)
        if group is None:
            if len(self._groups) >= _MOST:
                step = _OVERFLOW
            group = self._groups.setdefault(step, _Group())
        return group


def step_of(operation: object, agent: object, bounded: Bounded) -> Step:
    """Return the step that is told of, where there may be too many of its kind."""
    named = semconv.OTHER if operation is None else operation
    return (
        str(bounded.value(semconv.GEN_AI_OPERATION_NAME, named)),
        None if agent is None else str(bounded.value(semconv.GEN_AI_AGENT_NAME, agent)),
    )


def attributes_of(step: Step) -> Values:
    """Return *step* as attributes."""
    operation, agent = step
    values: Values = {semconv.GEN_AI_OPERATION_NAME: operation}
    if agent is not None:
        values[semconv.GEN_AI_AGENT_NAME] = agent
    return values


def lineage(span: OpenSpan | None) -> Iterator[OpenSpan]:
    """Return *span* and its open ancestors, the nearest first."""
    while span is not None:
        yield span
        span = span.parent


def agent_of(spans: Iterable[OpenSpan]) -> str | None:
    """Return the name of the first of *spans* that is an agent's, None for none."""
    for span in spans:
        if span.operation == semconv.INVOKE_AGENT:
            return name_of(span.name, span.operation)
    return None


def name_of(name: str, operation: object) -> str:
    """Return the agent's, tool's or workflow's name in that of a span.

    By the conventions that begins with the operation.
    """
    return name.removeprefix(f"{operation} ")


def _is_below_another(span: OpenSpan) -> bool:
    return any(each.operation in RUNS for each in lineage(span.parent))


def _value(name: str, group: _Group) -> float | None:
    if name == metrics.SPANS_OPEN:
        return group.open
    if name == metrics.SPANS_STUCK:
        return group.stuck
    if name == metrics.SPANS_IDLE:
        return group.idle / _SECOND
    return None if group.limit is None else group.limit / _SECOND
