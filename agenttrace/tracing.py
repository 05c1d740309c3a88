"""The port between what is traced and what records it.

`boundary`, the instrumentations and the public verbs start and finish spans here and
nowhere else.  The runtime installs a tracer; until it does, spans go to whatever
global tracer provider the application has, without registry, watchdog or journal.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.context.context import Context
from opentelemetry.trace import Link

from agenttrace import _otel, model, safety, semconv
from agenttrace.attributes import MAX_NAME, clean, flat, mapping_of
from agenttrace.context.bound import bound_in
from agenttrace.context.request import current_request
from agenttrace.context.scope import detach
from agenttrace.exceptions import facts_of, is_quoting
from agenttrace.model import (
    Attributes,
    EndedBy,
    Ending,
    Opening,
    Outcome,
    error_type_of,
    returned,
    status_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    from agenttrace.context.request import Request
    from agenttrace.registry import OpenSpan


ENTERED_ALREADY: Final = (
    "this span block is entered already: one block is one span at a time; "
    "call agenttrace.span() again for another"
)


F = TypeVar("F", bound="Callable[..., Any]")


class Block(Protocol):
    """A block that is a span; as a decorator, every call is one."""

    def __enter__(self) -> trace.Span:
        """Start the span and make it current."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """End the span with what came out of the block."""
        ...

    def __call__(self, fn: F) -> F:
        """Return *fn* so that every call of it is a span."""
        ...


class TracedSpan(Protocol):
    """A span that was started through the port."""

    @property
    def api(self) -> trace.Span:
        """The span as OpenTelemetry's API knows it."""
        ...

    @property
    def record(self) -> OpenSpan | None:
        """The registry's record of it, where there is a registry."""
        ...

    def set_attributes(self, attributes: Any, /) -> None:  # noqa: ANN401 - the API's type differs by version
        """Add attributes."""
        ...

    def finish(self, ending: Ending) -> None:
        """End the span.  The first call counts, later ones say nothing."""
        ...


class Tracer(Protocol):
    """Starts spans.  The runtime installs one; so does every test."""

    def start(self, opening: Opening, parent: Context) -> TracedSpan:
        """Start a span below whatever is current in *parent*.  It is not current."""
        ...

    def span(  # noqa: PLR0913, PLR0917 - those of an opening
        self,
        name: str,
        operation: str | None,
        attributes: Attributes,
        links: Sequence[trace.Link],
        heartbeat_timeout: float | None,
        max_duration: float | None,
    ) -> Block:
        """Return a block that is a span: started and current at its entry.

        What the arguments say is an `Opening`'s.
        """
        ...


def ending_of(error: BaseException, request: Request | None = None) -> Ending:
    """Return what it means for a span that *error* came out of it, here.

    That is `model.ending_of`, but for what a server cancels and closes because nobody
    listens any more: then it is the client that has ended it.

    Args:
        error: What came out.
        request: The request that the span is of; None = the current one.
    """
    ending = model.ending_of(error)
    kind = type(error)
    if issubclass(kind, _LEAVINGS):
        request = request or current_request()
        if (
            request is not None
            and request.is_gone
            # Afterwards it is closed by what is left of it, and cancelled by others.
            and (not request.is_over or issubclass(kind, GeneratorExit))
        ):
            return Ending(Outcome.ABANDONED, EndedBy.DISCONNECT, error)
    return ending


def context_with(span: TracedSpan, parent: Context) -> Context:
    """Return *parent* with *span* as the current one."""
    context = Context(parent)
    _otel.put_into(context, _otel.span_key(), span.api)
    return context


class ApiSpan:
    """A span of any OTel provider, started and finished through OTel's API."""

    __slots__ = ("_finished", "api", "record")

    def __init__(self, span: trace.Span, record: OpenSpan | None = None) -> None:
        self.api = span
        self.record = record
        self._finished = False

    def set_attributes(self, attributes: Attributes, /) -> None:
        """Add attributes, in a form that every SDK takes."""
        for key, value in attributes.items():
            self.api.set_attribute(key, flat(value))  # type: ignore[arg-type]  # flat is what it takes

    def finish(self, ending: Ending) -> None:
        """Say how the span ended, in OTel's words and ours, and end it."""
        if self._finished:
            return
        self._finished = True
        span = self.api
        self.set_attributes(ending.attributes)
        span.set_attribute(semconv.OUTCOME, ending.outcome.value)
        span.set_attribute(semconv.ENDED_BY, ending.ended_by.value)
        error_type = error_type_of(ending)
        if error_type is not None and semconv.ERROR_TYPE not in ending.attributes:
            span.set_attribute(semconv.ERROR_TYPE, error_type)
        code, message = status_of(ending)
        if code is not trace.StatusCode.UNSET:
            if ending.error is not None and ending.outcome is not Outcome.CANCELLED:
                safety.guarded("record_exception", self._record, ending.error)
            # As text that can be encoded: else the exporter loses the whole batch.
            span.set_status(code, str(clean(message)))
        span.end(ending.end_time)

    def _record(self, error: BaseException) -> None:
        """Record *error*, also one whose message SDKs cannot read or must not send."""
        if is_quoting(error) or not _can_be_read(error):
            facts = {key: str(clean(text)) for key, text in facts_of(error).items()}
            self.api.add_event(semconv.EXCEPTION_EVENT, facts)
        else:
            self.api.record_exception(error)


def _can_be_read(error: BaseException) -> bool:
    try:
        str(error).encode()
    except Exception:  # noqa: BLE001 - a foreign __str__ may raise anything
        return False
    return True


