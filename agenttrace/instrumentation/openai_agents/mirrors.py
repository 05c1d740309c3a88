"""The span that follows one of the Agents SDK's: its start, its parent, its ending.

A mirror takes the place of the processor that the SDK's trace or span tells of its end,
and passes everything on to it.  So it is held by what it follows and by nobody else,
and an end is heard of even when the patches are taken out in between.

How a span ended, the SDK does not say: it finishes spans in `finally` blocks.  So what
is being raised says it, as it does for spans of OpenTelemetry's API.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel
from opentelemetry.context.context import Context
from opentelemetry.trace import Link

from agenttrace import _otel, safety, semconv, tracing
from agenttrace.boundary.shared import OFFER_KEY, SharedSpan
from agenttrace.exceptions import class_name
from agenttrace.instrumentation.openai_agents import kinds, peers, runs
from agenttrace.instrumentation.openai_agents.currents import (
    SPAN_KEY,
    TRACE_KEY,
    bind_group,
    group_of,
)
from agenttrace.instrumentation.openai_agents.currents import mirror_of as _follower
from agenttrace.model import (
    NO_ATTRIBUTES,
    EndedBy,
    Ending,
    Outcome,
    identity_of,
    is_same,
    returned,
)

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

    from agenttrace.instrumentation.openai_agents.currents import Held
    from agenttrace.instrumentation.openai_agents.runs import Run
    from agenttrace.model import Attributes, Opening
    from agenttrace.tracing import TracedSpan


class Mirror:
    """Follows one trace or span of the SDK's, in place of its processor.

    Args:
        span: The span of ours.
        processor: Whom the SDK's span would tell of its end.
        kind: How the SDK's span is read.
        group: The conversation, of a trace that names one.

    Attributes:
        held: The token of what was made current, if it was.
        run: The run it belongs to.
        is_open: Whether the SDK's span has not been finished yet.
    """

    __slots__ = (
        "__weakref__",
        "_failure",
        "_group",
        "_loop",
        "_processor",
        "_shared",
        "_started_during",
        "held",
        "is_open",
        "kind",
        "parent",
        "run",
        "span",
    )

    def __init__(
        self,
        span: TracedSpan,
        processor: Any,  # noqa: ANN401 - the SDK's
        kind: kinds.Kind,
        parent: Context,
        group: str | None = None,
    ) -> None:
        self.span = span
        self.kind = kind
        self.parent = parent
        self.held: Held | None = None
        self.is_open = True
        self.run: Run | None = runs.run_in(parent)
        self._processor = processor
        self._group = group
        self._loop = asyncio._get_running_loop()  # noqa: SLF001 - documented; None without a loop
        self._failure: str | None = None
        self._shared = SharedSpan(span) if kind.is_model_call else None
        error = sys.exception()
        self._started_during = 0 if error is None else identity_of(error)
        if self.run is not None:
            self.run.began(self)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the processor has
        return getattr(self._processor, name)

    def __reduce_ex__(self, protocol: Any) -> Any:  # noqa: ANN401 - pickle's own
        # A copy of the SDK's span is copied as if its processor was there.
        return self._processor.__reduce_ex__(protocol)

    def put_into(self, context: Context) -> None:
        """Put what is current inside this span into *context*, a new copy."""
        put, key = _otel.put_into, _otel.span_key()
        theirs = peers.remember(context, self.parent)
        if self._shared is None:
            put(context, key, self.span.api)
            return
        put(context, OFFER_KEY, self._shared)
        # Another tool that follows the SDK has a span of its own for a model call, and
        # its instrumentation of the client asks whether that is the current one.  Ours
        # has been offered the mirror, and no code of the application runs in there.
        self._shared.current = self.span.api if theirs is None else theirs
        put(context, key, self._shared.current)

    def inside(self) -> Context:
        """Return the context of a child that names this one as its parent."""
        context = Context(self.parent)
        self.put_into(context)
        if self._group is not None:
            bind_group(context, self._group)
        return context

    # What the SDK calls.

    def on_span_end(self, span: Any) -> None:  # noqa: ANN401 - the SDK's Span
        """End with *span*, and pass the word on."""
        if self.is_open:
            safety.guarded("openai_agents.end", self._end, span)
        self._processor.on_span_end(span)

    def on_trace_end(self, trace: Any) -> None:  # noqa: ANN401 - the SDK's Trace
        """End with *trace*, which may say so twice, and pass the word on."""
        if self.is_open:
            safety.guarded("openai_agents.end", self._end, None)
            safety.guarded("openai_agents.past", _remember, trace, self.span)
        self._processor.on_trace_end(trace)

    def _end(self, span: Any) -> None:  # noqa: ANN401 - the SDK's Span, None of a trace
        facts: Attributes = NO_ATTRIBUTES
        shared = self._shared
        if shared is not None and shared.ending is not None:
            facts = shared.ending.attributes
        elif span is not None:
            facts = safety.guarded("openai_agents.facts", _facts, self.kind, span) or {}
        ending = self._ending(
            None if span is None else span.error,
            is_complete=semconv.GEN_AI_RESPONSE_FINISH_REASONS in facts,
        )
        if facts:
            ending.attributes = {**facts, **ending.attributes}
        self.finish(ending)

    def finish(self, ending: Ending) -> None:
        """End as *ending* says.  The first ending counts."""
        if self.is_open:
            self.is_open = False
            if self.run is not None:
                self.run.ended(self)
            if self._shared is not None:
                self._shared.is_taken = True  # nobody can go on in it any more
            self.span.finish(ending)

    def note_failure(self) -> None:
        """Keep the class of what is being raised: the SDK keeps its text alone."""
        error = sys.exception()
        if error is not None:
            self._failure = class_name(type(error))

    def _ending(self, said: Any, *, is_complete: bool) -> Ending:  # noqa: ANN401 - the SDK's SpanError
        """Return how the span ends that is being finished right now.

        Args:
            said: What the SDK says of an error.
            is_complete: Whether it is a model call with its whole answer: who closes
                its stream then does not abandon it.
        """
        error = sys.exception()
        if error is not None and not is_same(error, self._started_during):
            if not (is_complete and isinstance(error, GeneratorExit)):
                return self._interrupted(error)
            self.leave()
        shared = self._shared
        if shared is not None and shared.ending is not None:
            told = shared.ending
            if told.outcome is not Outcome.OK:
                return Ending(
                    told.outcome, told.ended_by, told.error, told.message, told.end_time
                )
        if said is not None:
            attributes = {semconv.ERROR_TYPE: self._failure} if self._failure else {}
            return Ending(
                Outcome.ERROR,
                EndedBy.RETURN,
                message=str(said.get("message") or "failed"),
                attributes=attributes,
            )
        if self.run is not None and self.kind.is_whole and self.run.was_cut_short():
            return Ending(Outcome.CANCELLED, EndedBy.CANCEL)
        return returned()

    def leave(self) -> None:
        """Be current no more: the SDK may leave it so, in some versions on a close."""
        held, self.held = self.held, None
        if held is not None:
            held.give_back()

    def _interrupted(self, error: BaseException) -> Ending:
        ending = tracing.ending_of(error)
        if isinstance(error, GeneratorExit):
            self.leave()
            if self._loop is not None and self._loop.is_closed():
                return Ending(Outcome.LOST, EndedBy.GC, message=runs.LOST)
        elif self.run is not None:
            return self.run.reason(ending)
        return ending


def _facts(kind: kinds.Kind, span: Any) -> Attributes:  # noqa: ANN401 - the SDK's Span
    return kind.facts(span.span_data)


def follow_trace(trace: Any) -> None:  # noqa: ANN401 - the SDK's Trace
    """Start the mirror of *trace*, which is just starting."""
    context = otel.get_current()
    if not _is_to_follow(trace, context):
        return
    group = group_of(trace)
    opening = kinds.opening_of_trace(trace)
    if group is not None:
        opening.attributes = {
            **opening.attributes,
            semconv.GEN_AI_CONVERSATION_ID: group,
        }
    span = tracing.installed.start(opening, context)
    told = trace._processor  # noqa: SLF001 - see the header
    trace._processor = mirror = Mirror(span, told, kinds.TRACE, context, group)  # noqa: SLF001 - the same
    _open[trace.trace_id] = mirror


def follow_span(span: Any) -> None:  # noqa: ANN401 - the SDK's Span
    """Start the mirror of *span*, which is just starting."""
    context = otel.get_current()
    if not _is_to_follow(span, context):
        return
    kind = kinds.kind_of(span.span_data)
    parent = context
    if not _is_below(context, span):
        named = _open.get(span.parent_id or span.trace_id)
        if named is not None:
            parent = named.inside()
    opening = kind.opening(span.span_data)
    if span.parent_id is None and kind.is_whole:
        _take_up(opening, parent.get(TRACE_KEY))
    started = tracing.installed.start(opening, parent)
    span._processor = mirror = Mirror(started, span._processor, kind, parent)  # noqa: SLF001 - see the header
    _open[span.span_id] = mirror


def _remember(trace: Any, span: TracedSpan) -> None:  # noqa: ANN401 - the SDK's Trace
    """Keep where the run of *trace* is found, should it be taken up again."""
    _past[trace.trace_id] = span.api.get_span_context()
    while len(_past) > _MOST_PAST:
        _past.popitem(last=False)


def _take_up(opening: Opening, trace: Any) -> None:  # noqa: ANN401 - the SDK's Trace
    """Say which run goes on, where *trace* is one that the SDK only takes up again."""
    if trace is None or _follower(trace) is not None:
        return
    opening.attributes = {**opening.attributes, semconv.AGENTS_TRACE_ID: trace.trace_id}
    before = _past.get(trace.trace_id)
    if before is not None:
        opening.links = (Link(before),)


def note_failure(span: object) -> None:
    """Hear that the SDK is saying what went wrong with *span*."""
    mirror = _follower(span)
    if isinstance(mirror, Mirror):
        mirror.note_failure()


def _is_to_follow(item: Any, context: Context) -> bool:  # noqa: ANN401 - the SDK's Trace or Span
    if tracing.installed is tracing.DISABLED or isinstance(item._processor, Mirror):  # noqa: SLF001 - see the header
        return False
    return not (context and _otel.is_suppressed(context))


def _is_below(context: Context, span: Any) -> bool:  # noqa: ANN401 - the SDK's Span
    """Return whether *span* is a child of what is current, and names no other."""
    current: Any = context.get(SPAN_KEY)
    if current is not None and current.span_id == span.parent_id:
        return True
    trace: Any = context.get(TRACE_KEY)
    return (
        span.parent_id is None and trace is not None and trace.trace_id == span.trace_id
    )


_MOST_PAST: Final = 1_000
_past: OrderedDict[str, SpanContext] = OrderedDict()
"""By the SDK's id of a trace, the span of ours; of the last ones that have ended."""
_open: weakref.WeakValueDictionary[str, Mirror] = weakref.WeakValueDictionary()
"""By the SDK's id, for spans that name their parent."""
