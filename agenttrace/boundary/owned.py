"""Calls of a library that starts and ends their spans by itself.

Some libraries trace themselves through OpenTelemetry's API, and know less of an ending
than a boundary does: a stream that is left, dropped or cancelled ends like one that was
read.  Such a call is followed like any other, in all its shapes.  The span stays the
library's: it starts it, with its own tracer, and what it gets is a stand-in that does
all that the span does, but for its end.  How the span ends is the call's word.

So is when, where the operation outlives the call: a response that goes on in the
background is one span from its request on, which every further call goes on in.

A library's stream object stays its own as well.  Each pull passes through `pulled`, by
which the call is current inside it, reads what it brings, and hears how it failed.  An
end that the library comes to inside a pull is the pull's business; outside of one it
means that nobody wants the rest.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING, Any, Final, cast

import wrapt
from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.context.context import Context

from agenttrace import _otel, safety, semconv, tracing
from agenttrace.boundary.call import Call, Unstarted
from agenttrace.boundary.opened import comes_no_more, task_here
from agenttrace.boundary.shared import OFFER_KEY, SharedSpan
from agenttrace.boundary.streams import alive_of
from agenttrace.context.request import current_request
from agenttrace.context.scope import detach
from agenttrace.exceptions import class_name
from agenttrace.model import NO_ATTRIBUTES, Ending, Outcome

if TYPE_CHECKING:
    from agenttrace.boundary.pending import Pending
    from agenttrace.boundary.recorder import Recorder
    from agenttrace.model import Attributes

if TYPE_CHECKING:
    _SpanProxy = wrapt.ObjectProxy[trace.Span]
    _TracerProxy = wrapt.ObjectProxy[trace.Tracer]
else:  # a class that wrapt before 2.0 cannot subscript
    _SpanProxy = _TracerProxy = wrapt.ObjectProxy

_OWNED_KEY: Final = otel.create_key("agenttrace-owned-call")


class StandIn(_SpanProxy):
    """A library's span, in its hands: its end is the call's to say."""

    def __init__(self, span: trace.Span, call: OwnedCall) -> None:
        super().__init__(span)
        self._self_call = call

    def end(self, end_time: int | None = None) -> None:
        """Hear that the library is done with it."""
        del end_time  # it comes at once, and the call knows when
        safety.guarded("owned.end", self._self_call.let_go_by_owner)


class OwnedCall(Call):
    """A call whose span the library starts, and says when it is done with.

    Args:
        recorder: Reads the operation.
        parent: The context the operation was called in.
        offers: Whether the span is offered to the client that is asked beneath it.

    Attributes:
        pending: What is known of the operation, where it goes on after the call.
        reader: The task that was the last to read its stream.
    """

    __slots__ = (
        "_called",
        "_inside",
        "_opened",
        "_shared",
        "_standin",
        "_streams",
        "_wants",
        "_was_let_go",
        "pending",
        "reader",
    )

    def __init__(self, recorder: Recorder, parent: Context, *, offers: bool) -> None:
        super().__init__(recorder, parent)
        self.pending: Pending | None = None
        self.reader: weakref.ref[asyncio.Task[Any]] | None = None
        self._shared = _Offered(self) if offers else None
        self._standin: trace.Span = trace.INVALID_SPAN
        self._called = False
        self._inside = 0
        self._opened: _Opened | None = None
        self._streams = False
        self._wants = False
        self._was_let_go = False
        self.context = context = Context(parent)
        _otel.put_into(context, _OWNED_KEY, self)
        if self._shared is not None:
            _otel.put_into(context, OFFER_KEY, self._shared)

    def begin(self) -> bool:
        """Wait for the library to start the span."""
        self._wants = True
        request = current_request()
        self.request = None if request is None or request.is_over else request
        return True

    @property
    def is_inside(self) -> bool:
        """Whether somebody is at work in it, and does not just keep its stream."""
        return self._is_called or self._inside > 0

    @property
    def goes_on(self) -> bool:
        """Whether somebody is at work in it, or another task reads its stream."""
        if self.is_inside or not self._streams or self.done or self.is_dropped():
            return self.is_inside
        return self.reader is not None and not comes_no_more(self.reader)

    @property
    def _is_called(self) -> bool:
        # A coroutine that is dropped or cancelled before its first step does not say.
        return self._called and not self.is_dropped()

    @property
    def wants_span(self) -> bool:
        """Whether the next span that its library starts is this call's."""
        return self._wants and not self.done and self._is_called

    def start(self, tracer: trace.Tracer, name: str, **options: Any) -> trace.Span:  # noqa: ANN401 - OTel's
        """Start the span as the library asks for, or go on in the one there is.

        Args:
            tracer: The library's.
            name: The name it gives.
            options: What else it asks `start_span` for.
        """
        self._wants = False
        if self.span is None:
            opening = self.recorder.request()
            given: Attributes = options.pop("attributes", None) or {}
            span = tracer.start_span(
                name,
                attributes={**opening.attributes, **given},  # type: ignore[dict-item]  # flat, as the recorder has them
                links=[*opening.links, *(options.pop("links", None) or ())],
                **options,
            )
            self.span = _traced(span)
            self.record = self.span.record
            standin = cast("trace.Span", StandIn(span, self))
            self._standin = standin
            if self._shared is not None:
                self._shared.lend(self.span, standin)
            _otel.put_into(self.context, _otel.span_key(), standin)
            started = getattr(self.recorder, "started", None)
            if started is not None:
                safety.guarded("owned.started", started, self)
        return self._standin

    def let_go_by_owner(self) -> None:
        """Hear that the library is done with the span."""
        self._was_let_go = True
        if self.is_inside:
            return
        error = self.unheard()
        if isinstance(error, StopAsyncIteration):
            self.succeed()
        elif error is not None:
            self.fail(error)
        else:
            self.abandon()

    def unheard(self) -> BaseException | None:
        """Return what ends the stream, where its pulls pass through `pulls` no more."""
        return None

    def run(self, fn: Any, args: Any, kwargs: Any) -> Any:  # noqa: ANN401 - see `Call.run`
        """Call *fn* inside the span and return what it returns."""
        self._called = True
        self._streams = self._was_let_go = False
        self.alive = None  # of the call before
        return super().run(fn, args, kwargs)

    def follow(self, stream: object) -> None:
        """Go on until *stream*, which was returned, has come to its end."""
        self._called = self._wants = False
        self._streams = True
        self.alive = alive_of(stream)
        self.reader = task_here()
        if self.request is not None:
            self._opened = _Opened(self, stream)
            self.request.opened(self._opened)
        _followed[stream] = (*_followed.get(stream, ()), self)

    def wait(self) -> None:
        """Go on when the call has returned, until another one says that it is over."""
        self._called = self._wants = False
        pending = self.pending
        if pending is not None and not pending.polls:
            pending.hold()

    def finish(self, ending: Ending) -> None:
        """End it as *ending* says, unless the operation goes on."""
        self._called = self._wants = False
        pending = self.pending
        shared = self._shared
        told = None if shared is None else shared.ending
        if pending is not None and pending.is_open:
            if told is None and not self.final:
                if self._streams:
                    pending.hold()
                return
            pending.over()
        if self.done:
            return
        facts = NO_ATTRIBUTES if told is None else told.attributes
        if told is not None and told.outcome is not Outcome.OK:
            # The client has seen it: what the library makes of that is another error.
            ending = Ending(told.outcome, told.ended_by, told.error, told.message)
        attributes = {**ending.attributes, **facts}
        if ending.error is not None:
            # Recording it is the library's business, whose own rule there is for that.
            name = class_name(type(ending.error))
            if ending.outcome is Outcome.ERROR:
                attributes.setdefault(semconv.ERROR_TYPE, name)
            ending.message = ending.message or name
            ending.error = None
        ending.attributes = attributes
        super().finish(ending)
        self._ask("ended", ending)
        # They lead back to this call, by which the span would wait for the collector.
        self.context, self._standin = self.parent, trace.INVALID_SPAN
        self._shared = None
        if shared is not None:
            shared.is_taken = True  # nobody can go on in it any more

    def ended_elsewhere(self) -> None:
        """Hear that the client knows the end of what this call waits for."""
        if self.pending is not None and not self.is_inside:
            self.pending.over()
            self.succeed()

    async def pulled(self, step: Unstarted, *, reads: bool) -> Any:  # noqa: ANN401 - an item
        """Await *step*, one pull of the stream, inside the span.

        Args:
            step: Holds the library's own.
            reads: Whether it brings an item; else it is what becomes of them all.
        """
        self.loop = asyncio._get_running_loop()  # noqa: SLF001 - documented; None without a loop
        self._inside += 1
        self.reader = task_here()
        token = otel.attach(self.context)
        try:
            try:
                item = await step.pop()
            finally:
                detach(token)
                self._inside -= 1
        except StopAsyncIteration:
            # Of pulls within pulls, by which a stream cleans up, the outermost decides.
            if not self._inside:
                self.succeed()
            raise
        except BaseException as error:
            if not self._inside and (reads or self._was_let_go):
                self.fail(error)
            raise
        if reads:
            self.take(item)
        elif self._was_let_go and not self._inside:
            self.succeed(item)
        return item


