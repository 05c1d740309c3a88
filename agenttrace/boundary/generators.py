"""Drives a generator so that its span is current inside it and never outside.

The tracing context is made current for one step and put away before the item reaches
the consumer, in the consumer's own task and context.  The application's own context
variables are left alone, so a private `contextvars.Context` or a task per step (which
disable `asyncio.timeout` and break anyio's scopes) are out of the question.

The wrapper is a true generator, and whatever the consumer does to it is forwarded by
`send` and `throw` alone: a `GeneratorExit` too, so that a body which yields in answer
to it gets the interpreter's own verdict.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
from typing import TYPE_CHECKING, Any, Final

from agenttrace.boundary.recorder import Progress
from agenttrace.clock import COARSE
from agenttrace.context import scope
from agenttrace.context.collector import COLLECTOR, FINISHED

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from agenttrace.boundary.call import Call

# Bound once: looking a member up costs more than using it.
_NOTHING: Final = Progress.NOTHING
_FINAL: Final = Progress.FINAL


def drive(  # noqa: C901, PLR0912, PLR0915 - every step costs a frame; this is one
    call: Call,
    source: list[Generator[Any, Any, Any]],
    read: Callable[[Any], Progress] | None = None,
) -> Generator[Any, Any, Any]:
    """Run a generator, the body, step by step inside the span of *call*.

    Args:
        call: Whose span it is, and who is told how it ends.
        source: Holds the body by the time of the first step.
        read: Given every item before the consumer is, and says what it means; None
            takes each for progress.
    """
    if call.span is None:
        call.begin()
    get, activate, put_away = scope.accessors()
    beat = _beat_of(call)
    body = source.pop()
    send, throw = body.send, body.throw
    outer: scope.Value = call.context
    inner = outer
    resume: Any = send
    passed: Any = None  # what is sent into the body, or thrown; then its item
    token: Any = None
    # When it last beat: looking at the clock costs a third of what a heartbeat does.
    tick: int | None = None
    items = 0
    # As locals: a global costs twice as much to read.
    coarse, collector, idle = COARSE, COLLECTOR, FINISHED.stop
    try:
        while True:
            if inner is not outer:
                inner = scope.before(inner)
            token = activate(inner)
            # What was sent in is not ours to keep alive, so the item takes its place;
            # nor is the context that it came from: putting away returns None.
            passed = resume(passed)
            inner = get()
            token = put_away(token)
            if read is not None:
                # `Call.take`, whose frame would cost more than what it does.
                call.items += 1
                try:
                    progress = read(passed)
                except Exception as error:  # noqa: BLE001 - runs inside the application
                    progress = call.misread(error)
                if progress is not _NOTHING:
                    if tick is not coarse.now:
                        tick = coarse.now
                        beat()
                    if progress is _FINAL:
                        call.final = True
            else:
                items += 1
                if tick is not coarse.now:
                    tick = coarse.now
                    beat()
            try:
                # Nor is the item: it is the consumer's alone, as if from the body.
                passed = yield (passed, passed := None)[0]
                resume = send
            except BaseException as error:  # noqa: BLE001 - forwarded into the body
                resume, passed = throw, error
            if collector.event is not idle:
                # It has been at work since, or is: which of the two costs more to ask.
                idle = FINISHED.stop
                if collector.event is not idle and collector.is_here():
                    get, activate, put_away = scope.accessors()
    except StopIteration as stop:
        _put_away_in_mid_step(put_away, token)
        call.items += items
        if isinstance(passed, GeneratorExit):
            call.abandon()
        else:
            call.succeed(stop.value)
        return stop.value
    except BaseException as error:
        _put_away_in_mid_step(put_away, token)
        call.items += items
        call.fail(error)
        raise
    finally:
        # An exception that holds this frame must not be held by it.
        token = passed = None


async def drive_async(  # noqa: C901, PLR0912, PLR0915 - every step costs a frame; this is one
    call: Call,
    body: AsyncGenerator[Any, Any],
    read: Callable[[Any], Progress] | None = None,
) -> AsyncGenerator[Any, Any]:
    """Run *body* step by step inside the span of *call*: `drive`, awaited."""
    call.loop = asyncio._get_running_loop()  # noqa: SLF001 - documented; None without a loop
    if call.span is None:
        call.begin()
    get, activate, put_away = scope.accessors()
    beat = _beat_of(call)
    send, throw = body.asend, body.athrow
    outer: scope.Value = call.context
    inner = outer
    kept = outer
    resume: Any = functools.partial(_first_step, body)
    passed: Any = None  # what is sent into the body, or thrown; then its item
    token: Any = None
    # When it last beat: looking at the clock costs a third of what a heartbeat does.
    tick: int | None = None
    items = 0
    # As a local: a global costs twice as much to read.
    coarse = COARSE
    try:
        while True:
            if inner is not outer:
                inner = kept = scope.before(inner)
            token = activate(inner)
            # What was sent in is not ours to keep alive, so the item takes its place;
            # nor is the context that it came from: putting away returns None.
            passed = await resume(passed)
            inner = get()
            try:
                token = put_away(token)
            except (ValueError, RuntimeError):
                # Somebody drives this by hand and has gone on in another context, in
                # which nothing is ours.
                token, inner = None, kept
            if read is not None:
                # `Call.take`, whose frame would cost more than what it does.
                call.items += 1
                try:
                    progress = read(passed)
                except Exception as error:  # noqa: BLE001 - runs inside the application
                    progress = call.misread(error)
                if progress is not _NOTHING:
                    if tick is not coarse.now:
                        tick = coarse.now
                        beat()
                    if progress is _FINAL:
                        call.final = True
            else:
                items += 1
                if tick is not coarse.now:
                    tick = coarse.now
                    beat()
            try:
                # Nor is the item: it is the consumer's alone, as if from the body.
                passed = yield (passed, passed := None)[0]
                resume = send
            except BaseException as error:  # noqa: BLE001 - forwarded into the body
                resume, passed = throw, error
                call.leave(error)
                # No finalizer drives it otherwise: that would need a loop of its own.
                get, activate, put_away = scope.accessors()
    except StopAsyncIteration:
        _put_away_in_mid_step(put_away, token)
        call.items += items
        if isinstance(passed, GeneratorExit):
            call.abandon()
        else:
            call.succeed()
    except BaseException as error:
        _put_away_in_mid_step(put_away, token)
        call.items += items
        call.fail(error)
        raise
    finally:
        token = passed = None


def _first_step(body: AsyncGenerator[Any, Any], argument: None) -> Any:  # noqa: ANN401 - an awaitable of the interpreter's
    """Return the first step of *body*, whose finalizer is the wrapper's business.

    The loop must know the wrapper and not the body: it would close both at shutdown,
    at once and in a foreign context.  With no finalizer at all the interpreter would
    run the body's clean-up where, without us, a closed loop would have left it be.
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, _leave_alone)
    try:
        return body.asend(argument)
    finally:
        sys.set_asyncgen_hooks(*hooks)


def _leave_alone(_: object) -> None:
    pass


def _beat_of(call: Call) -> Callable[[], None]:
    """Return what notes a sign of progress of *call*."""
    # Never the memory itself: once the span is judged, that is another span's.
    return _nothing if call.record is None else call.record.beat


def _nothing() -> None:
    pass


def _put_away_in_mid_step(put_away: Any, token: Any) -> None:  # noqa: ANN401 - see scope.Accessors
    """Put the tracing context away after a step that did not come to its item."""
    if token is None:
        return
    # A frame torn down in mid-step runs this in the context of whoever collects it.
    # There is nothing of ours to put away there.
    with contextlib.suppress(ValueError, RuntimeError):
        put_away(token)