class ApiTracer:
    """Records through OTel's API: before `configure()`, and beside another provider.

    Args:
        tracer: The tracer to use; None asks the global provider at every start.
        find: Returns the registry's record of a span id, if there is a registry.
    """

    def __init__(
        self,
        tracer: trace.Tracer | None = None,
        find: Callable[[bytes], OpenSpan | None] | None = None,
    ) -> None:
        self._tracer = tracer
        self._find = find

    def start(self, opening: Opening, parent: Context) -> TracedSpan:
        """Start a span of the application's provider."""
        tracer = self._tracer or trace.get_tracer(semconv.SCOPE)
        merged = {**bound_in(parent), **opening.attributes}
        name, links = opening.name, opening.links
        if type(name) is not str or not name.isascii() or len(name) > MAX_NAME:
            name = str(clean(name, MAX_NAME))
        span = tracer.start_span(
            name,
            context=parent,
            kind=opening.kind,
            attributes={key: flat(value) for key, value in merged.items()},  # type: ignore[misc]  # flat is what it takes
            links=links and safety.guarded("span.links", _flat_links, links),
        )
        # What is not recorded may be its parent under another name.
        record = self.record_of(span) if span.is_recording() else None
        if record is not None:
            record.operation = opening.operation
            record.heartbeat_timeout = opening.heartbeat_timeout
            record.max_duration = opening.max_duration
        return ApiSpan(span, record)

    def record_of(self, span: trace.Span) -> OpenSpan | None:
        """Return the registry's record of *span*, whoever started it."""
        if self._find is None:
            return None
        return self._find(span.get_span_context().span_id.to_bytes(8, "big"))

    def span(  # noqa: PLR0913, PLR0917 - those of an opening
        self,
        name: str,
        operation: str | None,
        attributes: Attributes,
        links: Sequence[trace.Link],
        heartbeat_timeout: float | None,
        max_duration: float | None,
    ) -> Block:
        """Return a block that is a span of the application's provider."""
        opening = Opening(
            name,
            operation,
            attributes=attributes,
            links=links,
            heartbeat_timeout=heartbeat_timeout,
            max_duration=max_duration,
        )
        return ApiBlock(self, opening)


def _flat_links(links: Sequence[Link]) -> list[Link]:
    """Return those of *links* that are some, as every SDK takes them."""
    return [
        Link(
            link.context,
            {
                key: flat(value)  # type: ignore[misc]  # flat is what it takes
                for key, value in mapping_of(link.attributes or {}).items()
            },
        )
        for link in links
        if isinstance(getattr(link, "context", None), trace.SpanContext)
    ]


def every_call(fn: F, block: Callable[[], AbstractContextManager[object]]) -> F:
    """Return *fn* so that every call of it runs in a *block* of its own."""
    if inspect.iscoroutinefunction(fn):

        @functools.wraps(fn)
        async def awaited(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as fn
            with block():
                return await fn(*args, **kwargs)

        return cast("F", awaited)

    @functools.wraps(fn)
    def called(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as fn
        with block():
            return fn(*args, **kwargs)

    return cast("F", called)


class ApiBlock:
    """`with span(...)`: starts at entry, current inside, ends with the truth.

    Used as a decorator, every call is a span of its own.
    """

    __slots__ = ("_opening", "_span", "_token", "_tracer")

    def __init__(self, tracer: Tracer, opening: Opening) -> None:
        self._tracer = tracer
        self._opening = opening
        self._span: TracedSpan | None = None
        self._token: Any = None

    def __enter__(self) -> trace.Span:
        if self._span is not None:
            raise RuntimeError(ENTERED_ALREADY)
        parent = otel.get_current()
        span = safety.guarded(
            "tracing.start", self._tracer.start, self._opening, parent
        )
        if span is None:
            return trace.INVALID_SPAN
        self._span = span
        self._token = otel.attach(context_with(span, parent))
        return span.api

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        span, self._span = self._span, None
        if span is None:
            return
        detach(self._token)
        ending = returned() if error is None else ending_of(error)
        safety.guarded("tracing.finish", span.finish, ending)

    def __call__(self, fn: F) -> F:
        """Return *fn* so that every call of it is a span, of the tracer in use then."""
        opening = self._opening
        return every_call(
            fn,
            lambda: installed.span(
                opening.name,
                opening.operation,
                opening.attributes,
                opening.links,
                opening.heartbeat_timeout,
                opening.max_duration,
            ),
        )


class NoBlock(nullcontext[trace.Span]):
    """`with span(...)` where nothing is traced."""

    def __call__(self, fn: F) -> F:
        """Return *fn*."""
        return fn


NO_BLOCK: Final = NoBlock(trace.INVALID_SPAN)

_LEAVINGS: Final = (asyncio.CancelledError, GeneratorExit)

DISABLED: Final = ApiTracer(trace.NoOpTracer())
"""The tracer of a disabled runtime: the verbs look for it and do nothing at all."""

installed: Tracer = ApiTracer()
"""The tracer in use; `install` changes it, so it is read here and never imported."""


def record_of(span: trace.Span) -> OpenSpan | None:
    """Return the registry's record of *span*, if it is open and has one."""
    # A lean span knows its own; that of another provider is looked up.
    record: OpenSpan | None = getattr(span, "record", None)
    if record is None and isinstance(installed, ApiTracer):
        return installed.record_of(span)
    return record


def install(tracer: Tracer | None) -> Tracer:
    """Use *tracer* from now on (None: OTel's API) and return the one before it."""
    global installed
    previous, installed = installed, tracer or ApiTracer()
    return previous