class _Opened:
    """A stream that was opened for a request, as that knows it; held by its call."""

    def __init__(self, call: OwnedCall, stream: Any) -> None:  # noqa: ANN401 - the library's
        self._call = weakref.ref(call)
        self._stream = weakref.ref(stream)

    def is_left(self) -> bool:
        """Return whether it is open, with nobody inside it, and nobody comes again."""
        call = self._call()
        if call is None or call.done or call.span is None or call.is_inside:
            return False
        return call.reader is not None and comes_no_more(call.reader)

    async def close(self) -> None:
        """Close it, where it can be closed."""
        close = getattr(self._stream(), "close", None)
        if close is not None:
            await close()


class _Offered(SharedSpan):
    """The span of an owned call, offered to the client beneath it."""

    __slots__ = ("_call", "_standin")

    lasts = True

    def __init__(self, call: OwnedCall) -> None:
        self._call = weakref.ref(call)
        self._standin: trace.Span = trace.INVALID_SPAN
        self.current = self._standin
        self.is_taken = False
        self.ending: Ending | None = None

    @property
    def api(self) -> trace.Span:
        """What is current inside the call."""
        return self._standin

    def lend(self, span: tracing.TracedSpan, standin: trace.Span) -> None:
        """Know the span, now that it is there."""
        self._span = span
        self.current = self._standin = standin

    def finish(self, ending: Ending) -> None:
        """Keep *ending* for the library, which may not ask again."""
        super().finish(ending)
        call = self._call()
        if call is not None:
            call.ended_elsewhere()


