"""What the event loops of this process are at, seen from another thread.

Nothing of a loop is patched, called or woken for it: the interpreter's frames are read.
asyncio runs every callback in a frame of `_run_once`, whose variables say when this
turn of the loop began (`end_time`) and the how many-th callback of it is running (`i`).
The two together name one callback, so a loop that is busy with many short ones is told
from a loop that one holds, by looking twice.  While a loop waits in its selector it has
no `end_time` yet.

uvloop has no such frames.  What it runs is seen only while it is a step of a task: then
the task is the loop's current one, and its coroutine's frame is on some thread's stack.
From 3.14 on asyncio has no list of current tasks that another thread could read; a loop
is asked for its own then, where it is run by asyncio's `Runner`, as `uvloop.run` does.

Frames keep alive what they refer to: one that we hold while its function returns would
have the application's variables freed on our thread.  So what is needed of them is
copied at once, before anything here gives up the GIL, and none leaves this module.
What follows from a look is decided in `blocks`.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from agenttrace.watchdog.tasks import context_of
from agenttrace.watchdog.threads import (
    is_nestable,
    is_turn,
    local,
    loop_of,
    outwards,
    stacks,
    undisturbed,
)

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator
    from types import FrameType

_AT_REST: Final = frozenset({"select", "_poll"})
"""What a turn calls in order to wait."""
_DEPTH: Final = 2000
"""Frames of a stack that are looked at."""
_MOST_PLACES: Final = 60
_NANOSECONDS: Final = 1e9
_HAS_NO_LIST: Final = sys.version_info >= (3, 14)
"""Whether asyncio keeps what runs where only each thread has it: loops can be asked."""
_TIME: Final = asyncio.BaseEventLoop.time


class Sight:
    """A loop that was found in the middle of a callback.

    Attributes:
        thread: The thread that runs it.
        loop: The loop.
        mark: Equal at two looks only if it is the same callback that is running, where
            *is_exact*; else it may be another one that the same task has asked for, or
            others may have run within it.
        began: When this turn of the loop began (`time.monotonic`); None = unknown.
        is_first: Whether the callback is the first one of its turn: then it began with
            the turn.
        stack: Where the callback is, innermost first.
        context: The context that it runs in, None where that cannot be known.
    """

    __slots__ = (
        "began",
        "context",
        "is_exact",
        "is_first",
        "loop",
        "mark",
        "stack",
        "thread",
    )

    def __init__(  # noqa: PLR0913 - a record
        self,
        thread: int,
        loop: asyncio.AbstractEventLoop,
        mark: Hashable,
        *,
        stack: list[Place],
        context: contextvars.Context | None,
        began: float | None = None,
        is_first: bool = False,
        is_exact: bool = False,
    ) -> None:
        self.thread = thread
        self.loop = loop
        self.mark = mark
        self.stack = stack
        self.context = context
        self.began = began
        self.is_first = is_first
        self.is_exact = is_exact


class Place(NamedTuple):
    """A line of code."""

    file: str
    line: int
    function: str

    def as_dumped(self) -> str:
        """Return it as `faulthandler` writes it, which knows no qualified names."""
        name = self.function.rpartition(".")[2]
        return f'File "{self.file}", line {self.line} in {name}'


class Nest(NamedTuple):
    """A callback in which a loop turns, which is itself a callback of a loop.

    Args:
        stack: Where the loop within was begun, innermost first.
        context: The context of the callback around it, None where it is not known.
    """

    stack: list[Place]
    context: contextvars.Context | None


class Look(NamedTuple):
    """What one look has found.

    Args:
        threads: Threads whose loop was seen, at rest or not.
        sights: Those that are in a callback.
        nests: Loops within loops.
    """

    threads: frozenset[int]
    sights: list[Sight]
    nests: list[Nest]


def look(parked: dict[int, tuple[int, int]]) -> Look:
    """Look at every loop that can be seen, but for the thread that looks.

    Args:
        parked: Where threads without a loop were at the last look, and are put down
            now: pools have hundreds, which wait where they have waited before.
    """
    # On 3.11 a frame may be gone before its object is made (`threads`).
    with undisturbed():
        return _look(parked)


def _look(parked: dict[int, tuple[int, int]]) -> Look:
    frames = stacks()
    threads: set[int] = set()
    sights: list[Sight] = []
    nests: list[Nest] = []
    nested: set[int] = set()
    hidden: list[asyncio.AbstractEventLoop] = []
    for gone in parked.keys() - frames.keys():
        del parked[gone]
    for thread, top in frames.items():
        place = id(top), top.f_lasti
        if parked.get(thread) == place:
            continue
        found = _turn(top)
        if found is None:
            loop = _loop_below(top) if _HAS_NO_LIST else None
            if loop is None:
                parked[thread] = place
            else:
                hidden.append(loop)
            continue
        parked.pop(thread, None)
        threads.add(thread)
        sight = _in_turn(thread, top, *found)
        if sight is not None:
            sights.append(sight)
        if is_nestable(found[0]):
            nests += _nests(found[0])
            # While it waits, a task around it is the current one of its loop.
            nested.add(id(local(found[0], "self")))
    seen = {id(sight.loop) for sight in sights} | nested
    for loop, task in _at_work(hidden):
        if id(loop) not in seen:
            sights.extend(_in_task(loop, task, frames, threads))
    return Look(frozenset(threads), sights, nests)


def _at_work(
    hidden: list[asyncio.AbstractEventLoop],
) -> Iterator[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]]:
    """Yield the loops that are in a step of a task, and the tasks."""
    running: dict[Any, Any] = getattr(asyncio.tasks, "_current_tasks", {})
    yield from tuple(running.items())
    for loop in hidden:
        task = asyncio.current_task(loop)
        if task is not None:
            yield loop, task


def cpu_of(thread: int) -> float | None:
    """Return the seconds of CPU time that *thread* has taken; None where unknown."""
    try:
        if thread == threading.main_thread().ident:
            # Of others it is not safe to ask in this way: they may be gone by now.
            return time.clock_gettime(time.pthread_getcpuclockid(thread))
        active: dict[int, threading.Thread] = getattr(threading, "_active", {})
        native = active[thread].native_id
        with open(f"/proc/self/task/{native}/schedstat", "rb") as file:  # noqa: PTH123 - several times a second
            return int(file.read().split()[0]) / _NANOSECONDS
    except (OSError, AttributeError, LookupError, ValueError):
        return None


def _context(
    loop: asyncio.AbstractEventLoop, handle: object
) -> contextvars.Context | None:
    """Return the context of what *loop* is running.

    The task's first: an eager one runs inside of another one's step.
    """
    task = asyncio.current_task(loop)
    context = None if task is None else context_of(task)
    if context is None:
        context = getattr(handle, "_context", None)
    return context if isinstance(context, contextvars.Context) else None


def _places(top: FrameType, below: FrameType | None) -> list[Place]:
    """Return the lines from *top* down to the frame above *below*."""
    places: list[Place] = []
    frame: FrameType | None = top
    while frame is not None and frame is not below and len(places) < _MOST_PLACES:
        code = frame.f_code
        places.append(Place(code.co_filename, frame.f_lineno or 0, code.co_qualname))
        frame = frame.f_back
    return places


def _turn(top: FrameType) -> tuple[FrameType, FrameType] | None:
    """Return the innermost turn of a loop on this stack, and the frame it has called.

    Innermost: in a nested loop the outer one waits for the inner one's turns.
    """
    above = frame = top
    for _ in range(_DEPTH):
        if is_turn(frame):
            return frame, above
        below = frame.f_back
        if below is None:
            return None
        above, frame = frame, below
    return None


def _loop_below(top: FrameType) -> asyncio.AbstractEventLoop | None:
    """Return the innermost loop that is run on this stack and shows no turns."""
    return next(filter(None, map(loop_of, outwards(top))), None)


def _in_turn(
    thread: int, top: FrameType, turn: FrameType, above: FrameType
) -> Sight | None:
    if above is turn or above.f_code.co_name in _AT_REST:
        return None
    # A copy before Python 3.13, which is why it is not asked for while it waits.
    values = turn.f_locals
    loop, end_time = values.get("self"), values.get("end_time")
    if end_time is None or not isinstance(loop, asyncio.AbstractEventLoop):
        return None
    index = values.get("i", values.get("_"))  # the latter where nest_asyncio patches it
    has_real_clock = getattr(type(loop), "time", None) is _TIME
    # The loop may have turned within this callback: then it is neither as old as this
    # turn, nor the same as at the last look for having the same number.
    may_nest = is_nestable(turn)
    return Sight(
        thread,
        loop,
        (id(loop), end_time, index),
        stack=_places(top, turn),
        context=_context(loop, values.get("handle")),
        began=end_time if has_real_clock else None,
        is_first=has_real_clock and index == 0 and not may_nest,
        is_exact=type(index) is int and not may_nest,
    )


def _nests(turn: FrameType) -> Iterator[Nest]:
    """Yield the callbacks in which *turn* and those around it came to be."""
    frame = turn.f_back
    for _ in range(_DEPTH):
        found = None if frame is None else _turn(frame)
        if frame is None or found is None:
            return
        outer = found[0]
        context: object = getattr(local(outer, "handle"), "_context", None)
        yield Nest(
            _places(frame, outer),
            context if isinstance(context, contextvars.Context) else None,
        )
        frame = outer.f_back


def _in_task(
    loop: asyncio.AbstractEventLoop,
    task: asyncio.Task[Any],
    frames: dict[int, FrameType],
    threads: set[int],
) -> Iterator[Sight]:
    """Yield the sight of *task*, which *loop* is running, where its stack is found."""
    coroutine = cast("Any", task.get_coro())
    outermost = getattr(coroutine, "cr_frame", None)
    if outermost is None:
        return
    for thread, top in frames.items():
        frame: FrameType | None = top
        for _ in range(_DEPTH):
            if frame is None:
                break
            if frame is outermost:
                threads.add(thread)
                mark = (id(loop), id(task), id(outermost))
                yield Sight(
                    thread,
                    loop,
                    mark,
                    stack=_places(top, frame.f_back),
                    context=context_of(task),
                )
                return
            frame = frame.f_back
