"""The cases in which more ends than the run: its event loop, or its process."""

from __future__ import annotations

import asyncio
import mmap
import os
import weakref
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

from agenttrace.errors import AgenttraceError
from agenttrace.runtime.process import PROCESS
from agenttrace.testing.conforming import coroutines
from agenttrace.testing.conforming.promises import Promise
from agenttrace.testing.conforming.reading import (
    leave,
    leave_plain,
    read,
    read_plain,
)
from agenttrace.testing.conforming.steps import Steps
from agenttrace.testing.conforming.subjects import Iterated, step, step_plain
from agenttrace.testing.killing import kill_and_recover, run_in_fork

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from agenttrace.testing.conforming.playing import Baseline
    from agenttrace.testing.conforming.stage import Stage

    Factory = Callable[[], Any]
    Play = Callable[[Stage], None]

LEFT_BEHIND: Final = frozenset({"abandoned", "cancelled", "lost"})
_FORK_MAY_TAKE: Final = 30.0
_TOLD_AGAIN: Final = 3
_STILL_OPEN: Final = 4


def cases(
    factory: Factory, found: Baseline, *, is_async: bool
) -> Iterator[tuple[str, Play]]:
    """Yield the cases of *factory*, by their names.

    Args:
        factory: Makes runs.
        found: What the undisturbed run was.
        is_async: Whether they need an event loop.
    """
    if not (found.items or found.suspensions):
        return  # there is no middle
    half = _Half(factory, found, is_async=is_async)
    if is_async:
        yield "its event loop is closed in the middle", half.loop_closed
    if hasattr(os, "fork"):
        yield "the process is forked in the middle", half.forked
        yield "the process is killed in the middle", half.killed


def _say_nothing(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    del loop, context


def _reference_to(going: object) -> Callable[[], object]:
    try:
        return weakref.ref(going.iterator if isinstance(going, Iterated) else going)
    except TypeError:  # a stream of somebody's own make
        return _nothing


def _nothing() -> None:
    pass


class _Half:
    """Runs that have come to their first item, or to the suspension in the middle.

    Args:
        factory: Makes them.
        found: What the undisturbed run was.
        is_async: Whether they need an event loop.
    """

    def __init__(self, factory: Factory, found: Baseline, *, is_async: bool) -> None:
        self._factory = factory
        self._found = found
        self._is_async = is_async

    def loop_closed(self, stage: Stage) -> None:
        """Close the event loop without a word, then let go of the run."""
        loop = asyncio.new_event_loop()
        # Asyncio says that the task was pending, which is as it should be.
        loop.set_exception_handler(_say_nothing)
        going: Any = self._begin(stage, loop)
        loop.close()
        stage.left(LEFT_BEHIND)
        if not self._found.is_stream:
            going._log_destroy_pending = False  # noqa: SLF001 - as `gather` has it
        still = _reference_to(going)
        del going, loop
        stage.let_go()
        stage.collect(patiently=True)
        if still() is not None:
            # anyio's table of tasks keeps those that are in a scope, for one.
            stage.skipped = "a library keeps the run for ever, so that nothing ends it"
        stage.current("after its event loop was closed")

    def forked(self, stage: Stage) -> None:
        """Fork, have the child let go of the run, and go on with it in the parent."""
        with self._under_way(stage) as (going, loop):

            def let_go() -> int:
                before = len(stage.spans)
                stage.let_go()
                if self._is_async and not self._found.is_stream:
                    going.cancel()
                stage.collect()
                if len(stage.spans) > before:
                    return _TOLD_AGAIN
                return _STILL_OPEN if stage.open() else 0

            code = run_in_fork(let_go, _FORK_MAY_TAKE)
            if code == _TOLD_AGAIN:
                stage.breaks(
                    Promise.ONCE, "the child process tells spans that are its parent's"
                )
            elif code == _STILL_OPEN:
                stage.breaks(
                    Promise.CLOSED, "the child process has its parent's spans open"
                )
            elif code is None:
                stage.breaks(Promise.THROUGH, "the child process does not come to rest")
            elif code:
                stage.breaks(
                    Promise.THROUGH, f"the child process ends with status {code}"
                )
            self._finish(stage, going, loop)
        stage.current("after the process was forked")
        self._found.same(stage)

    def killed(self, stage: Stage) -> None:
        """Kill a process in the middle of a run, and look at what is recovered."""
        was_open = mmap.mmap(-1, 1)  # shared with the process that dies

        def work(die: Callable[[], Any]) -> None:
            with self._under_way(stage):
                if PROCESS.spans.snapshot():
                    was_open[0] = 1
                die()

        try:
            recovered = kill_and_recover(work, timeout=_FORK_MAY_TAKE)
        except AgenttraceError as error:
            stage.skipped = str(error).partition("\n")[0]
            return
        if not was_open[0]:
            stage.skipped = "it has no span open in the middle"
        elif not recovered.find(outcome="lost"):
            stage.breaks(Promise.CLOSED, "nothing of it is recovered")

    @contextmanager
    def _under_way(
        self, stage: Stage
    ) -> Generator[tuple[Any, asyncio.AbstractEventLoop | None]]:
        if not self._is_async:
            yield read_plain(stage, self._factory, most=1), None
            return
        with ExitStack() as stack:
            runner = stack.enter_context(asyncio.Runner())
            loop = runner.get_loop()
            yield self._begin(stage, loop), loop

    def _begin(self, stage: Stage, loop: asyncio.AbstractEventLoop) -> Any:  # noqa: ANN401 - a stream or a task
        if self._found.is_stream:
            return loop.run_until_complete(read(stage, self._factory, most=1))
        # The turn of the loop in which it comes there is the last one.
        steps = Steps((self._found.suspensions + 1) // 2, loop.stop)
        task = loop.create_task(coroutines.drive(stage, self._factory, steps))
        task.add_done_callback(lambda _: loop.stop())
        loop.run_forever()
        return task

    def _finish(
        self,
        stage: Stage,
        going: Any,  # noqa: ANN401 - a stream or a task
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        if loop is None:
            while step_plain(going)[0]:
                stage.items += 1
            if stage.block is not None:
                leave_plain(stage, going)
        elif not self._found.is_stream:
            loop.run_until_complete(going)
        else:
            while loop.run_until_complete(step(going))[0]:
                stage.items += 1
            if stage.block is not None:
                loop.run_until_complete(leave(stage, going))
