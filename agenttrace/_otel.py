"""The only file with private names of OpenTelemetry, each with a way to do without.

Checked against 1.39 to 1.45.  Nothing of `opentelemetry.context` or of the SDK is
imported at the top: this module is loaded while the former is still being imported
(see `context`), and the latter costs ten milliseconds.
"""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from functools import cache
from typing import TYPE_CHECKING, Any

from opentelemetry.context.context import Context
from opentelemetry.context.context import (
    _RuntimeContext as RuntimeContext,  # pyright: ignore[reportPrivateUsage]  # this file's purpose
)
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from opentelemetry.trace import SpanContext, TraceState

__all__ = [
    "RuntimeContext",
    "context_variable",
    "is_suppressed",
    "new_context_variable",
    "put_into",
    "runtime_context",
    "set_runtime_context",
    "span_context",
    "span_key",
    "suppress_instrumentation",
]


put_into: Callable[[Context, str, object], None] = dict[str, object].__setitem__
"""Put a value into a copy of a context that nobody else has seen yet.

A Context refuses assignment, and making another copy for one value costs twice.
"""


def new_context_variable() -> ContextVar[Any]:
    """Return the variable that OTel itself would make."""
    variable = context_variable(ContextVarsRuntimeContext())
    if variable is not None:
        return variable
    return ContextVar("current_context", default=Context())  # noqa: B039 - a Context is immutable


def context_variable(runtime: object) -> ContextVar[Any] | None:
    """Return the variable in which *runtime* keeps the current context, if it does."""
    if not isinstance(runtime, ContextVarsRuntimeContext):
        return None
    variable: ContextVar[Any] | None = getattr(runtime, "_current_context", None)
    return variable if type(variable) is ContextVar else None


def _context_api() -> Any:  # noqa: ANN401 - a module, for its private name
    import opentelemetry.context  # noqa: PLC0415 - see the header

    return opentelemetry.context


_api: Any = None


def runtime_context() -> RuntimeContext:
    """Return the runtime context in use."""
    global _api  # noqa: PLW0603 - an import statement costs too much on a hot path
    if _api is None:
        _api = _context_api()
    runtime: RuntimeContext = _api._RUNTIME_CONTEXT  # noqa: SLF001 - this file's purpose
    return runtime


def set_runtime_context(runtime: RuntimeContext) -> None:
    """Put *runtime* in use: OTel's functions read this global at every call."""
    _context_api()._RUNTIME_CONTEXT = runtime  # noqa: SLF001 - this file's purpose


@cache
def span_key() -> str:
    """Return the key under which a context holds its current span."""
    from opentelemetry.trace import propagation  # noqa: PLC0415 - see the header

    key = getattr(propagation, "_SPAN_KEY", None)
    if isinstance(key, str):
        return key
    # By public means: the one key that a context with nothing but a span has.
    from opentelemetry.trace import INVALID_SPAN  # noqa: PLC0415 - see the header

    return next(iter(propagation.set_span_in_context(INVALID_SPAN, Context())))


def span_context(
    trace_id: int,
    span_id: int,
    *,
    is_remote: bool,
    flags: int,
    trace_state: TraceState | None,
) -> SpanContext:
    """Return the API's span context."""
    from opentelemetry.trace import SpanContext, TraceFlags  # noqa: PLC0415 - see above

    return SpanContext(trace_id, span_id, is_remote, TraceFlags(flags), trace_state)


def meter_provider() -> Any:  # noqa: ANN401 - the SDK must not be imported here
    """Return the meter provider that is set globally and real, None where none is.

    Looked up without asking the API for it: that would load one that a variable names,
    and set it.
    """
    api = sys.modules.get("opentelemetry.metrics")
    if api is None:  # so nobody has set one
        return None
    state: Any = getattr(api, "_internal", None)
    try:
        provider = state._METER_PROVIDER  # noqa: SLF001 - this file's purpose
    except AttributeError:
        provider = api.get_meter_provider()
    proxy: Any = getattr(state, "_ProxyMeterProvider", api.NoOpMeterProvider)
    is_real = not isinstance(provider, (api.NoOpMeterProvider, proxy))
    return provider if is_real else None


def give_up_provider(provider: object) -> bool:
    """Let another tracer provider be set globally, if *provider* is the global one.

    Returns:
        Whether the next one that is set will be.
    """
    from opentelemetry import trace  # noqa: PLC0415 - see the header

    api: Any = trace
    once = getattr(api, "_TRACER_PROVIDER_SET_ONCE", None)
    if provider is None or getattr(api, "_TRACER_PROVIDER", None) is not provider:
        return False
    if once is None:
        return False
    api._TRACER_PROVIDER_SET_ONCE = type(once)()  # noqa: SLF001 - this file's purpose
    api._TRACER_PROVIDER = None  # noqa: SLF001 - this file's purpose
    return True


def renew_lock_of(provider: Any) -> None:  # noqa: ANN401 - an SDK tracer provider
    """Give *provider* a lock that nobody holds, in a child process."""
    if hasattr(provider, "_tracers_lock"):
        provider._tracers_lock = threading.Lock()  # noqa: SLF001 - this file's purpose


def is_enabled(tracer: Any) -> bool:  # noqa: ANN401 - an SDK tracer
    """Return whether the SDK's tracer configurator leaves *tracer* on (1.40+)."""
    config = getattr(tracer, "_tracer_config", None)
    return bool(getattr(config, "is_enabled", True))


def scope_of(tracer: Any) -> Any:  # noqa: ANN401 - the SDK must not be imported here
    """Return the instrumentation scope of an SDK *tracer*."""
    return tracer._instrumentation_scope  # noqa: SLF001 - this file's purpose


