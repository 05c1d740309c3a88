"""Spans of a provider that is not ours, taken into the registry.

Such a span is the application's object: nobody here holds it, ends it or changes its
class.  What is kept of it is a weak reference and its instance dictionary.  The
dictionary outlives the span, so one that is collected without an end can still be told
as what it was last.

It owns records, and what is said of an ending where the owner says nothing.  Where
spans come from and where their final forms go is `attached`'s business.
"""

from __future__ import annotations

import sys
import time
import weakref
from typing import TYPE_CHECKING, Any, Final, Self, cast

from opentelemetry import context as otel
from opentelemetry.sdk import trace as sdk
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    Link,
    SpanKind,
    Status,
    StatusCode,
)

from agenttrace import _otel, safety, semconv
from agenttrace.attributes import flat
from agenttrace.context.bound import bound_in
from agenttrace.model import (
    RETURNED,
    EndedBy,
    Ending,
    Opening,
    Outcome,
    ending_of,
    error_type_of,
    identity_of,
    is_same,
    status_of,
)
from agenttrace.registry import Claim, OpenSpan
from agenttrace.spans.ids import LAST_INSTANT, instant, late_id

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.context.context import Context

    from agenttrace.registry import OpenSpans

OPENING_KEY: Final = otel.create_key("agenttrace-opening")
"""Under this key the context in which a span of ours starts holds its opening."""
_NO_LIMITS: Final = Opening("")
_UNSET: Final = StatusCode.UNSET
_USUAL: Final[Mapping[str, str]] = {
    semconv.OUTCOME: Outcome.OK.value,
    semconv.ENDED_BY: EndedBy.RETURN.value,
}


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
        form = _otel.form_of(self._state)
        if self.remarks is not None:
            form["attributes"] = _otel.with_attributes(form["attributes"], self.remarks)
        self._adoption.tell(self.record, form, ending)

    def tell_copy(self, ending: Ending) -> None:
        """Send a final form: whose the span is makes no difference here."""
        self.tell(ending)
        self._adoption.registry.verdict_written(self.record, ending)

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
        as_error: frozenset[Outcome] = frozenset(),
    ) -> None:
        self.registry = registry
        self.as_error = as_error
        self.open: dict[bytes, AdoptedSpan] = {}
        self.late = True
        self._forward = forward

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
            heartbeat_timeout=limits.heartbeat_timeout,
            max_duration=limits.max_duration,
        )
        self.open[record.span_id] = adopted
        self.registry.started(record)

    def knows(self, span: sdk.ReadableSpan) -> bool:
        """Return whether *span* is waited for."""
        return bool(self.open) and _id(span) in self.open

    def end(self, span: sdk.ReadableSpan) -> None:
        """Take what the owner of *span* ended, and hand on what is to be sent of it.

        Raises:
            Exception: Whatever a processor raises, as it does without us.
        """
        adopted = self.open.pop(_id(span), None)
        claim = Claim.FIRST if adopted is None else self.registry.claim(adopted.record)
        if claim is Claim.STALE:
            # Of the process this one was forked from, which will tell it itself.
            return
        ending = safety.guarded("adopted.end", self._complete, span, adopted)
        if adopted is None:
            self._hand_on(span)
        elif claim is Claim.FIRST:
            self._hand_over(adopted.record, span, ending or RETURNED)
        else:
            if self.late:
                safety.count(safety.Count.LATE_FINISHES)
                self.send(late_finish_of(span))
            self.registry.slots.free(adopted.record)

    def send(self, span: sdk.ReadableSpan) -> None:
        """Hand a span of our own making to the processors."""
        safety.guarded("processors.on_end", self._hand_on, span)

    def tell(self, record: OpenSpan, form: dict[str, Any], ending: Ending) -> None:
        """Send a final form of our own making, made of *form* and *ending*."""
        end_time = time.time_ns() if ending.end_time is None else ending.end_time
        held = form["attributes"]
        values, status = settled(ending, form["status"], held or {}, self.as_error)
        form["attributes"] = _otel.with_attributes(held, values)
        form["status"] = status or form["status"]
        for event in ending.events:
            values = {key: flat(value) for key, value in event.attributes.items()}
            told = sdk.Event(event.name, cast("Any", values), event.time)
            form["events"] = _otel.with_event(form["events"], told)
        self._hand_over(record, sdk.ReadableSpan(**form, end_time=end_time), ending)

    def _hand_over(
        self, record: OpenSpan, span: sdk.ReadableSpan, ending: Ending
    ) -> None:
        slots = self.registry.slots
        end_time = span.end_time or time.time_ns()
        safety.guarded("slots.ended", slots.ended, record, end_time, ending)
        try:
            self._hand_on(span)
        finally:
            # From here on it is the other pipeline's to lose.
            safety.guarded("slots.free", slots.free, record)

    def _hand_on(self, span: sdk.ReadableSpan) -> None:
        try:
            self._forward(span)
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
        return _said(span.attributes or {}, ending)


