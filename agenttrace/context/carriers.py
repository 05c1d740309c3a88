"""Hands the tracing context across threads, executors, processes and queues.

What is carried is the tracing context alone.  A whole `contextvars.copy_context()`
would also carry the application's own variables into its workers, and change what
they see.

OpenTelemetry's propagators are imported by whoever leaves the process: to load those
of the environment takes two milliseconds.
"""

from __future__ import annotations

import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from opentelemetry import context as otel
from opentelemetry.context.context import Context

from agenttrace import safety
from agenttrace.context import scope
from agenttrace.context.bound import BOUND_KEY, bound_in

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

P = ParamSpec("P")
T = TypeVar("T")


def carry(fn: Callable[P, T]) -> Callable[P, T]:
    """Return *fn* so that it runs under the spans that are current now.

    For a thread, an executor, a callback: `Thread(target=carry(work))`.  The result
    may be called any number of times, also at once from several threads.
    """
    context = otel.get_current()

    @functools.wraps(fn)
    def carried(*args: P.args, **kwargs: P.kwargs) -> T:
        token = otel.attach(context)
        try:
            return fn(*args, **kwargs)
        finally:
            scope.detach(token)

    return carried


def carrier() -> dict[str, str]:
    """Return the current tracing context as headers, for another process.

    Written by the application's global propagator: `traceparent`, `tracestate`, and
    baggage where it is used.  Plain strings: put them into a message or a job.  For
    the environment of a subprocess there is `environ`.
    """
    headers: dict[str, str] = {}
    safety.guarded("carrier", _inject, headers)
    return headers


@contextmanager
def extracted(carrier: Mapping[str, str]) -> Generator[None]:
    """Have what *carrier* was made under be current in this block.

    Args:
        carrier: What `carrier()` returned there.  Unknown or damaged entries are
            ignored: what starts in the block then has no parent.
    """
    here = otel.get_current()
    context = safety.guarded("continue_trace", context_of, carrier, here)
    token = otel.attach(_with_bound(Context(), here) if context is None else context)
    try:
        yield
    finally:
        scope.detach(token)


# Both run what others wrote: loading the propagators that a variable names, too.


def _inject(headers: dict[str, str]) -> None:
    from opentelemetry import propagate  # noqa: PLC0415 - see the header

    propagate.inject(headers)


def context_of(carrier: Mapping[str, str], here: Context) -> Context:
    """Return the context in *carrier*, and what is bound *here*: that stays."""
    from opentelemetry import propagate  # noqa: PLC0415 - see the header

    from agenttrace.context.environment import NAMES  # noqa: PLC0415 - the same

    # Into an empty one: some propagators take what is current for what they find.
    return _with_bound(propagate.extract(carrier, Context(), NAMES), here)


def _with_bound(context: Context, here: Context) -> Context:
    bound = bound_in(here)
    return otel.set_value(BOUND_KEY, bound, context) if bound else context
