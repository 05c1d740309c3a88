"""A call: one span from its opening to its one ending, whatever shape the call has.

Which shape it has is decided by what the call *returns*: flags on a function lie
(`AsyncCompletions.create` of openai is no coroutine function by them).  A coroutine is
awaited, a generator driven, a Future gets a done-callback, and everything else is the
caller's, untouched.

Every ending passes through here, on `BaseException`, and is raised again, always.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import dis
import inspect
import sys
import types
import weakref
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel

from agenttrace import clock, safety, semconv, tracing
from agenttrace.boundary import generators
from agenttrace.boundary.opened import opened
from agenttrace.boundary.recorder import Progress, Recorder
from agenttrace.context.request import current_request
from agenttrace.context.scope import Scope, detach
from agenttrace.model import (
    EndedBy,
    Ending,
    Outcome,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    from opentelemetry.context.context import Context

    from agenttrace.boundary.opened import OpenedStream
    from agenttrace.context.request import Request
    from agenttrace.registry import OpenSpan
    from agenttrace.tracing import TracedSpan


_NOTHING: Final = Progress.NOTHING
_FINAL: Final = Progress.FINAL


class Call:
    """One operation: its recorder, its parent, its span, and its one ending.

    Args:
        recorder: Reads the operation.
        parent: The context the operation was called in.
    """

    __slots__ = (
        "__weakref__",
        "alive",
        "context",
        "done",
        "final",
        "items",
        "loop",
        "parent",
        "record",
        "recorder",
        "request",
        "span",
    )

    def __init__(self, recorder: Recorder, parent: Context) -> None:
        self.recorder = recorder
        self.parent = parent
        self.context = parent
        self.span: TracedSpan | None = None
        self.record: OpenSpan | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.alive: Callable[[], object] | None = None
        """Tells whether the wrapping generator or coroutine is still referenced."""
        self.request: Request | None = None
        """The request that it streams for."""
        self.items = 0
        self.final = False
        self.done = False

    def begin(self) -> bool:
        """Start the span; return False where that failed: it goes on untraced."""
        try:
            self.span = span = tracing.installed.start(
                self.recorder.request(), self.parent
            )
            self.context = tracing.context_with(span, self.parent)
            self.record = span.record
        except Exception as error:  # noqa: BLE001 - runs inside the application
            safety.swallow("call.begin", error)
        return self.span is not None

    def take(self, item: object) -> None:
        """Let the recorder read *item*, and take its word on progress."""
        self.items += 1
        try:
            progress = self.recorder.item(item)
        except Exception as error:  # noqa: BLE001 - runs inside the application
            progress = self.misread(error)
        if progress is _NOTHING:
            return
        if progress is _FINAL:
            self.final = True
        record = self.record
        if record is not None:
            record.beat()

    def misread(self, error: Exception) -> Progress:
        """Note that the recorder failed with *error*; return what its item means."""
        safety.swallow(f"{type(self.recorder).__qualname__}.item", error)
        return Progress.PROGRESS

    def succeed(self, value: object = None) -> None:
        """End it: the operation returned *value*, or its stream was read to the end."""
        if not self.done:
            facts = self._ask("result", value)
            self.finish(Ending(Outcome.OK, EndedBy.RETURN, attributes=facts or {}))

    def fail(self, error: BaseException) -> None:
        """End it: *error* came out."""
        kind = type(error)  # its `__class__` is not asked
        if issubclass(kind, GeneratorExit) or (
            # Of what is dropped, the loop cancels the closing when it ends itself.
            issubclass(kind, asyncio.CancelledError) and self.is_dropped()
        ):
            self.abandon()
        else:
            self.finish(tracing.ending_of(error, self.request))

    def abandon(self, ended_by: EndedBy | None = None) -> None:
        """End it: nobody wants the rest.  Complete streams are `ok` nevertheless.

        Args:
            ended_by: What ended it; None finds out whether it was closed or dropped.
                What goes down with its event loop is `lost` all the same.
        """
        if self.final:
            self.finish(Ending(Outcome.OK, EndedBy.RETURN))
            return
        outcome = Outcome.ABANDONED
        if ended_by is None:
            ended_by = self.left_by()
        if self.loop is not None and self.loop.is_closed():
            outcome = Outcome.LOST
        ending = Ending(outcome, ended_by, message=_MESSAGES.get(outcome))
        if ended_by is EndedBy.GC:
            self._date_back(ending)
        self.finish(ending)

    def left_by(self) -> EndedBy:
        """Return who leaves it in the middle."""
        request = self.request or current_request()
        if (
            request is not None
            and request.is_gone
            # What began when it was over is none of its client's business.
            and (request is self.request or not request.is_over)
        ):
            return EndedBy.DISCONNECT
        return EndedBy.GC if self.is_dropped() else EndedBy.CLOSE

    def leave(self, error: BaseException) -> None:
        """Hear that *error* is thrown into a waiting stream, before its body does."""

    def is_dropped(self) -> bool:
        """Return whether nobody holds what is awaited or iterated any more."""
        return self.alive is not None and self.alive() is None

    def _date_back(self, ending: Ending) -> None:
        """Let what the garbage collector found end at its last sign of life."""
        now = clock.COARSE.read()
        if self.record is None or now - self.record.last_beat < _JUST_NOW:
            return
        ending.end_time = self.record.last_beat
        ending.attributes = {semconv.DISCOVERED_AT: clock.iso(now)}

    def finish(self, ending: Ending) -> None:
        """End it as *ending* says.  The first ending counts."""
        if self.done:
            return
        self.done = True
        span = self.span
        if span is None:
            return
        facts = self._ask("facts")
        attributes = dict(ending.attributes)
        if facts:
            attributes.update(facts)
        if self.items:
            attributes[semconv.ITEMS] = self.items
        if ending.outcome is Outcome.OK:
            ending = self._ask("verdict") or ending
            attributes.update(ending.attributes)
        ending.attributes = attributes
        safety.guarded("span.finish", span.finish, ending)

    def _ask(self, question: str, *about: object) -> Any:  # noqa: ANN401 - what is asked for
        """Return what the recorder says; None where it fails, or has nothing to say."""
        answer: Callable[..., object] | None
        answer = getattr(self.recorder, question, None)
        if answer is None:
            return None
        try:
            return answer(*about)
        except Exception as error:  # noqa: BLE001 - runs inside the application
            safety.swallow(f"{type(self.recorder).__qualname__}.{question}", error)
            return None

    # The shapes.

    def run(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:  # noqa: ANN401 - whatever fn returns
        """Call *fn* inside the span and return what it returns."""
        if not self.begin():
            return fn(*args, **kwargs)
        token = otel.attach(self.context)
        try:
            try:
                value = fn(*args, **kwargs)
            finally:
                detach(token)
        except BaseException as error:
            _let_go(token)
            self.fail(error)
            raise
        return self.settle(value)

    def generate(
        self,
        fn: Callable[..., Generator[Any, Any, Any]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Generator[Any, Any, Any]:
        """Call the generator function *fn* and return a generator that drives its own.

        The driver is made first: of what it finds together in a cycle, the garbage
        collector finalizes first what is older.  The other way round the body would
        clean up by itself, with nothing current.
        """
        source: list[Generator[Any, Any, Any]] = []
        reader = opened(self)
        wrapper = generators.drive(self, source, reader)
        source.append(fn(*args, **kwargs))
        self._wrapped(wrapper, source[0], reader)
        return wrapper

    def settle(self, value: Any) -> Any:  # noqa: ANN401 - whatever came back
        """Return *value* such that the span ends when it does."""
        # By type: a proxy only looks like what it stands for, and is left as it is.
        kind: Any = type(value)  # pyright: ignore[reportUnknownVariableType]  # of anything
        if kind in _DRIVEN and is_unstarted(value):
            if kind is types.CoroutineType:
                return self._wrapped(_awaited(self, Unstarted((value,))), value)
            if kind is types.AsyncGeneratorType:
                reader = opened(self)
                driven = generators.drive_async(self, value, reader)
                return self._wrapped(driven, value, reader)
            if not _is_awaitable(value):
                reader = opened(self)
                return self._wrapped(
                    generators.drive(self, [value], reader), value, reader
                )
        if self.span is None:
            self.begin()
        if issubclass(kind, _FUTURES):
            self._follow_future(value)
            return value
        if not self._ask("claims", self, value):
            self.succeed(value)
        return value

    def _wrapped(
        self,
        wrapper: Any,  # noqa: ANN401 - a coroutine or generator
        value: Any,  # noqa: ANN401 - another one
        reader: OpenedStream | None = None,
    ) -> Any:  # noqa: ANN401 - the wrapper
        """Make *wrapper* answer to the name of *value*, and notice if it is dropped."""
        if reader is not None:
            reader.pulled_by(wrapper)
        wrapper.__name__ = value.__name__
        wrapper.__qualname__ = value.__qualname__
        # With a callback the reference is cleared before any finalizer runs, in every
        # version: the finalizer of the wrapper asks it.
        self.alive = weakref.ref(wrapper, _ignore)
        return wrapper

    def _follow_future(self, future: Any) -> None:  # noqa: ANN401 - asyncio's or concurrent's
        if future.done():
            # Its loop may be closed by now, and take no callback.
            self._future_done(future)
        else:
            future.add_done_callback(self._future_done)

    def _future_done(self, future: Any) -> None:  # noqa: ANN401 - asyncio's or concurrent's
        if future.cancelled():
            self.fail(asyncio.CancelledError())
            return
        # Not `future.exception()`: asking would silence asyncio's "exception was
        # never retrieved", which is the application's to hear.
        error = getattr(future, "_exception", None)
        if error is not None:
            self.fail(error)
        else:
            self.succeed()


def is_unstarted(value: Any) -> bool:  # noqa: ANN401 - a coroutine or generator
    """Return whether nothing of *value* has run: else it is somebody's, as it is."""
    kind: Any = type(value)  # pyright: ignore[reportUnknownVariableType]  # of anything
    if kind is types.GeneratorType:
        return inspect.getgeneratorstate(value) == inspect.GEN_CREATED
    if kind is types.CoroutineType:
        return inspect.getcoroutinestate(value) == inspect.CORO_CREATED
    if sys.version_info >= (3, 12):
        return inspect.getasyncgenstate(value) == inspect.AGEN_CREATED
    frame = value.ag_frame
    return (
        frame is not None
        and frame.f_code.co_code[frame.f_lasti] == dis.opmap["RETURN_GENERATOR"]
    )