def limits_of(provider: Any) -> Any:  # noqa: ANN401 - the same
    """Return the span limits of an SDK *provider*."""
    return provider._span_limits  # noqa: SLF001 - this file's purpose


def set_resource(provider: Any, resource: Any) -> None:  # noqa: ANN401 - the same
    """Give an SDK *provider* another resource."""
    provider._resource = resource  # noqa: SLF001 - this file's purpose


def processors_of(provider: Any) -> tuple[Any, ...]:  # noqa: ANN401 - the same
    """Return the processors that were added to an SDK *provider*."""
    multi = provider._active_span_processor  # noqa: SLF001 - this file's purpose
    processors = getattr(multi, "_span_processors", None)
    return (multi,) if processors is None else tuple(processors)


def processors_behind(on_end: Any) -> tuple[Any, ...]:  # noqa: ANN401 - the same
    """Return the methods that *on_end* of an SDK's composite calls, one for each.

    Nothing where it is another's: a tool that stands in its place wants to be called.
    """
    from opentelemetry.sdk.trace import (  # noqa: PLC0415 - see the header
        SynchronousMultiSpanProcessor,
    )

    if getattr(on_end, "__func__", None) is not SynchronousMultiSpanProcessor.on_end:
        return ()
    return tuple(
        each.on_end for each in getattr(on_end.__self__, "_span_processors", ())
    )


def set_processors(provider: Any, processors: tuple[Any, ...]) -> None:  # noqa: ANN401 - the same
    """Leave an SDK *provider* with *processors* alone: those it had at some time."""
    multi = provider._active_span_processor  # noqa: SLF001 - this file's purpose
    if hasattr(multi, "_span_processors"):
        multi._span_processors = processors  # noqa: SLF001 - this file's purpose


@cache
def _suppression_keys() -> tuple[str, ...]:
    # The plain word is what instrumentations have asked for since before the API had
    # keys of its own, and ask for still.
    return ("suppress_instrumentation", *_keys("_SUPPRESS_INSTRUMENTATION_KEY"))


@cache
def _http_suppression_keys() -> tuple[str, ...]:
    return _keys("_SUPPRESS_HTTP_INSTRUMENTATION_KEY")


def _keys(name: str) -> tuple[str, ...]:
    key = getattr(_context_api(), name, None)
    return (key,) if isinstance(key, str) else ()


def is_suppressed(context: Context) -> bool:
    """Return whether somebody asked that nothing be traced in *context*."""
    for key in _suppression_keys():  # noqa: SIM110 - a generator costs more than it all
        if context.get(key):
            return True
    return False


@contextmanager
def suppress_instrumentation() -> Generator[None]:
    """Keep every instrumentation in the process from tracing what runs inside.

    Our own requests, were they traced, would make spans that have to be sent.
    """
    import opentelemetry.context as api  # noqa: PLC0415 - see the header

    context = api.get_current()
    for key in (*_suppression_keys(), *_http_suppression_keys()):
        context = api.set_value(key, True, context)  # noqa: FBT003 - a value, no flag
    token = api.attach(context)
    try:
        yield
    finally:
        api.detach(token)


def composite_of(provider: Any) -> Any:  # noqa: ANN401 - the same
    """Return what an SDK *provider* and its tracers hand every span to, or None."""
    return getattr(provider, "_active_span_processor", None)


def form_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the SDK's `ReadableSpan` is made of, for a span with that `vars`.

    The instance dictionary outlives its span, so one that was collected without an
    end can still be told.  Containers are copies: the owner may go on writing.
    """
    return {
        "name": state.get("_name", ""),
        "context": state.get("_context"),
        "parent": state.get("_parent"),
        "resource": state.get("_resource"),
        "attributes": copy(state.get("_attributes")),
        "events": _copied(state.get("_events")),
        "links": _copied(state.get("_links")),
        "kind": state.get("_kind"),
        "status": state.get("_status"),
        "start_time": state.get("_start_time"),
        "instrumentation_scope": state.get("_instrumentation_scope"),
    }


def sets_status(state: Mapping[str, Any]) -> bool:
    """Return whether an exception may set the status of a span with that `vars`."""
    return bool(state.get("_set_status_on_exception", True))


def _copied(items: Any) -> Any:  # noqa: ANN401 - the SDK's bounded list
    """Return a copy that knows how many items the SDK's list has dropped."""
    inner = getattr(items, "_dq", None)
    if inner is None:
        return tuple(items or ())
    copied = copy(items)
    copied._dq = copy(inner)  # noqa: SLF001 - this file's purpose
    return copied


def with_event(items: Any, event: object) -> Any:  # noqa: ANN401 - the same
    """Return *items*, which are a copy, with *event* as the last one."""
    if not hasattr(items, "append"):
        return (*items, event)
    items.append(event)
    return items


def with_attributes(held: Any, values: Mapping[str, Any]) -> Any:  # noqa: ANN401 - the same
    """Return *held*, a span's attributes, with *values*, though it is sealed.

    An ended span takes no more attributes, and a full one would lose its oldest; what
    is said here is more than any of those.
    """
    inner = getattr(held, "_dict", None)
    if inner is None:
        kept: Mapping[str, Any] = held or {}
        return {**kept, **values}
    # Exchanged, not changed: another thread may be reading it.
    held._dict = {**inner, **values}  # noqa: SLF001 - this file's purpose
    return held


def correct(span: Any, values: Mapping[str, Any], status: Any) -> None:  # noqa: ANN401 - the same
    """Put *values* and *status* on an ended `ReadableSpan`, which has no setters."""
    span._attributes = with_attributes(span._attributes, values)  # noqa: SLF001 - this file's purpose
    if status is not None:
        span._status = status  # noqa: SLF001 - the same
