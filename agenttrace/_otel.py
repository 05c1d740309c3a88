"""The only file with private names of OpenTelemetry, each with a way to do without.

Checked against 1.39 to 1.45.  Nothing of `opentelemetry.context` or of the SDK is
imported at the top: this module is loaded while the former is still being imported
(see `context`), and the latter costs ten milliseconds.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any

from opentelemetry.context.context import Context
from opentelemetry.context.context import _RuntimeContext as RuntimeContext
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.trace import SpanContext, TraceState

__all__ = [
    "RuntimeContext",
    "context_variable",
    "new_context_variable",
    "runtime_context",
    "set_runtime_context",
    "span_context",
    "span_key",
    "suppress_instrumentation",
]


def new_context_variable() -> ContextVar[Any]:
    """Return the variable that OTel itself would make."""
    variable = context_variable(ContextVarsRuntimeContext())
    return ContextVar("current_context", default=Context()) if variable is None else variable


def context_variable(runtime: object) -> ContextVar[Any] | None:
    """Return the variable in which *runtime* keeps the current context, if it does."""
    if not isinstance(runtime, ContextVarsRuntimeContext):
        return None
    variable = getattr(runtime, "_current_context", None)
    return variable if isinstance(variable, ContextVar) else None


def runtime_context() -> RuntimeContext:
    """Return the runtime context in use."""
    import opentelemetry.context as api  # noqa: PLC0415 - see the header

    return api._RUNTIME_CONTEXT  # noqa: SLF001 - this file's purpose


def set_runtime_context(runtime: RuntimeContext) -> None:
    """Put *runtime* in use: OTel's functions read this global at every call."""
    import opentelemetry.context as api  # noqa: PLC0415 - see the header

    api._RUNTIME_CONTEXT = runtime  # noqa: SLF001 - this file's purpose


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


def span_context(  # noqa: PLR0913 - the fields of a SpanContext
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


@contextmanager
def suppress_instrumentation() -> Iterator[None]:
    """Keep every instrumentation in the process from tracing what runs inside.

    Our own requests, were they traced, would make spans that have to be sent.
    """
    import opentelemetry.context as api  # noqa: PLC0415 - see the header

    # The plain word is what instrumentations have asked for since before the API had
    # keys of its own, and ask for still.
    keys = {"suppress_instrumentation"}
    for name in ("_SUPPRESS_INSTRUMENTATION_KEY", "_SUPPRESS_HTTP_INSTRUMENTATION_KEY"):
        key = getattr(api, name, None)
        if isinstance(key, str):
            keys.add(key)
    context = api.get_current()
    for key in keys:
        context = api.set_value(key, True, context)  # noqa: FBT003 - a value, no flag
    token = api.attach(context)
    try:
        yield
    finally:
        api.detach(token)
