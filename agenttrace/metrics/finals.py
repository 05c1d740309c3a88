"""Measurements of final forms, and of verdicts.

Runs are counted here, ends in `ends`, and a reader reads them: what OpenTelemetry's own
counters take is more than what it takes to encode a span.  What is measured of a few
spans, the calls of models, verdicts and blocks, goes there at once, in the context of
its span: so exemplars lead to the trace.

A *run* is an agent or a workflow that has none above it, in this process.  What is
above one may be told after it: until then it waits to be counted.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    set_span_in_context,
)

from agenttrace import safety, semconv
from agenttrace.metrics.bounded import remember
from agenttrace.metrics.ends import AGENT, PREFIX, Ends, as_series, said_of
from agenttrace.metrics.open_work import RUNS, agent_of, attributes_of, step_of
from agenttrace.model import EndedBy, Outcome
from agenttrace.semconv import metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from agenttrace.metrics.bounded import Bounded, Values
    from agenttrace.metrics.ends import Key
    from agenttrace.metrics.open_work import Step
    from agenttrace.model import SpanData
    from agenttrace.registry import OpenSpan, OpenSpans

_SECOND: Final = 1_000_000_000
_DEEPEST: Final = 1_000
"""Spans that are gone up to find an agent."""
_MOST_WAITING: Final = 1_000
_LONGEST: Final = 10.0
"""Seconds that an agent waits to be told what is above it: then nobody will."""
_SILENCE: Final = "silence"
_TOKENS: Final = (
    (semconv.GEN_AI_USAGE_INPUT_TOKENS, "input"),
    (semconv.GEN_AI_USAGE_OUTPUT_TOKENS, "output"),
)
_USUAL: Final = (
    (Outcome.OK.value, False),
    (Outcome.ERROR.value, False),
    # Whatever a time-out, somebody who has waited long enough or the next step makes of
    # a run that hangs.
    *((outcome.value, True) for outcome in Outcome),
)
"""How runs end, and whether they have hung."""
_CALL: Final = (
    semconv.GEN_AI_OPERATION_NAME,
    semconv.GEN_AI_PROVIDER_NAME,
    semconv.GEN_AI_REQUEST_MODEL,
    semconv.GEN_AI_RESPONSE_MODEL,
    semconv.SERVER_ADDRESS,
    semconv.SERVER_PORT,
)

Above = bool | bytes | None
"""Whether an agent is above one, or the id of the span that this depends on."""


class _Waiting:
    """An agent that has ended, of which it is not known whether it is a run.

    Args:
        span: Its final form.
        count: Counts it as one.
        now: The time, in seconds.
    """

    __slots__ = ("awaited", "count", "parent_id", "until")

    def __init__(
        self, parent_id: bytes, awaited: bytes, count: Callable[[], None], now: float
    ) -> None:
        self.parent_id = parent_id
        self.awaited = awaited
        self.count = count
        self.until = now + _LONGEST


class Finals:
    """What is measured of spans that have ended, or were judged.

    Args:
        bounded: What attributes are taken from.
        record: Takes name, value, attributes and context of a measurement.
        spans: The registry, for what is above a span.
        clock: The time in seconds, which nobody sets.
    """

    def __init__(
        self,
        bounded: Bounded,
        record: Mapping[str, Any],
        spans: OpenSpans,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._bounded = bounded
        self._record = record
        self._spans = spans
        self._ends = Ends(bounded)
        self._keys: dict[tuple[object, ...], Key] = {}
        """What runs are counted as, by what spans say."""
        self._runs: dict[Key, int] = {}
        self._begun: dict[object, None] = {}
        self._hung: dict[bytes, None] = {}
        """Runs that hang, or have a step that does."""
        self.steps: dict[bytes, Step] = {}
        """What was judged lately, and what it was a step of."""
        self.observed: dict[bytes, int | None] = {}
        """What was judged and left open, and its last sign of progress then; None =
        there is none that would do."""
        self._waiting: dict[bytes, _Waiting] = {}

    def forget(self) -> None:
        """Begin at nothing: what was counted is the parent process's."""
        self._ends.forget()
        counted = (self._keys, self._runs, self._begun)
        lately = (self._hung, self.steps, self.observed, self._waiting)
        for known in (*counted, *lately):
            known.clear()

    @property
    def is_waiting(self) -> bool:
        """Whether agents wait to be told what is above them: `settle` sees to it."""
        return bool(self._waiting)

    def ended(self) -> Iterator[tuple[int, Values]]:
        """Return how many spans have ended, and how."""
        return self._ends.told()

    def runs(self) -> Iterator[tuple[int, Values]]:
        """Return how many runs have ended, and how."""
        return as_series(self._runs)

    def observe(self, spans: Sequence[SpanData]) -> None:
        """Count final forms, and measure what else there is of them."""
        for span, above in self.count(spans):
            self.measure(span, above)

    def count(self, spans: Sequence[SpanData]) -> Sequence[tuple[SpanData, Above]]:
        """Count final forms (see `Ends.count`).

        Returns:
            What is left to `measure`: that may be late, and what is above them is
            remembered of the latest spans alone.
        """
        more = [
            (span, safety.guarded("metrics.observe", self._above, span))
            for span in self._ends.count(spans)
        ]
        if self.observed:
            for span in spans:
                self.observed.pop(span.span_id, None)
        return more

    def measure(self, span: SpanData, above: Above) -> None:
        """Measure what there is of *span* beyond its end (see `count`)."""
        safety.guarded("metrics.observe", self._observe, span, above)

    def settle(self, *, is_last: bool = False) -> None:
        """Count what has waited, where it is known by now what is above it.

        Args:
            is_last: Whether nothing more will be known.
        """
        if not self._waiting:
            return
        now = self._clock()
        for span_id, waiting in tuple(self._waiting.items()):
            is_over = is_last or now >= waiting.until
            if not is_over and self._ends.above(waiting.awaited) is None:
                continue
            above = self._agent_above(waiting.parent_id)
            if isinstance(above, bytes) and not is_over:
                waiting.awaited = above
                continue
            del self._waiting[span_id]
            if above is not True:
                waiting.count()

    def _above(self, span: SpanData) -> bool | bytes:
        """Return what is known of agents above *span*, if it is one itself."""
        is_agent = self._ends.above(span.span_id) is AGENT
        return self._agent_above(_parent_of(span)) if is_agent else False

    def _observe(self, span: SpanData, above: Above) -> None:
        """Take a span of which more is measured than its end."""
        if span.name.startswith(PREFIX):
            self._observe_ours(span)
            return
        operation, agent, outcome, _ = said_of(span)
        if operation in RUNS:
            self._observe_agent(span, agent, outcome, above)
        else:
            self._observe_call(span, judged=_is_judged(span))

    def judged(
        self,
        span: OpenSpan,
        report: object,
        above: Sequence[OpenSpan],
        beat: int | None,
    ) -> None:
        """Take a verdict.

        Args:
            span: Which was judged.
            report: What is known of it (`watchdog.verdict.Report`).
            above: Its open ancestors, the nearest first.
            beat: Its last sign of progress, if it was left open.
        """
        lineage = (span, *above)
        run = [each for each in lineage if each.operation in RUNS]
        if run:
            remember(self._hung, run[-1].span_id, None)
        told: Any = report
        cause = str(getattr(report, "cause", "unknown"))
        if beat is not None:
            # More time makes up for silence, for nothing else.
            is_silent = told.rule == _SILENCE
            remember(self.observed, span.span_id, beat if is_silent else None)
        step = step_of(span.operation, agent_of(lineage), self._bounded)
        remember(self.steps, span.span_id, step)
        values = attributes_of(step) | self._bounded.values(
            ((semconv.HANG_CAUSE, cause), (semconv.HANG_RULE, told.rule))
        )
        where = _context(span.trace_id, span.span_id, is_sampled=span.sampled)
        self._record[metrics.STALLS](1, values, where)
        self._record[metrics.STALL_DURATION](told.idle, values, where)

    def _observe_ours(self, span: SpanData) -> None:
        """Take a span that tells of another, or of a loop: it is no step itself."""
        if span.name == semconv.LOOP_BLOCKED:
            self._record[metrics.BLOCK_DURATION](_seconds(span), {}, _context_of(span))
        elif span.name.startswith(semconv.LATE_FINISH):
            # That it took so long was told with the verdict, what it used was not.
            self._observe_tokens(span, self._call_of(span), _context_of(span))

    def _observe_agent(
        self, span: SpanData, agent: object, outcome: object, above: Above
    ) -> None:
        hung = span.span_id in self._hung or _is_judged(span)
        self._hung.pop(span.span_id, None)

        def count() -> None:
            self.begin(agent)
            key = self._run(agent, outcome, hung)
            self._runs[key] = self._runs.get(key, 0) + 1

        if isinstance(above, bytes):
            if len(self._waiting) >= _MOST_WAITING:
                self._waiting.pop(next(iter(self._waiting))).count()
            made = _Waiting(_parent_of(span), above, count, self._clock())
            self._waiting[span.span_id] = made
        elif not above:
            count()

    def begin(self, agent: object) -> None:
        """Have the usual ends of runs of *agent* begin at nothing.

        A rate does not see the first value of a series: it would be blind for the
        first hang.
        """
        if agent not in self._begun:
            remember(self._begun, agent, None)
            for usual in _USUAL:
                self._runs.setdefault(self._run(agent, *usual), 0)

    def _run(self, *said: object) -> Key:
        key = self._keys.get(said)
        if key is None:
            names = (semconv.GEN_AI_AGENT_NAME, semconv.OUTCOME, metrics.HUNG)
            key = tuple(self._bounded.values(zip(names, said, strict=True)).items())
            remember(self._keys, said, key)
        return key

    def _agent_above(self, span_id: bytes) -> bool | bytes:
        """Return whether an agent or a workflow is above who has this parent.

        Returns:
            The id of the span that it depends on, where that is not known: its end has
            not been seen yet, or it is none of this process's.
        """
        judged = {each.span_id: each for each in self._spans.judged()}
        last = b""
        for _ in range(_DEEPEST):
            if not span_id:
                return False
            above = self._ends.above(span_id)
            if above is None:
                is_open = self._spans.find(span_id) or judged.get(span_id)
                if is_open is None:
                    # What is open will say when it ends whether that is elsewhere.
                    return last or span_id
                last = span_id
                above = AGENT if is_open.operation in RUNS else is_open.parent_id
            if above is AGENT:
                return True
            span_id = above
        return False

    def _observe_call(self, span: SpanData, *, judged: bool) -> None:
        if span.scope.name != semconv.SCOPE:
            return  # whoever made the span may measure it as well
        values, where = self._call_of(span), _context_of(span)
        failed = self._bounded.values(
            ((semconv.ERROR_TYPE, span.attributes.get(semconv.ERROR_TYPE)),)
        )
        self._record[metrics.CALL_DURATION](_seconds(span), values | failed, where)
        first = span.attributes.get(semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK)
        if isinstance(first, int | float):
            self._record[metrics.TIME_TO_FIRST_CHUNK](first, values, where)
        if not judged:
            self._observe_tokens(span, values, where)

    def _observe_tokens(self, span: SpanData, values: Values, where: Context) -> None:
        for name, kind in _TOKENS:
            used = span.attributes.get(name)
            if isinstance(used, int):
                told = values | {semconv.GEN_AI_TOKEN_TYPE: kind}
                self._record[metrics.TOKEN_USAGE](used, told, where)

    def _call_of(self, span: SpanData) -> Values:
        return self._bounded.values((name, span.attributes.get(name)) for name in _CALL)


def _parent_of(span: SpanData) -> bytes:
    """Return the id of its parent in this process, empty for none."""
    return b"" if span.parent_is_remote else span.parent_id


def _is_judged(span: SpanData) -> bool:
    return span.attributes.get(semconv.ENDED_BY) == EndedBy.WATCHDOG


def _seconds(span: SpanData) -> float:
    return max(span.end_time - span.start_time, 0) / _SECOND


def _context_of(span: SpanData) -> Context:
    return _context(span.trace_id, span.span_id, is_sampled=True)


def _context(trace_id: bytes, span_id: bytes, *, is_sampled: bool) -> Context:
    """Return the context of a span, for a measurement that is made elsewhere."""
    flags = TraceFlags(TraceFlags.SAMPLED if is_sampled else TraceFlags.DEFAULT)
    span = SpanContext(
        int.from_bytes(trace_id, "big"),
        int.from_bytes(span_id, "big"),
        is_remote=False,
        trace_flags=flags,
    )
    return set_span_in_context(NonRecordingSpan(span), Context())
