"""The verbs that name steps, signs of life, pauses, and work done elsewhere."""

from __future__ import annotations

import asyncio
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.trace import Link

from agenttrace import safety, semconv, tracing
from agenttrace.attributes import clean, mapping_of
from agenttrace.context.carriers import extracted
from agenttrace.context.request import apart
from agenttrace.context.scope import detach
from agenttrace.errors import SettingError
from agenttrace.model import NO_ATTRIBUTES, Attributes, Opening

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator, Mapping, Sequence

    from agenttrace.registry import OpenSpan

T = TypeVar("T")


def span(  # noqa: PLR0913 - keywords, each optional
    name: str,
    *,
    operation: str | None = None,
    heartbeat_timeout: float | None = None,
    max_duration: float | None = None,
    attributes: Attributes | None = None,
    links: Sequence[Link] = (),
) -> tracing.Block:
    """Return a block that is a span: current inside, closed with the truth.

    Args:
        name: What the step is called.
        operation: `gen_ai.operation.name`, if it is one of those.
        heartbeat_timeout: Longest healthy silence in seconds; None = the default of
            the operation, `math.inf` = no limit.
        max_duration: Longest total time in seconds; None = the default.
        attributes: Attributes it starts with; values of any type.
        links: Spans it follows from.

    Raises:
        SettingError: A limit is negative or not a number.

    >>> with span("plan", attributes={"pages": 10}) as step:
    ...     step.set_attribute("page", 1)
    """
    if heartbeat_timeout is not None or max_duration is not None:
        check_limits(heartbeat_timeout, max_duration)
    tracer = tracing.installed
    if tracer is tracing.DISABLED:
        return tracing.NO_BLOCK
    given = NO_ATTRIBUTES if attributes is None else mapping_of(attributes)
    if operation is not None:
        given = {semconv.GEN_AI_OPERATION_NAME: operation, **given}
    return tracer.span(name, operation, given, links, heartbeat_timeout, max_duration)


def heartbeat(note: str | None = None, *, progress: float | None = None) -> None:
    """Say that the current span makes progress.

    Args:
        note: What it is doing ("page 4 of 10"); shown in reports, never journaled.
        progress: How far it is, from 0 to 1; what is no finite number is ignored.
    """
    record = current_record()
    if record is not None:
        record.beat()
        if note is not None:
            record.note = str(clean(note))
        if progress is not None:
            # Reports tell it as a number, and must not fail for what is none.
            told = safety.guarded("heartbeat", float, progress)
            if told is not None and math.isfinite(told):
                record.progress = told


@contextmanager
def hold(reason: str) -> Generator[None]:
    """Declare a pause of the current span: waiting for a human, a queue, a schedule.

    While it lasts, silence is no sign of trouble, for this span and all above it, and
    the time is no part of their `max_duration`.  What is started meanwhile has clocks
    of its own.

    Args:
        reason: What is waited for; shown in reports.
    """
    held: list[OpenSpan] = []
    record = current_record()
    if record is not None:
        record.note = str(clean(reason))
    while record is not None:
        above = record.parent  # taken from it when it ends
        record.pause()
        held.append(record)
        record = above
    try:
        yield
    finally:
        for each in held:
            each.unpause()


def current_record() -> OpenSpan | None:
    """Return the registry's record of the current span, if it has one."""
    return tracing.record_of(trace.get_current_span())


def background(coro: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
    """Run *coro* in a task that is a run of its own, linked to the current span.

    The task is held until it is done, or its event loop is dropped, so it cannot be
    collected half way.  Its span begins now, is no child of the request that started it
    and need not wait for it, and tells what became of it, whatever that is: also of one
    that was cancelled before its first step, or whose loop was closed under it
    (`lost`).  What it raises is asyncio's to report, as of any task that nobody awaits.

    Args:
        coro: The coroutine.
        name: Name of the task and of its span.

    Raises:
        RuntimeError: There is no running event loop.
        TypeError: *coro* is no coroutine.
    """
    if not asyncio.iscoroutine(coro):
        message = f"a coroutine was expected, not {type(coro).__qualname__}"
        raise TypeError(message)
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        # Else it would warn as well, later and elsewhere, that nobody awaited it.
        coro.close()
        raise
    from agenttrace.api.jobs import started  # noqa: PLC0415 - few applications need it

    with run_of_its_own() as links, apart():
        return started(coro, loop, Opening(name, links=links))


@contextmanager
def continue_trace(
    carrier: Mapping[str, str], *, run: str | None = None
) -> Generator[None]:
    """Go on with the trace that *carrier* was made in.

    The spans of this block are children of the one that was current there, even if that
    has ended long ago.  A job that is a piece of work for itself is better *run* as
    one: in a trace of its own, linked to that span.

    Args:
        carrier: What `carrier()` returned there, or `os.environ` where that has
            `TRACEPARENT`.  Unknown or damaged entries are ignored: the block then
            starts a trace of its own.
        run: The block is a span of this name, a run of its own.  None = it is none.
    """
    with extracted(carrier):
        if run is None:
            yield
        else:
            with run_of_its_own() as links, span(run, links=links):
                yield


@contextmanager
def run_of_its_own() -> Generator[tuple[Link, ...]]:
    """Have what starts in this block be a trace of its own.

    Yields:
        The links that it is to have: to the span that is current around the block.
    """
    here = otel.get_current()
    starter = trace.get_current_span(here).get_span_context()
    token = otel.attach(trace.set_span_in_context(trace.INVALID_SPAN, here))
    try:
        yield (Link(starter),) if starter.is_valid else ()
    finally:
        detach(token)


def check_limits(heartbeat_timeout: object, max_duration: object) -> None:
    """Refuse limits that cannot be meant.

    Raises:
        SettingError: One is not a number of seconds above zero, None or `math.inf`.
    """
    for setting, value in (
        ("heartbeat_timeout", heartbeat_timeout),
        ("max_duration", max_duration),
    ):
        if value is None:
            continue
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or math.isnan(value)
            or value <= 0
        ):
            raise SettingError(
                setting,
                value,
                "a number of seconds above zero, None (the default) or math.inf "
                "(no limit)",
            )
