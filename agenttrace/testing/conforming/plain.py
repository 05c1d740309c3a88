"""The cases of runs that need no event loop: calls, and generators."""

from __future__ import annotations

from contextlib import ExitStack
from contextvars import Context, copy_context
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

from agenttrace.testing.conforming.promises import Promise
from agenttrace.testing.conforming.reading import leave_plain, read_plain
from agenttrace.testing.conforming.subjects import (
    ConsumerError,
    InjectedError,
    Interrupt,
    close_plain,
    step_plain,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agenttrace.testing.conforming.playing import Baseline
    from agenttrace.testing.conforming.stage import Stage

    Factory = Callable[[], Any]
    Play = Callable[[Stage], None]

FAILED: Final = frozenset({"error"})
INTERRUPTED: Final = frozenset({"error", "cancelled"})
INSTEAD: Final = frozenset({"cancelled", "timed_out", "abandoned"})
"""What another exception may say that an error is made into."""


def drive(stage: Stage, factory: Factory) -> Any:  # noqa: ANN401 - what a run returns
    """Read a run to its end."""
    result = read_plain(stage, factory)
    stage.current("when it is over")
    return result


def cases(factory: Factory, found: Baseline) -> Iterator[tuple[str, Play]]:
    """Yield the cases of *factory*, by their names.

    Args:
        factory: Makes runs.
        found: What the undisturbed run was.
    """
    if found.is_stream:
        for items in found.leaving_points():
            after = f"after item {items} of {found.items}"
            may = found.left_after(items)
            yield f"it is left {after} and closed", _closed(factory, items, may)
            yield f"it is left {after} and dropped", _dropped(factory, items, may)
        # What leaves a block by an exception may call it that.
        may = found.left_after(1) | FAILED if found.is_in_block else found.left_after(1)
        yield "its consumer raises", _consumer_raises(factory, may)
        if not found.is_in_block:
            yield from _closing_cases(factory, found)
        yield "every step is in another thread", _hops(factory, found, _in_thread)
        yield "every step is in another context", _hops(factory, found, _in_copy)
        yield "every step is in an empty context", _hops(factory, found, _in_empty)
        yield "it is made and never begun", _never(factory)
        yield "two are under way at once", _interleaved(factory, found)
    else:
        yield "it is called in another thread", _called(factory, found)
        yield "two are under way at once", _two_threads(factory, found)


def _closing_cases(factory: Factory, found: Baseline) -> Iterator[tuple[str, Play]]:
    first = found.left_after(1)
    yield "another thread closes it", _closed(factory, 1, first, in_thread=True)
    yield "it is closed twice", _closed(factory, 1, first, times=2)
    yield "an exception is thrown into it", _thrown(factory, InjectedError, FAILED)
    yield "a BaseException is thrown into it", _thrown(factory, Interrupt, INTERRUPTED)


def _in_thread(call: Callable[[], Any], context: Context | None = None) -> Any:  # noqa: ANN401 - what it returns
    came: list[Any] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            came.append(call() if context is None else context.run(call))
        except BaseException as error:  # noqa: BLE001 - raised in the other thread
            raised.append(error)

    thread = Thread(target=run)
    thread.start()
    thread.join()
    if raised:
        raise raised.pop()
    return came.pop()


def _in_copy(call: Callable[[], Any]) -> Any:  # noqa: ANN401 - what it returns
    return copy_context().run(call)


def _in_empty(call: Callable[[], Any]) -> Any:  # noqa: ANN401 - what it returns
    return Context().run(call)


def _closed(
    factory: Factory,
    items: int,
    may: frozenset[str],
    *,
    in_thread: bool = False,
    times: int = 1,
) -> Play:
    def play(stage: Stage) -> None:
        stream = read_plain(stage, factory, most=items)
        stage.left(may)
        for _ in range(times):
            if in_thread:
                _in_thread(lambda: close_plain(stream))
            else:
                leave_plain(stage, stream)
        stage.current("after it was closed")

    return play


def _dropped(factory: Factory, items: int, may: frozenset[str]) -> Play:
    def play(stage: Stage) -> None:
        read_plain(stage, factory, most=items)
        stage.left(may)
        stage.let_go()
        stage.collect()
        stage.current("after it was dropped")

    return play


def _consumer_raises(factory: Factory, may: frozenset[str]) -> Play:
    def play(stage: Stage) -> None:
        error = ConsumerError("of the consumer's own")
        stream = read_plain(stage, factory, most=1)
        stage.left(may)
        try:
            try:
                raise error
            finally:
                leave_plain(stage, stream)
        except ConsumerError as came:
            if came is not error:
                stage.breaks(Promise.THROUGH, "another exception came out of closing")
        stage.current("after it was closed")

    return play


def _thrown(factory: Factory, kind: type[BaseException], may: frozenset[str]) -> Play:
    def play(stage: Stage) -> None:
        error = kind("thrown in by the consumer")
        stream = read_plain(stage, factory, most=1)
        throw = getattr(stream, "throw", None)
        if throw is None:
            close_plain(stream)
            return
        stage.left(may)
        is_handled = False
        try:
            throw(error)
            is_handled = True
        except StopIteration:  # by returning
            is_handled = True
        except kind as came:
            if came is not error:
                stage.breaks(Promise.THROUGH, "another exception came out of throw()")
        except Exception as came:  # noqa: BLE001 - made into another
            stage.kept.append(came)
            stage.made_into_another(may | INSTEAD)
        if is_handled:
            stage.handled()
            if isinstance(error, Interrupt):
                stage.breaks(Promise.THROUGH, "a BaseException is lost")
        close_plain(stream)
        stage.current("after an exception was thrown in")

    return play


def _hops(
    factory: Factory, found: Baseline, within: Callable[[Callable[[], Any]], Any]
) -> Play:
    def play(stage: Stage) -> None:
        stream = read_plain(stage, factory, most=1)

        def advance() -> bool:
            more, _ = step_plain(stream)
            stage.not_current("where a step was taken, after it")
            return more

        while within(advance):
            stage.items += 1
            stage.current("between two steps elsewhere")
        stage.current("between two steps elsewhere")
        if stage.block is not None:
            leave_plain(stage, stream)
        found.same(stage)

    return play


def _never(factory: Factory) -> Play:
    def play(stage: Stage) -> None:
        made = factory()
        stage.kept.append(made)
        stage.kept.clear()
        del made
        stage.collect()
        stage.current("after one that was never begun")

    return play


def _interleaved(factory: Factory, found: Baseline) -> Play:
    def play(stage: Stage) -> None:
        with ExitStack() as blocks:
            streams: list[Any] = []
            for _ in range(2):
                streams.append(read_plain(stage, factory, most=0))
                if stage.block is not None:
                    blocks.push(stage.block)
            while streams:
                for stream in list(streams):
                    if not step_plain(stream)[0]:
                        streams.remove(stream)
                    stage.current("between the steps of two at once")
        stage.block = None
        found.same(stage, times=2)

    return play


def _called(factory: Factory, found: Baseline) -> Play:
    def play(stage: Stage) -> None:
        _in_thread(factory, copy_context())
        stage.current("after it was called elsewhere")
        found.same(stage)

    return play


def _two_threads(factory: Factory, found: Baseline) -> Play:
    def play(stage: Stage) -> None:
        threads = [Thread(target=copy_context().run, args=(factory,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stage.current("after two at once")
        found.same(stage, times=2)

    return play
