"""The lean span: everything an SDK span is, at a fraction of what one costs.

It is a true subclass of the SDK's `Span`, readable by every processor and exporter.
What makes it cheap: ids stay bytes, a `SpanContext` is built only when somebody asks,
attributes are a plain dict, nothing is copied at the end, and no lock is taken: the
registry decides who ends it.

This module owns how a span starts and ends; what it takes down is `recorded`'s,
sampling and limits are the tracer's, and where ended spans go is the provider's.
"""

from __future__ import annotations

import sys
import time
import weakref
from typing import TYPE_CHECKING, Any, Final, cast

from opentelemetry.sdk.trace import sampling
from opentelemetry.trace import StatusCode, TraceFlags

from agenttrace import attributes, safety, semconv
from agenttrace.context.bound import BOUND_KEY
from agenttrace.context.scope import context_of
from agenttrace.exceptions import class_name, summary_of
from agenttrace.model import (
    RETURNED,
    EndedBy,
    Ending,
    Outcome,
    error_type_of,
    returned,
    says_nothing,
    status_of,
)
from agenttrace.registry import Claim, OpenSpan, Teller
from agenttrace.registry.records import NOTHING_YET, get_ident
from agenttrace.spans.ids import instant, not_before, random_bits
from agenttrace.spans.names import NO_EXTRAS, RETURNED_WELL
from agenttrace.spans.recorded import RecordedSpan
from agenttrace.tracing import ending_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from opentelemetry.context.context import Context
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext

    from agenttrace.context.scope import Value
    from agenttrace.model import Opening
    from agenttrace.spans.tracer import LeanTracer

# Past what `OpenSpan` makes of it.
_refer: Final = cast(
    "Callable[[type[OpenSpan], RecordedSpan], OpenSpan]",
    weakref.ReferenceType[RecordedSpan].__new__,
)
_SAMPLED: Final = int(TraceFlags.SAMPLED)
_MAX_NAME: Final = attributes.MAX_NAME
_now: Final = time.time_ns  # `testing.ManualClock` puts itself in its place
_OUTCOME: Final = semconv.OUTCOME
_ENDED_BY: Final = semconv.ENDED_BY
# Members of enumerations, bound once: looking them up costs more than using them.
_OK: Final = Outcome.OK
_OK_TEXT: Final = Outcome.OK.value
_RETURN_TEXT: Final = EndedBy.RETURN.value
_UNSET: Final = StatusCode.UNSET
_ERROR: Final = StatusCode.ERROR
_FIRST: Final = Claim.FIRST


