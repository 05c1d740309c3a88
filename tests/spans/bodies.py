"""Programs that trace through OpenTelemetry's API, to be run against any provider.

They are what applications and instrumentations do, one habit each.  What they leave
behind on two providers is compared span by span (`shape`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import pytest
from opentelemetry import context as otel
from opentelemetry import propagate, trace
from opentelemetry.context.context import Context
from opentelemetry.trace import (
    Link,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Tracer

TRACE: Final = "0af7651916cd43dd8448eb211c80319c"
ELSEWHERE: Final = SpanContext(
    trace_id=5,
    span_id=6,
    is_remote=True,
    trace_flags=TraceFlags(TraceFlags.SAMPLED),
    trace_state=TraceState([("vendor", "x")]),
)
NOWHERE: Final = SpanContext(trace_id=0, span_id=0, is_remote=False)
_OURS: Final = ("agenttrace.", "error.type")
_LARGE: Final = 10**9
"""Ids and times that are smaller were chosen by a body and can be compared."""


class OddError(Exception):
    """What goes wrong in a body."""


def fail_after(code: StatusCode, description: str | None = None) -> None:
    """Set the status of the current span, then go wrong."""
    trace.get_current_span().set_status(code, description)
    raise OddError


def spans_within_spans(tracer: Tracer) -> None:
    """Nest, with attributes of every kind, at the start and later."""
    given: dict[str, Any] = {
        "s": "x",
        "i": 1,
        "f": 1.5,
        "b": True,
        "l": ["a", "b"],
        "t": (1, 2),
    }
    with tracer.start_as_current_span("a", kind=SpanKind.SERVER, attributes=given) as a:
        a.set_attribute("late", 2)
        a.set_attribute("s", "changed")
        a.set_attributes({"x": 1, "y": [True]})
        with tracer.start_as_current_span("b", kind=SpanKind.CLIENT):
            trace.get_current_span().add_event("e", {"k": 1, "l": ["x"]}, timestamp=5)
        with tracer.start_as_current_span("c"):
            trace.get_current_span().update_name("d")


def exceptions_with_each_flag(tracer: Tracer) -> None:
    """Raise through spans that record it, set the status, or do not."""
    for record in (True, False):
        for status in (True, False):
            for start in (tracer.start_as_current_span, tracer.start_span):
                span = start(
                    f"{record} {status}",
                    record_exception=record,
                    set_status_on_exception=status,
                )
                with pytest.raises(OddError), span:
                    raise OddError


def exceptions_through_use_span(tracer: Tracer) -> None:
    """Raise through spans that another library has started."""
    for error in (OddError, TimeoutError, asyncio.CancelledError, GeneratorExit):
        span = tracer.start_span(error.__name__)
        with pytest.raises(error), trace.use_span(span, end_on_exit=True):
            raise error


def a_span_that_goes_on_after_its_block(tracer: Tracer) -> None:
    """Leave blocks with and without an exception, and end the span later."""
    with (
        pytest.raises(OddError),
        tracer.start_as_current_span("raised", end_on_exit=False) as raised,
    ):
        raise OddError
    with tracer.start_as_current_span("left", end_on_exit=False) as left:
        pass
    for span in (raised, left):
        span.set_attribute("after", 1)
        span.end()


def exceptions_that_are_recorded_by_hand(tracer: Tracer) -> None:
    """Record what was handled, with attributes, and what was never raised."""
    with tracer.start_as_current_span("work") as span:
        try:
            int("no number")
        except ValueError as error:
            span.record_exception(error, attributes={"extra": 1}, timestamp=7)
        span.record_exception(OddError("never raised"))


def links_of_all_kinds(tracer: Tracer) -> None:
    """Link at the start and later, near and far, and to nothing."""
    with tracer.start_as_current_span("a") as first:
        pass
    links = [Link(first.get_span_context(), {"x": 1}), Link(ELSEWHERE)]
    with tracer.start_as_current_span("b", links=links) as second:
        second.add_link(ELSEWHERE, {"z": 1})
        second.add_link(NOWHERE)
        second.add_link(NOWHERE, {"has": "attributes"})


def parents_from_elsewhere(tracer: Tracer) -> None:
    """Continue traces of other processes, sampled or not, and of nobody."""
    for flags in ("01", "00"):
        headers = {
            "traceparent": f"00-{TRACE}-b7ad6b7169203331-{flags}",
            "tracestate": "a=1,b=2",
        }
        context = propagate.extract(headers)
        with tracer.start_as_current_span(f"child {flags}", context=context):
            with tracer.start_as_current_span("grandchild"):
                pass
            sent: dict[str, str] = {}
            propagate.inject(sent)
            assert sent["traceparent"].startswith(f"00-{TRACE}-")
    silent = trace.NonRecordingSpan(
        SpanContext(7, 8, is_remote=False, trace_flags=TraceFlags(1))
    )
    for name, parent in (("silent", silent), ("invalid", trace.INVALID_SPAN)):
        context = trace.set_span_in_context(parent)
        with tracer.start_as_current_span(f"{name} parent", context=context):
            pass
    with (
        tracer.start_as_current_span("outer"),
        tracer.start_as_current_span("root all the same", context=Context()),
    ):
        pass


def decorated_functions(tracer: Tracer) -> None:
    """Decorate functions and coroutine functions; each call is a span."""

    @tracer.start_as_current_span("plain")
    def plain() -> str:
        return str(getattr(trace.get_current_span(), "name", ""))

    @tracer.start_as_current_span("coroutine", attributes={"k": 1})
    async def coroutine() -> str:
        await asyncio.sleep(0)
        return str(getattr(trace.get_current_span(), "name", ""))

    @tracer.start_as_current_span("raising")
    def raising() -> None:
        raise OddError

    current = (plain(), plain(), asyncio.run(coroutine()))
    # Of what is not sampled the SDK knows no name.
    if tracer.start_span("probe").is_recording():
        assert current == ("plain", "plain", "coroutine")
    with pytest.raises(OddError):
        raising()


def statuses_in_every_order(tracer: Tracer) -> None:
    """Set the status once or twice: OK is final, UNSET says nothing."""
    ok, error, unset = StatusCode.OK, StatusCode.ERROR, StatusCode.UNSET
    calls: list[list[tuple[Any, ...]]] = [
        [(ok,)],
        [(error,)],
        [(error, "d")],
        [(ok,), (error, "d")],
        [(error, "d"), (ok,)],
        [(error, "d"), (unset,)],
        [(error, "d"), (error, "e")],
        [(Status(error, "object"),)],
        [(Status(ok),)],
    ]
    for number, each in enumerate(calls):
        with tracer.start_as_current_span(str(number)) as span:
            for arguments in each:
                span.set_status(*arguments)
    with pytest.raises(OddError), tracer.start_as_current_span("ok, then"):
        fail_after(ok)


def times_that_are_given(tracer: Tracer) -> None:
    """Start and end in the past, and use a span after its end."""
    span = tracer.start_span("past", start_time=100)
    span.end(end_time=200)
    assert not span.is_recording()
    span.set_attribute("late", 1)
    span.update_name("late")
    span.add_event("late")
    span.set_status(StatusCode.ERROR)
    span.end(300)


def spans_around_yields(tracer: Tracer) -> None:
    """Open a span in a generator, and others in its consumer."""

    def numbers() -> Iterator[int]:
        with tracer.start_as_current_span("generator"):
            yield 1
            yield 2

    for number in numbers():
        with tracer.start_as_current_span(f"consumer {number}"):
            pass


def spans_started_here_and_used_there(tracer: Tracer) -> None:
    """Start with `start_span`, use as parent by context, attach by hand."""
    with tracer.start_span("never current") as span:
        assert trace.get_current_span() is trace.INVALID_SPAN
        context = trace.set_span_in_context(span)
        tracer.start_span("by context", context=context).end()
        token = otel.attach(context)
        tracer.start_span("by attaching").end()
        otel.detach(token)
    tracer.start_span("root").end()


BODIES: Final[list[Callable[[Tracer], None]]] = [
    spans_within_spans,
    exceptions_with_each_flag,
    exceptions_through_use_span,
    a_span_that_goes_on_after_its_block,
    exceptions_that_are_recorded_by_hand,
    links_of_all_kinds,
    parents_from_elsewhere,
    decorated_functions,
    statuses_in_every_order,
    times_that_are_given,
    spans_around_yields,
    spans_started_here_and_used_there,
]


def shape(spans: Sequence[ReadableSpan]) -> list[dict[str, object]]:
    """Return what of *spans* does not differ from one run to the next.

    Without what agenttrace adds, and without `exception.escaped`: deprecated, and
    `use_span` says False of everything that escapes it.
    """
    names = {_context(span).span_id: span.name for span in spans}
    traces: dict[int, int] = {}
    shaped: list[dict[str, object]] = []
    for span in spans:
        context, parent, scope = _context(span), span.parent, span.instrumentation_scope
        assert scope is not None
        shaped.append(
            {
                "name": span.name,
                "kind": span.kind,
                "trace": traces.setdefault(context.trace_id, len(traces)),
                "sampled": context.trace_flags.sampled,
                "state": context.trace_state.to_header(),
                "parent": parent and names.get(parent.span_id, parent.span_id),
                "remote": parent and parent.is_remote,
                "attributes": {
                    key: value
                    for key, value in (span.attributes or {}).items()
                    if not key.startswith(_OURS)
                },
                "events": [
                    (event.name, _event(event.attributes), _own(event.timestamp))
                    for event in span.events
                ],
                "links": [
                    (
                        names.get(link.context.span_id, link.context.span_id),
                        dict(link.attributes or {}),
                    )
                    for link in span.links
                ],
                "status": (span.status.status_code, span.status.description),
                "times": (_own(span.start_time), _own(span.end_time)),
                "scope": (scope.name, scope.version, scope.schema_url),
                "scope attributes": dict(scope.attributes or {}),
                "resource": dict(span.resource.attributes),
                "dropped": (
                    span.dropped_attributes,
                    span.dropped_events,
                    span.dropped_links,
                ),
            }
        )
    return shaped


def _context(span: ReadableSpan) -> SpanContext:
    context = span.get_span_context()
    assert context is not None
    return context


def _event(attributes: Any) -> dict[str, object]:  # noqa: ANN401 - the SDK's differ by version
    values = dict(attributes or {})
    values.pop("exception.escaped", None)
    stack = values.get("exception.stacktrace")
    if stack is not None:
        # The frames between are of whoever calls the body.
        lines = str(stack).splitlines()
        values["exception.stacktrace"] = [lines[0], lines[-1]]
    return values


def _own(time: int | None) -> int | None:
    return time if time is not None and time < _LARGE else None