class _Tracer(_TracerProxy):
    """A library's tracer, for the one span that a call waits for."""

    def __init__(self, tracer: trace.Tracer, call: OwnedCall) -> None:
        super().__init__(tracer)
        self._self_call = call

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: trace.SpanKind = trace.SpanKind.INTERNAL,
        **options: Any,  # noqa: ANN401 - OTel's
    ) -> trace.Span:
        """Start the call's span."""
        options.update(context=context, kind=kind)
        tracer, call = self.__wrapped__, self._self_call
        if not call.wants_span:  # it was kept, and this one is another
            return tracer.start_span(name, **options)
        span = safety.guarded("owned.start", call.start, tracer, name, **options)
        return tracer.start_span(name, **options) if span is None else span


def tracer_here(tracer: trace.Tracer) -> trace.Tracer:
    """Return *tracer*, or one that starts the span that the current call waits for.

    Args:
        tracer: The library's own, which it is about to start a span with.
    """
    call = cast("OwnedCall | None", otel.get_current().get(_OWNED_KEY))
    if call is None or not call.wants_span:
        return tracer
    return cast("trace.Tracer", _Tracer(tracer, call))


def pulls(stream: Any, step: Any, *, reads: bool) -> Any:  # noqa: ANN401 - a coroutine
    """Return *step*, one pull of *stream*, so that its calls hear of it.

    Args:
        stream: A stream that calls may go on in.
        step: The library's own coroutine.
        reads: Whether it brings an item; else it is what becomes of them all.
    """
    for call in _followed.get(stream, ()):
        step = call.pulled(Unstarted((step,)), reads=reads)
    return step


def _traced(span: trace.Span) -> tracing.TracedSpan:
    """Return *span*, which its library has started, as one of the port's."""
    if getattr(span, "record", None) is not None:
        return cast("tracing.TracedSpan", span)  # a lean one is it itself
    # What is not recorded may be its parent under another name.
    record = tracing.record_of(span) if span.is_recording() else None
    return tracing.ApiSpan(span, record)


_followed: weakref.WeakKeyDictionary[Any, tuple[OwnedCall, ...]] = (
    weakref.WeakKeyDictionary()
)