def unsaid(started_during: int) -> Ending:
    """Return the ending of a span whose owner ends it without a word.

    What is being raised says it: an exception that is in flight now and was not at the
    start came out of the span's body.  API `use_span` ends a cancelled span so.

    Args:
        started_during: The identity of the exception in flight at the start, or 0.
    """
    error = sys.exception()
    if error is None or is_same(error, started_during):
        return RETURNED
    return ending_of(error)


def settled(
    ending: Ending,
    status: Status,
    held: Mapping[str, Any],
    as_error: frozenset[Outcome],
) -> tuple[dict[str, Any], Status | None]:
    """Return the attributes and the status that *ending* adds to what a span says.

    What its owner has said stands: the outcome, a status that is set, `error.type`.

    Args:
        ending: How it ended.
        status: The status it has.
        held: The attributes it has.
        as_error: Outcomes that count as errors in the OTel status.

    Returns:
        The attributes to add, and the status to set; None leaves it.
    """
    values = {key: flat(value) for key, value in ending.attributes.items()}
    said = held.get(semconv.OUTCOME)
    code = status.status_code
    if said is not None:
        # Through our own port: only the settings are still to be heard.
        if said in as_error and code is StatusCode.UNSET:
            return values, Status(StatusCode.ERROR, str(said))
        return values, None
    outcome, error_type = ending.outcome, error_type_of(ending)
    if outcome is Outcome.OK and code is StatusCode.ERROR:
        # It returned, but its owner says that it failed.
        outcome, error_type = Outcome.ERROR, "_OTHER"
    values[semconv.OUTCOME] = outcome.value
    values[semconv.ENDED_BY] = ending.ended_by.value
    if error_type is not None and semconv.ERROR_TYPE not in held:
        values[semconv.ERROR_TYPE] = error_type
    if code is StatusCode.UNSET:
        code, message = status_of(ending, as_error=as_error)
        if code is StatusCode.ERROR:
            return values, Status(code, message)
    return values, None


def late_finish_of(real: sdk.ReadableSpan) -> sdk.ReadableSpan:
    """Return the span that tells *real*, the true end of a span told before.

    The same as `provider.late_finish_of` for spans that are not ours.
    """
    context = real.get_span_context() or INVALID_SPAN_CONTEXT
    status = real.status
    return sdk.ReadableSpan(
        name=f"{semconv.LATE_FINISH}: {real.name}",
        context=_otel.span_context(
            context.trace_id,
            late_id(context.span_id),
            is_remote=False,
            flags=context.trace_flags,
            trace_state=context.trace_state,
        ),
        parent=context,
        resource=real.resource,
        attributes=real.attributes,
        events=real.events,
        links=(*real.links, Link(context)),
        kind=SpanKind.INTERNAL,
        status=Status() if status.status_code is StatusCode.OK else status,
        start_time=real.start_time,
        end_time=real.end_time,
        instrumentation_scope=real.instrumentation_scope,
    )


def _said(held: Mapping[str, Any], ending: Ending) -> Ending:
    """Return the ending that the attributes tell, *ending* where they tell none."""
    try:
        return Ending(Outcome(held[semconv.OUTCOME]), EndedBy(held[semconv.ENDED_BY]))
    except (KeyError, ValueError):  # another tool's words
        return ending


def _id(span: sdk.ReadableSpan) -> bytes:
    context = span.get_span_context()
    return b"" if context is None else context.span_id.to_bytes(8, "big")
