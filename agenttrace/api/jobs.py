"""A task in the background: held while its loop lives, and told of whatever happens.

asyncio holds tasks weakly, and whoever starts work for later holds nothing.  So the
task is held here, with its event loop and no longer: a loop that is closed with the
task in it, and then dropped, takes both along.

The span of a job starts when the job does and not at its first step: a process that is
killed in between has lost it as well.  That is why a job which never comes to its first
step has to be told of here; of all others `boundary` knows how they ended.
"""

from __future__ import annotations

import asyncio
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from opentelemetry import context as otel

from agenttrace.boundary.call import Call, is_unstarted
from agenttrace.boundary.left import on_no_behalf
from agenttrace.boundary.recorder import PlainRecorder
from agenttrace.model import EndedBy

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from agenttrace.model import Opening

T = TypeVar("T")

_HELD: Final = "_agenttrace_background"
_held_here: Final[set[asyncio.Task[Any]]] = set()
"""Those of loops that nothing can be kept with."""


def started(
    coro: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop, opening: Opening
) -> asyncio.Task[T]:
    """Return a task of *loop* that runs *coro* as a span, in the current context.

    Args:
        coro: The coroutine.
        loop: The loop that is running.
        opening: Of its span; the task has its name.
    """
    # Whoever starts it may leave: a job has no part in that.
    call = Call(PlainRecorder(opening), on_no_behalf(otel.get_current()))
    call.begin()
    call.loop = loop
    # Others, Cython's for one, would count as a value that is there already.
    kind: object = type(coro)
    is_driven = kind is CoroutineType and is_unstarted(coro)
    work = call.settle(coro if is_driven else _of(coro))
    try:
        task: asyncio.Task[T] = loop.create_task(work, name=opening.name)
    except BaseException as error:
        work.close()
        call.fail(error)
        raise
    held = _held_with(loop)
    held.add(task)
    task.add_done_callback(_Done(call, held))
    return task


class _Done:
    """Lets go of a job that is done, and tells of one that never began.

    Where the task is collected instead, so is this.
    """

    __slots__ = ("_call", "_held")

    def __init__(self, call: Call, held: set[asyncio.Task[Any]]) -> None:
        self._call = call
        self._held = held

    def __call__(self, task: asyncio.Task[Any]) -> None:
        self._held.discard(task)
        if task.cancelled():
            self._call.fail(asyncio.CancelledError())

    def __del__(self) -> None:
        if not self._call.done:
            self._call.abandon(EndedBy.GC)


async def _of(coro: Coroutine[Any, Any, T]) -> T:
    return await coro


def _held_with(loop: asyncio.AbstractEventLoop) -> set[asyncio.Task[Any]]:
    """Return the tasks that live as long as *loop* does."""
    try:
        held: set[asyncio.Task[Any]] = vars(loop).setdefault(_HELD, set())
    except TypeError:  # it has no attributes of its own
        return _held_here
    return held