class LeanSpan(RecordedSpan):
    """A span of our provider.  Made by `LeanTracer` alone."""

    __slots__ = ()

    _verdict: tuple[OpenSpan, Ending] | None = None
    """Of a copy: whose verdict it is, and what it says."""

    def begin(  # noqa: C901, PLR0912, PLR0913, PLR0915, PLR0917 - the hot path in one piece: a call costs more than its branches
        self,
        tracer: LeanTracer,
        opening: Opening,
        parent: Any,  # noqa: ANN401 - whatever stands for a span in the context
        base: Context,
        outer: Value,
        start_time: int | None = None,
    ) -> None:
        """Start it and register it.

        Args:
            tracer: Who starts it.
            opening: What is known of it.
            parent: What is current where it starts, None at a root.
            base: The context there, whatever span is current in it.
            outer: The context there, or the scope that has it for whoever asks.
            start_time: Nanoseconds since the epoch; None = now.
        """
        name = opening.name
        if type(name) is not str or len(name) > _MAX_NAME:
            name = str(attributes.clean(name, _MAX_NAME))
        # `isinstance` asks an abstract base class, which is slow to say no.
        remote = False
        kind_of_parent: Any = type(parent)  # pyright: ignore[reportUnknownVariableType]  # of anything
        if kind_of_parent is LeanSpan or kind_of_parent is UnsampledSpan:
            trace_id, parent_id, flags = parent.trace_id, parent.span_id, parent.flags
            trace_state = parent._trace_state  # noqa: SLF001 - our own class
            parent_record = parent.record
        else:
            line = None if parent is None else tracer.line_of(parent)
            if line is None:
                trace_id = tracer.new_trace_id()
                parent_id, flags = b"", tracer.root_flags
                trace_state = parent_record = None
            else:
                trace_id, parent_id, flags, trace_state, parent_record, remote = line
        recording = sampled = flags & _SAMPLED != 0
        values: dict[str, Any] | None = None
        given: Mapping[str, object] | None = opening.attributes
        if BOUND_KEY in base:
            values = dict(base[BOUND_KEY])  # type: ignore[call-overload]  # `bind` put a dict there
        if not tracer.default_sampler:
            verdict = tracer.ask_sampler(
                context_of(outer),
                trace_id,
                name,
                opening,
                {**(values or {}), **(given or {})},
            )
            recording = verdict.decision is not sampling.Decision.DROP
            sampled = verdict.decision is sampling.Decision.RECORD_AND_SAMPLE
            flags = (flags & ~_SAMPLED) | (_SAMPLED if sampled else 0)
            trace_state = verdict.trace_state
            given = dict(verdict.attributes or {})  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType, reportUnknownVariableType]  # as the SDK types it
        if tracer.default_ids:
            span_id = (random_bits(64) or 1).to_bytes(8, "big")
        else:
            span_id = tracer.id_generator.generate_span_id().to_bytes(8, "big")
        if not recording:
            self.__class__ = UnsampledSpan  # pyright: ignore[reportAttributeAccessIssue]  # a subclass, of the same layout
        self._tracer = tracer
        self._name = name
        self._kind = opening.kind
        self.trace_id = trace_id
        self.span_id = span_id
        self.parent_id = parent_id
        self.flags = flags
        self._trace_state = trace_state
        self.remote_parent = remote
        self._start_time = started_at = (
            _now() if start_time is None else instant(start_time)
        )
        self._values = values
        self._end_time = None
        self._code = _UNSET
        self._extras = NO_EXTRAS
        self.queued = False
        self.is_block = True
        if given:
            self.set_attributes(given)
        self.record = record = _refer(OpenSpan, self)
        # What its constructor does: the call would take longer than all of this.
        record.trace_id = trace_id
        record.span_id = span_id
        record.parent_id = parent_id
        record.parent = parent_record
        record.name = name
        record.operation = opening.operation
        record.started_at = started_at
        record.sampled = sampled
        record.heartbeat_timeout = opening.heartbeat_timeout
        record.max_duration = opening.max_duration
        record.thread_id = get_ident()
        record.aside = NOTHING_YET
        record.teller = None
        tracer.registry.started(record)
        if opening.links:  # now that there is a slot for them
            safety.guarded("span.links", self.link_all, opening.links)
        if not sampled:
            safety.count(safety.Count.SPANS_UNSAMPLED)
        chain = tracer.provider.chain
        if chain.processors and recording:
            chain.started(self, context_of(outer))

    def end(self, end_time: int | None = None) -> None:
        """End the span as its owner, who says nothing of how it went.

        So what is being raised says it: an exception that is in flight now and was
        not at the start came out of the span's body.  API `use_span` calls this for
        a cancellation without a word.
        """
        if self._end_time is None:
            error = sys.exception()
            if (
                error is None
                or says_nothing(error, self._extras.started_during)
                or self._code is StatusCode.OK
            ):
                ending = returned()
            else:
                ending = ending_of(error)
                # Recording it is the owner's business; here it only speaks.
                ending.error = None
                ending.message = summary_of(error)
                if ending.outcome is Outcome.ERROR:
                    self._attributes.setdefault(
                        semconv.ERROR_TYPE, class_name(type(error))
                    )
            ending.end_time = end_time
            self.finish(ending)

    def finish(self, ending: Ending) -> None:
        """End the span as *ending* says, or tell of a late finish where it was told."""
        record = self.record
        if self._end_time is not None or record is None:
            return
        try:
            tracer = self._tracer
            claim = tracer.registry.claim(record)
            if claim is not _FIRST:
                self._finish_late(ending, claim)
            # By type: of what stands in the class, 3.11 does not learn to read it.
            elif ending is RETURNED and self._code is _UNSET and type(self) is LeanSpan:
                # What most spans come to: `tell`, without the questions others raise.
                end_time = _now()
                started_at = self._start_time or 0
                # As `not_before` has it.
                if end_time < started_at:  # noqa: PLR1730 - a call costs more
                    end_time = started_at
                values = self._values
                # No call from here on (see `remark`).
                if values is None:
                    self._values = RETURNED_WELL
                else:
                    values[_OUTCOME] = _OK_TEXT
                    values[_ENDED_BY] = _RETURN_TEXT
                self._end_time = end_time
                tracer.registry.slots.ended(record, end_time, ending)
                tracer.provider.ended(self)
            else:
                self.tell(ending)
        except BaseException as error:
            # Without a call: there may be no stack left for one.
            waiting = self._tracer.registry.cut_short
            waiting += ((self, ending),)
            if not isinstance(error, Exception):
                raise
            safety.swallow("span.finish", error)

    def resume(self, cause: Ending | BaseException | None) -> None:
        """Do what is left of `finish`, which was cut short (see `registry`)."""
        if self.queued or (record := self.record) is None:
            return
        ending = ending_of(cause) if isinstance(cause, BaseException) else cause
        ending = ending or RETURNED
        claim = self._tracer.registry.claim(record)
        if claim is _FIRST or (claim is Claim.TOLD and record.teller is Teller.OWNER):
            try:
                self.tell(ending)
            except Exception:  # noqa: BLE001 - what failed in `finish` fails again here
                self.tell(Ending(ending.outcome, ending.ended_by))
        else:
            self._finish_late(ending, claim)

    def _finish_late(self, ending: Ending, claim: Claim) -> None:
        record = self.record
        if claim is Claim.TOLD and record is not None:
            if record.teller is Teller.OWNER:
                return  # another thread is ending it, at this very moment
            self._close(ending)
            self._tracer.provider.finished_late(self, ending.outcome)
            self._tracer.registry.let_go(record)
        else:
            self._close(ending)

    def tell(self, ending: Ending) -> None:
        """Send the final form.  The caller has claimed it from the registry."""
        self._close(ending)
        end_time = self._end_time or 0
        if ending.outcome is _OK and self._code is _ERROR:  # see `_settle`
            ending = Ending(Outcome.ERROR, ending.ended_by)
        if (record := self.record) is not None:
            self._tracer.registry.slots.ended(record, end_time, ending)
        self._tracer.provider.ended(self)

    def _close(self, ending: Ending) -> None:
        """Take what the ending brings, then nothing more."""
        if ending.attributes:
            self.set_attributes(ending.attributes)
        end_time = _now() if ending.end_time is None else ending.end_time
        end_time = not_before(self._start_time or 0, end_time)
        self._settle(ending, end_time)
        self._end_time = end_time

    def copied(self) -> Callable[[Ending], None]:
        """Return what sends a final form; the span itself goes on for its owner."""
        copy, record = self.__copy__(), self.record

        def tell(ending: Ending) -> None:
            if record is not None:
                copy._verdict = (record, ending)  # noqa: SLF001 - of its own class
            copy.add_events(ending.events)
            copy.tell(ending)

        return tell

    def _settle(self, ending: Ending, end_time: int) -> None:
        """Write how the span ended into its attributes and status."""
        values = self._attributes
        outcome = ending.outcome
        if outcome is not _OK:
            self._settle_failure(ending, end_time)
        elif self._code is _ERROR:
            # It returned, but its owner says that it failed.
            outcome = Outcome.ERROR
            values.setdefault(semconv.ERROR_TYPE, "_OTHER")
        # Past `value`, which is a property written in Python on 3.11.
        values[_OUTCOME] = outcome._value_
        values[_ENDED_BY] = ending.ended_by._value_

    def _settle_failure(self, ending: Ending, end_time: int) -> None:
        code, message = status_of(ending, as_error=self._tracer.provider.as_error)
        error_type = error_type_of(ending)
        if error_type is not None:
            self._attributes.setdefault(semconv.ERROR_TYPE, error_type)
        if code is not _ERROR:
            return
        if ending.error is not None and self._extras.record_exception:
            self.record_exception(ending.error, timestamp=end_time, escaped=True)
        if self._code is StatusCode.UNSET and self._extras.set_status:
            self._code = code
            self._message = str(attributes.clean(message))

    def written(self) -> None:
        """Free the slot: the final form is where it cannot be lost."""
        if (record := self.record) is not None:
            self._tracer.registry.slots.free(record)
        elif self._verdict is not None:
            self._tracer.registry.verdict_written(*self._verdict)

    def _readable_span(self) -> ReadableSpan:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """End the span: `with tracer.start_span(...)` never makes it current."""
        self.finish(RETURNED if exc_val is None else ending_of(exc_val))

    def __del__(self) -> None:
        # Runs anywhere, with any lock held: only append.  See OpenSpans.sweep.
        try:
            if self._end_time is None and self.record is not None:
                self._tracer.registry.collected.append((self.record, self))
        except AttributeError:  # its start was interrupted: it never was a span
            pass


class UnsampledSpan(LeanSpan):
    """A span that the sampler left out: watched and counted, not recorded or sent."""

    __slots__ = ()

    is_recorded = False

    def is_recording(self) -> bool:
        """Return False: nothing that is set will be seen."""
        return False

    def set_attribute(self, key: str, value: Any) -> None:  # noqa: ANN401 - any value is taken
        """Ignore the attribute."""

    def set_attributes(self, attributes: Any) -> None:  # noqa: ANN401 - any mapping is taken
        """Ignore the attributes."""

    def add_event(
        self,
        name: str,
        attributes: Any = None,  # noqa: ANN401 - any mapping is taken
        timestamp: int | None = None,
    ) -> None:
        """Ignore the event."""

    def add_link(self, context: SpanContext, attributes: Any = None) -> None:  # noqa: ANN401 - any mapping is taken
        """Ignore the link."""

    def _close(self, ending: Ending) -> None:
        self._end_time = _now() if ending.end_time is None else ending.end_time