def _ignore(_: object) -> None:
    pass


def _is_awaitable(generator: types.GeneratorType[Any, Any, Any]) -> bool:
    """Return whether *generator* is a coroutine of old (`types.coroutine`)."""
    return bool(generator.gi_code.co_flags & inspect.CO_ITERABLE_COROUTINE)


class Unstarted(list["Coroutine[Any, Any, Any]"]):
    """Holds the coroutine that a wrapper is going to await.

    A wrapper that is dropped, closed or cancelled before its first step never comes to
    it.  Then what there is to warn of is the wrapper's to say, and not said twice.
    """

    def __del__(self) -> None:
        for coroutine in self:
            coroutine.close()


def _let_go(token: Any) -> None:  # noqa: ANN401 - OTel's tokens are opaque
    """Make sure that *token* is detached: a signal handler may have kept it from it."""
    if isinstance(token, Scope):
        # Without another call, since it may be that no stack is left for one: whoever
        # looks next finds it dead, and drops it.
        token.dead = True
    else:
        detach(token)


async def _awaited(call: Call, unstarted: Unstarted) -> Any:  # noqa: ANN401 - what it returns
    """Await a coroutine, scoped in one frame of one task, however often suspended."""
    call.loop = asyncio._get_running_loop()  # noqa: SLF001 - documented; None without a loop
    if call.span is None:
        call.begin()
    token = otel.attach(call.context)
    try:
        try:
            value = await unstarted.pop()
        finally:
            detach(token)
    except BaseException as error:
        _let_go(token)
        call.fail(error)
        raise
    return call.settle(value)


_JUST_NOW: Final = 1_000_000_000
"""Nanoseconds.  Heartbeats are told to a tick; nearer than this, now is truer."""
_DRIVEN: Final = frozenset(
    {types.CoroutineType, types.GeneratorType, types.AsyncGeneratorType}
)
_FUTURES: Final = (asyncio.Future, concurrent.futures.Future)
_MESSAGES: Final = {Outcome.LOST: "its event loop was closed while it was open"}
