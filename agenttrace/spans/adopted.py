"""Spans of a provider that is not ours, taken into the registry.

Such a span is the application's object: nobody here holds it, ends it or changes its
class.  What is kept of it is a weak reference and its instance dictionary.  The
dictionary outlives the span, so one that is collected without an end can still be told
as what it was last.

It owns records.  What is said of an ending where the owner says nothing is `unsaid`'s
business, where spans come from and where their final forms go `attached`'s.
"""

from __future__ import annotations

import sys
import time
import weakref
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Self, cast

from opentelemetry import context as otel
from opentelemetry.sdk import trace as sdk
from opentelemetry.trace import SpanKind, StatusCode

from agenttrace import _otel, safety, semconv
from agenttrace.attributes import flat
from agenttrace.context.bound import bound_in
from agenttrace.model import (
    RETURNED,
    EndedBy,
    Ending,
    Opening,
    Outcome,
    ScopeData,
    identity_of,
)
from agenttrace.registry import Claim, OpenSpan
from agenttrace.spans.ids import LAST_INSTANT, instant, not_before
from agenttrace.spans.parts import link_data_of
from agenttrace.spans.tracer import count_late, silence_of
from agenttrace.spans.unsaid import late_finish_of, said_ending, settled, unsaid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.context.context import Context
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import Link

    from agenttrace.registry import OpenSpans

OPENING_KEY: Final = otel.create_key("agenttrace-opening")
"""Under this key the context in which a span of ours starts holds its opening."""
_NO_LIMITS: Final = Opening("")
_UNSET: Final = StatusCode.UNSET
_USUAL: Final[Mapping[str, str]] = {
    semconv.OUTCOME: Outcome.OK.value,
    semconv.ENDED_BY: EndedBy.RETURN.value,
}


class Origin:
    """Where spans come from, in the place of a tracer, which they do not refer to.

    Attributes:
        scope_data: Their instrumentation scope.
    """

    __slots__ = ("scope_data",)

    def __init__(self, scope_data: ScopeData) -> None:
        self.scope_data = scope_data


@lru_cache(maxsize=256)
def _origin_of(scope: InstrumentationScope | None) -> Origin:
    # Its attributes are kept nowhere, and no part of its identity.
    if scope is None:
        return Origin(ScopeData(""))
    return Origin(
        ScopeData(scope.name or "", scope.version or "", scope.schema_url or "")
    )


class AdoptedSpan(weakref.ReferenceType[sdk.Span]):
    """A weak reference to a span that can tell how it ended (`registry.Live`).

    Attributes:
        record: The registry's record of it.
        started_during: The identity of the exception that was being handled at its
            start, 0 for none.
        remarks: What others have to say on its final form; None = nothing.
    """

    __slots__ = (
        "__weakref__",
        "_adoption",
        "_kept",
        "_state",
        "record",
        "remarks",
        "started_during",
    )

    record: OpenSpan

    # What the journal reads of a span, by the names that ours have; see
    # `journal.payload`.  All of them are asked for once, when it starts.

    @property
    def _tracer(self) -> Origin:
        return _origin_of(self._state.get("_instrumentation_scope"))

    @property
    def _kind(self) -> SpanKind:
        return self._state.get("_kind") or SpanKind.INTERNAL

    @property
    def _values(self) -> Mapping[str, object]:
        return self._state.get("_attributes") or {}

    @property
    def links(self) -> Sequence[Link]:
        """What it is linked to by now."""
        return self._state.get("_links") or ()

    @property
    def flags(self) -> int:
        """The trace flags, as far as they matter: whether it is sampled."""
        return int(self.record.sampled)

    @property
    def remote_parent(self) -> bool:
        """Whether its parent is a span of another process."""
        parent = self._state.get("_parent")
        return parent is not None and parent.is_remote is True

    def __new__(cls, span: sdk.Span, adoption: Adoption) -> Self:
        """Refer to *span*, and notice when it is collected."""
        del adoption
        return super().__new__(cls, span, _collected)

    def __init__(self, span: sdk.Span, adoption: Adoption) -> None:
        error = sys.exception()
        self.started_during = 0 if error is None else identity_of(error)
        self._state: Mapping[str, Any] = vars(span)
        self._adoption = adoption
        self.remarks: Mapping[str, str] | None = None

    @property
    def sets_status(self) -> bool:
        """Whether an exception may set its status (OTel's flag at the start)."""
        return bool(_otel.sets_status(self._state))

    def tell(self, ending: Ending) -> None:
        """Send a final form; the span itself is its owner's, if it still has one."""
        self._adoption.tell(self.record, self._form(), ending)

    def copied(self) -> Callable[[Ending], None]:
        """Return what sends a final form: whose the span is makes no difference."""
        form, record, adoption = self._form(), self.record, self._adoption

        def tell(ending: Ending) -> None:
            try:
                adoption.tell(record, form, ending)
            finally:
                adoption.registry.verdict_written(record, ending)

        return tell

    def _form(self) -> dict[str, Any]:
        """Return what it is now, of which its owner changes nothing any more."""
        form = _otel.form_of(self._state)
        held = form["attributes"]
        form["attributes"] = _otel.with_attributes(held, self.remarks or {})
        return form

    def remark(self, key: str, value: str) -> None:
        """Say this too when it has ended: until then it is its owner's object."""
        self.remarks = {**(self.remarks or {}), key: value}

    def leave(self) -> None:
        """Have the end told by a thread that holds no lock."""
        # From 3.13 on the dictionary does not keep alive what it shares with its
        # object: in a cycle the collector would empty attributes and events next.
        # What is referred to by now, it spares.
        self._kept = tuple(self._state.values())
        self._adoption.open.pop(self.record.span_id, None)
        self._adoption.registry.collected.append((self.record, self))


