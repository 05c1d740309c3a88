"""The cases of runs that need an event loop: coroutines and asynchronous streams.

Each case is played on a loop of its own.  A run is cancelled, timed out and broken at
each of its suspensions in turn; a stream is left after each of its items, in every way
in which one can be left.
"""

from __future__ import annotations

import asyncio
from contextvars import Context, copy_context
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

from agenttrace.testing.conforming.promises import Promise
from agenttrace.testing.conforming.reading import leave, read
from agenttrace.testing.conforming.stage import LEFT, OK, Stage
from agenttrace.testing.conforming.steps import Steps
from agenttrace.testing.conforming.subjects import (
    ConsumerError,
    InjectedError,
    Interrupt,
    close,
    step,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from agenttrace.testing.conforming.playing import Baseline

    Factory = Callable[[], Any]
    Play = Callable[[Stage], Coroutine[Any, Any, None]]

FAILED: Final = frozenset({"error"})
BROKEN_OFF: Final = frozenset({"cancelled"})
OUT_OF_TIME: Final = frozenset({"cancelled", "timed_out"})
INTERRUPTED: Final = frozenset({"error", "cancelled"})
_TURNS: Final = 10
"""Turns of a loop after which nothing more happens by itself."""


async def settled() -> None:
    """Let what has been scheduled on the loop happen."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)


def cases(
    factory: Factory, found: Baseline, points: list[int]
) -> Iterator[tuple[str, Play]]:
    """Yield the cases of *factory*, by their names.

    Args:
        factory: Makes runs.
        found: What the undisturbed run was.
        points: The suspensions at which something is done.
    """
    for point in points:
        at = f"suspension {point} of {found.suspensions}"
        yield f"it is cancelled at {at}", _cancelled(factory, point)
        yield f"an exception comes up at {at}", _broken(factory, point)
        yield f"a BaseException comes up at {at}", _interrupted(factory, point)
    for point in sorted({*points[:1], *points[-1:]}):
        at = f"suspension {point} of {found.suspensions}"
        yield f"its time is over at {at}", _timed_out(factory, point)
    if found.is_stream:
        yield from _stream_cases(factory, found)
        if not found.is_in_block:
            yield from _closing_cases(factory, found)
    elif not found.is_in_block:
        yield "it is awaited in another task", _elsewhere(factory, found, None)
        yield (
            "it is awaited in an empty context",
            _elsewhere(factory, found, Context()),
        )
    yield "it is made and never begun", _never(factory)
    yield "two are under way at once", _two(factory, found)


def _stream_cases(factory: Factory, found: Baseline) -> Iterator[tuple[str, Play]]:
    for items in found.leaving_points():
        after = f"after item {items} of {found.items}"
        may = found.left_after(items)
        yield f"it is left {after} and closed", _closed(factory, items, may)
        yield f"it is left {after} and dropped", _dropped(factory, items, may)
    # What leaves a block by an exception may call it that.
    may = found.left_after(1) | FAILED if found.is_in_block else found.left_after(1)
    yield "its consumer raises", _consumer_raises(factory, may)
    yield "every step is in another task", _hops(factory, found, context=copy_context)
    yield "every step is in an empty context", _hops(factory, found, context=Context)
    yield "every step is in another thread and loop", _threads(factory, found)


def _closing_cases(factory: Factory, found: Baseline) -> Iterator[tuple[str, Play]]:
    first = found.left_after(1)
    yield "another task closes it", _closed(factory, 1, first, task=True)
    yield (
        "a task with an empty context closes it",
        _closed(factory, 1, first, context=Context()),
    )
    yield "it is closed twice", _closed(factory, 1, first, times=2)
    yield "an exception is thrown into it", _thrown(factory)


def _cancelled(factory: Factory, point: int) -> Play:
    async def play(stage: Stage) -> None:
        def cancel() -> None:
            task = asyncio.current_task()
            if task is not None:
                task.cancel("by the conformance kit")

        steps = Steps(point, cancel, stage=stage)
        task = asyncio.create_task(drive(stage, factory, steps))
        await asyncio.wait([task])
        stage.where = steps.where
        if not steps.acted:
            return
        if task.cancelled():
            stage.raised_in(steps.path, steps.beside, BROKEN_OFF)
        else:
            stage.breaks(Promise.THROUGH, f"the cancellation is lost: {_came(task)}")

    return play


def _timed_out(factory: Factory, point: int) -> Play:
    async def play(stage: Stage) -> None:
        async def limited() -> None:
            async with asyncio.timeout(None) as limit:
                steps = Steps(
                    point, lambda: limit.reschedule(asyncio.get_running_loop().time())
                )
                stage.kept.append(steps)
                await drive(stage, factory, steps)

        task = asyncio.create_task(limited())
        await asyncio.wait([task])
        steps: Steps = next(each for each in stage.kept if isinstance(each, Steps))
        stage.where = steps.where
        if not steps.acted or _error_of(task) is None:
            return  # it went on in the same turn of the loop, to its end
        if isinstance(_error_of(task), TimeoutError):
            stage.all_end(OUT_OF_TIME | OK)
        else:
            stage.breaks(Promise.THROUGH, f"the time-out is lost: {_came(task)}")

    return play


def _broken(factory: Factory, point: int) -> Play:
    return _injected(factory, point, InjectedError("by the conformance kit"), FAILED)


def _interrupted(factory: Factory, point: int) -> Play:
    return _injected(factory, point, Interrupt("by the conformance kit"), INTERRUPTED)


def _injected(
    factory: Factory, point: int, error: BaseException, may: frozenset[str]
) -> Play:
    async def play(stage: Stage) -> None:
        steps = Steps(point, lambda: error, stage=stage, joins=False)
        task = asyncio.create_task(drive(stage, factory, steps))
        await asyncio.wait([task])
        stage.where = steps.where
        if not steps.acted:
            return
        came = _error_of(task)
        if came is error:
            stage.raised_in(steps.path, steps.beside, may)
        elif came is not None:
            # Made into another: the spans that it came through say that one.
            stage.raised_in(steps.path, steps.beside, may | OUT_OF_TIME | LEFT)
        elif isinstance(error, Interrupt):
            stage.breaks(Promise.THROUGH, f"a BaseException is lost: {_came(task)}")
        # Else it was handled, which is the application's right.

    return play


def _closed(  # noqa: PLR0913 - one way of closing each
    factory: Factory,
    items: int,
    may: frozenset[str],
    *,
    task: bool = False,
    context: Context | None = None,
    times: int = 1,
) -> Play:
    async def play(stage: Stage) -> None:
        stream = await read(stage, factory, most=items)
        stage.left(may)
        for _ in range(times):
            if task or context is not None:
                await asyncio.create_task(close(stream), context=context)
            else:
                await leave(stage, stream)
        stage.current("after it was closed")

    return play


def _dropped(factory: Factory, items: int, may: frozenset[str]) -> Play:
    async def play(stage: Stage) -> None:
        await read(stage, factory, most=items)
        stage.left(may)
        stage.let_go()
        await settled()
        stage.collect()
        await settled()
        stage.current("after it was dropped")

    return play


def _consumer_raises(factory: Factory, may: frozenset[str]) -> Play:
    async def play(stage: Stage) -> None:
        error = ConsumerError("of the consumer's own")
        stream = await read(stage, factory, most=1)
        stage.left(may)
        try:
            try:
                raise error
            finally:
                await leave(stage, stream)
        except ConsumerError as came:
            if came is not error:
                stage.breaks(Promise.THROUGH, "another exception came out of closing")
        stage.current("after it was closed")

    return play


def _thrown(factory: Factory) -> Play:
    async def play(stage: Stage) -> None:
        error = InjectedError("thrown in by the consumer")
        stream = await read(stage, factory, most=1)
        throw = getattr(stream, "athrow", None)
        if throw is None:
            await close(stream)
            return
        stage.left(FAILED)
        try:
            await throw(error)
        except InjectedError as came:
            if came is not error:
                stage.breaks(Promise.THROUGH, "another exception came out of athrow()")
        except StopAsyncIteration:  # it was handled, by returning
            stage.handled()
        except Exception as came:  # noqa: BLE001 - made into another
            stage.kept.append(came)
            stage.made_into_another(FAILED | OUT_OF_TIME | LEFT)
        else:
            stage.handled()
        await close(stream)
        stage.current("after an exception was thrown in")

    return play


def _hops(factory: Factory, found: Baseline, *, context: Callable[[], Context]) -> Play:
    async def play(stage: Stage) -> None:
        stream = await read(stage, factory, most=1)
        more = True
        while more:

            async def advance() -> bool:
                went_on, _ = await step(stream)
                stage.not_current("in the task of a step, after it")
                return went_on

            more = await asyncio.create_task(advance(), context=context())
            stage.items += more
            stage.current("between two steps in other tasks")
        if stage.block is not None:
            await leave(stage, stream)
        found.same(stage)

    return play


def _threads(factory: Factory, found: Baseline) -> Play:
    async def play(stage: Stage) -> None:
        stream = await read(stage, factory, most=1)
        came: list[Any] = []

        async def advance() -> None:
            came.append((await step(stream))[0])
            stage.not_current("in the thread of a step, after it")

        def run() -> None:
            try:
                asyncio.run(advance())
            except BaseException as error:  # noqa: BLE001 - looked at below
                came.append(error)

        more = True
        while more is True:
            thread = Thread(target=run)
            thread.start()
            await asyncio.to_thread(thread.join)
            more = came.pop()
            if isinstance(more, RuntimeError) and "loop" in str(more):
                await leave(stage, stream)
                stage.skipped = "what it waits for is bound to its event loop"
                return
            if isinstance(more, BaseException):
                raise more
            stage.items += more
            stage.current("between two steps in other threads")
        if stage.block is not None:
            await leave(stage, stream)
        found.same(stage)

    return play


def _elsewhere(factory: Factory, found: Baseline, context: Context | None) -> Play:
    async def play(stage: Stage) -> None:
        made = factory()

        async def wait() -> None:
            await made
            stage.not_current("in the task that awaited it")

        await asyncio.create_task(wait(), context=context)
        stage.current("after it was awaited elsewhere")
        if context is None:
            found.same(stage)
        # What is not begun at the call has no parent where there is none.
        stage.roots = context is not None

    return play


def _never(factory: Factory) -> Play:
    async def play(stage: Stage) -> None:
        made = factory()
        if asyncio.iscoroutine(made):
            made.close()  # else Python warns, and rightly
        del made
        stage.collect()
        await settled()
        stage.current("after one that was never begun")

    return play


def _two(factory: Factory, found: Baseline) -> Play:
    async def play(stage: Stage) -> None:
        await asyncio.gather(
            asyncio.create_task(drive(stage, factory, Steps())),
            asyncio.create_task(drive(stage, factory, Steps())),
        )
        stage.current("after two at once")
        found.same(stage, times=2)

    return play


async def drive(stage: Stage, factory: Factory, steps: Steps) -> Any:  # noqa: ANN401 - what a run returns
    """Read a run to its end, step by step."""
    result = await steps(read(stage, factory))
    stage.current("when it is over")
    return result


def _error_of(task: asyncio.Task[Any]) -> BaseException | None:
    if task.cancelled():
        return asyncio.CancelledError()
    return task.exception()


def _came(task: asyncio.Task[Any]) -> str:
    error = _error_of(task)
    return "the run goes on, and returns" if error is None else f"{error!r} comes out"
