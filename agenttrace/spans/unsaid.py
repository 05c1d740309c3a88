"""What is said of the ending of a span that is not ours, where its owner says nothing.

Pure, but for the exception that is in flight.  Which spans there are, and when they
end, is `adopted`'s business.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk import trace as sdk
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    Link,
    SpanKind,
    Status,
    StatusCode,
)

from agenttrace import _otel, semconv
from agenttrace.attributes import flat
from agenttrace.model import (
    RETURNED,
    EndedBy,
    Ending,
    Outcome,
    error_type_of,
    says_nothing,
    status_of,
)
from agenttrace.spans.ids import late_id
from agenttrace.tracing import ending_of

if TYPE_CHECKING:
    from collections.abc import Mapping


def unsaid(started_during: int) -> Ending:
    """Return the ending of a span whose owner ends it without a word.

    What is being raised says it: an exception that is in flight now and was not at the
    start came out of the span's body.  API `use_span` ends a cancelled span so.

    Args:
        started_during: The identity of the exception in flight at the start, or 0.
    """
    error = sys.exception()
    if error is None or says_nothing(error, started_during):
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


def said_ending(held: Mapping[str, Any], ending: Ending) -> Ending:
    """Return the ending that the attributes tell, *ending* where they tell none.

    Args:
        held: The attributes.
        ending: What is known otherwise.
    """
    error_type = held.get(semconv.ERROR_TYPE)
    told = {} if error_type is None else {semconv.ERROR_TYPE: error_type}
    try:
        return Ending(
            Outcome(held[semconv.OUTCOME]),
            EndedBy(held[semconv.ENDED_BY]),
            attributes=told,
        )
    except (KeyError, ValueError):  # another tool's words
        return ending


def late_finish_of(real: sdk.ReadableSpan) -> sdk.ReadableSpan:
    """Return the span that tells *real*, the true end of a span told before.

    The same as `RecordedSpan.late_finish` for spans that are not ours.
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