def _collected(
    adopted: weakref.ReferenceType[sdk.Span], ours: type[AdoptedSpan] = AdoptedSpan
) -> None:
    # Runs anywhere, with any lock held.  See OpenSpans.sweep.  Also at the end of the
    # interpreter, which has taken this module's names away: so it asks for none.
    if isinstance(adopted, ours):
        adopted.leave()


class Adoption:
    """The spans of one provider, from their start until their owner lets them go.

    Args:
        registry: Where they are listed while they are open.
        forward: Hands an ended span to the provider's processors.
        forward_each: Does the same with one of our making, to each for itself.
        as_error: Outcomes that count as errors in the OTel status.

    Attributes:
        open: What has started and not ended, by span id; also what was told while
            its owner had it still.
        late: Whether a late finish is told; else what comes late is dropped.
    """

    def __init__(
        self,
        registry: OpenSpans,
        forward: Callable[[sdk.ReadableSpan], None],
        forward_each: Callable[[sdk.ReadableSpan], None],
        as_error: frozenset[Outcome] = frozenset(),
    ) -> None:
        self.registry = registry
        self.as_error = as_error
        self.open: dict[bytes, AdoptedSpan] = {}
        self.late = True
        self._forward = forward
        self._forward_each = forward_each

    def start(self, span: sdk.Span, parent_context: Context | None) -> None:
        """Take *span* in, and give it what is bound where it starts."""
        context = otel.get_current() if parent_context is None else parent_context
        given = span.attributes or {}
        bound = bound_in(context)
        for key, value in bound.items():
            if key not in given:
                span.set_attribute(key, flat(value))  # type: ignore[arg-type]  # flat is what it takes
        own = span.get_span_context()
        parent = span.parent
        parent_id = b"" if parent is None else parent.span_id.to_bytes(8, "big")
        operation = given.get(semconv.GEN_AI_OPERATION_NAME)
        opening = context.get(OPENING_KEY)
        limits = opening if isinstance(opening, Opening) else _NO_LIMITS
        silence = limits.heartbeat_timeout
        if limits is _NO_LIMITS:
            silence = silence_of(span.kind, operation)
        started_at: Any = span.start_time or time.time_ns()
        if type(started_at) is not int or not 0 < started_at <= LAST_INSTANT:
            started_at = instant(started_at)
        adopted = AdoptedSpan(span, self)
        # It refers to `adopted` weakly, or the two would wait for the cyclic
        # collector, one pair for every span.
        adopted.record = record = OpenSpan(
            adopted,
            own.trace_id.to_bytes(16, "big"),
            own.span_id.to_bytes(8, "big"),
            parent_id,
            self.registry.find(parent_id) if parent_id else None,
            span.name,
            limits.operation if operation is None else str(operation),
            started_at,
            sampled=own.trace_flags.sampled,
            heartbeat_timeout=silence,
            max_duration=limits.max_duration,
        )
        self.open[record.span_id] = adopted
        self.registry.started(record)
        if links := adopted.links:
            linked = [known for link in links if (known := link_data_of(link))]
            safety.guarded("adopted.links", self.registry.slots.linked, record, linked)

    def knows(self, span: sdk.ReadableSpan) -> bool:
        """Return whether *span* is waited for."""
        return bool(self.open) and _id(span) in self.open

    def end(self, span: sdk.ReadableSpan) -> None:
        """Take what the owner of *span* ended, and hand on what is to be sent of it.

        Raises:
            Exception: Whatever a processor raises, as it does without us.
        """
        adopted = self.open.pop(_id(span), None) or self._collected_with(span)
        claim = Claim.FIRST if adopted is None else self.registry.claim(adopted.record)
        if claim is Claim.STALE:
            # Of the process this one was forked from, which will tell it itself.
            return
        ending = safety.guarded("adopted.end", self._complete, span, adopted)
        if adopted is None:
            self._hand_on(span, self._forward)
        elif claim is Claim.FIRST:
            self._hand_over(adopted.record, span, ending or RETURNED, self._forward)
        else:
            if self.late:
                count_late((ending or RETURNED).outcome)
                self.send(late_finish_of(span))
            # Not its slot: whoever judges it may be writing there at this moment.
            self.registry.let_go(adopted.record)

    def _collected_with(self, span: sdk.ReadableSpan) -> AdoptedSpan | None:
        """Return *span* as it was adopted, where it is told to be collected already.

        In a cycle the collector says so first, and then asks finalizers, of which one
        may be that of a stream that ends its span.  The sweep has not come yet.
        """
        span_id, registry = _id(span), self.registry
        record = registry.find(span_id)
        if record is None:
            judged = (each for each in registry.judged() if each.span_id == span_id)
            record = next(judged, None)
        live = None if record is None else record()
        return live if isinstance(live, AdoptedSpan) else None

    def send(self, span: sdk.ReadableSpan) -> None:
        """Hand a span of our own making to the processors."""
        self._hand_on(span, self._forward_each)

    def pass_on(self, span: sdk.ReadableSpan) -> None:
        """Hand a span of a process that died to the processors, and to no tap."""
        self._forward_each(span)

    def tell(self, record: OpenSpan, form: dict[str, Any], ending: Ending) -> None:
        """Send a final form of our own making, made of *form* and *ending*."""
        end_time = time.time_ns() if ending.end_time is None else ending.end_time
        end_time = not_before(form["start_time"] or 0, end_time)
        held = form["attributes"]
        values, status = settled(ending, form["status"], held or {}, self.as_error)
        form["attributes"] = _otel.with_attributes(held, values)
        form["status"] = status or form["status"]
        for event in ending.events:
            values = {key: flat(value) for key, value in event.attributes.items()}
            told = sdk.Event(event.name, cast("Any", values), event.time)
            form["events"] = _otel.with_event(form["events"], told)
        span = sdk.ReadableSpan(**form, end_time=end_time)
        self._hand_over(record, span, ending, self._forward_each)

    def _hand_over(
        self,
        record: OpenSpan,
        span: sdk.ReadableSpan,
        ending: Ending,
        forward: Callable[[sdk.ReadableSpan], None],
    ) -> None:
        slots = self.registry.slots
        end_time = span.end_time or time.time_ns()
        safety.guarded("slots.ended", slots.ended, record, end_time, ending)
        try:
            self._hand_on(span, forward)
        finally:
            # From here on it is the other pipeline's to lose.
            safety.guarded("slots.free", slots.free, record)

    def _hand_on(
        self, span: sdk.ReadableSpan, forward: Callable[[sdk.ReadableSpan], None]
    ) -> None:
        try:
            forward(span)
        finally:
            for tap in self.registry.taps:
                safety.guarded("tap", tap, span)

    def _complete(self, span: sdk.ReadableSpan, adopted: AdoptedSpan | None) -> Ending:
        """Say on *span* how it ended, where its owner has not, and return it."""
        ending = RETURNED
        code = span.status.status_code
        if adopted is not None and adopted.remarks is not None:
            _otel.correct(span, adopted.remarks, None)
        held = span.attributes or {}
        if adopted is not None and code is not StatusCode.OK:
            ending = unsaid(adopted.started_during)
        if ending is RETURNED and code is _UNSET and semconv.OUTCOME not in held:
            # What most spans come to, without the questions that others raise.
            _otel.correct(span, _USUAL, None)
            return ending
        values, status = settled(ending, span.status, held, self.as_error)
        if adopted is not None and not adopted.sets_status:
            status = None
        _otel.correct(span, values, status)
        return said_ending(span.attributes or {}, ending)


def _id(span: sdk.ReadableSpan) -> bytes:
    context = span.get_span_context()
    return b"" if context is None else context.span_id.to_bytes(8, "big")
