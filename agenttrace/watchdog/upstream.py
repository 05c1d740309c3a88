"""Who is to resolve what a task or a thread waits for.

What a task waits for in the end is a future, and who is to resolve it stands in one of
few places: in the future where it is a task, in its callbacks where it was wrapped or
shielded, and else in the coroutines of asyncio and anyio that wait in the
application's place, `wait` and task groups among them.

It goes one step up.  How a task comes to its future is the business of `chains`, and
what the one above does that of `investigation`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import threading
import types
from typing import TYPE_CHECKING, Any, Final

from agenttrace.watchdog import threads
from agenttrace.watchdog.chains import is_a, is_future, waiter_of
from agenttrace.watchdog.frames import Whose, whose

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType

    from agenttrace.watchdog.chains import Chain
    from agenttrace.watchdog.tasks import Task

_MEMBERS: Final = 10_000
"""How many tasks of one group are looked at."""


class Upstream:
    """Who is to resolve what a task or a thread waits for.

    Attributes:
        tasks: Tasks that it waits for, one or all of them.
        threads: Threads, by id.
        queued: Whether it is work that no thread has begun.
        futures: Futures that are left to be asked for.
    """

    __slots__ = ("futures", "queued", "tasks", "threads")

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self.threads: list[int] = []
        self.futures: list[concurrent.futures.Future[Any]] = []
        self.queued = False

    def __bool__(self) -> bool:
        return bool(self.tasks or self.threads or self.queued)


def upstream_of(chain: Chain, task: Task, stacks: dict[int, FrameType]) -> Upstream:
    """Return who is to resolve what *task*, which is in *chain*, waits for."""
    found = Upstream()
    waiter = waiter_of(task)
    for future in (chain.end, waiter):
        if future is not None:
            resolve([future], stacks, found)
        if found:
            return found
    for each in reversed(chain.suspended):
        code = getattr(each, "cr_code", None) or getattr(each, "gi_code", None)
        if code is None:
            continue
        if whose(code.co_filename) not in (Whose.INTERPRETER, Whose.PLUMBING):
            _ask_completions(each, {id(task), id(waiter)}, found)
            break
        _ask(each, {id(task), id(waiter)}, found)
        if found:
            break
    return found


def add_awaited(task: Task, candidates: Iterable[Task], found: Upstream) -> None:
    """Add to *found* those of *candidates* that *task* awaits, as asyncio says itself.

    From 3.14 on a future knows who awaits it, in groups of any make that say so.  The
    chain within a task is ours on every version: `asyncio.capture_call_graph`, which
    is made of the same two things, ends at the first asynchronous generator.
    """
    for each in candidates:
        awaiting: Any = getattr(each, "_asyncio_awaited_by", None)
        if awaiting is not None and any(one is task for one in awaiting):
            found.tasks.append(each)


def resolve(
    futures: Iterable[object], stacks: dict[int, FrameType], found: Upstream
) -> None:
    """Add to *found* who is to resolve *futures*, the first of them first."""
    pooled = _resolved(list(futures)[::-1], found)
    workers = threads.workers(stacks) if pooled else {}
    for each in pooled:
        worker = workers.get(id(each))
        if worker is not None:
            found.threads.append(worker)
        else:  # one that runs is work of another process, or of a thread of no pool
            found.futures.append(each)
            found.queued = found.queued or not each.running()


def _resolved(
    pending: list[Any], found: Upstream
) -> list[concurrent.futures.Future[Any]]:
    """Add to *found* who is behind *pending*; return the futures that are a pool's."""
    pooled: list[concurrent.futures.Future[Any]] = []
    seen: set[int] = set()
    while pending and len(seen) < _MEMBERS:
        each = pending.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if _is_task(each):
            if not each.done():
                found.tasks.append(each)
        elif is_a(each, threading.Thread):
            if each.ident is not None and each.is_alive():
                found.threads.append(each.ident)
        elif is_a(each, concurrent.futures.Future):
            source = list(_behind(getattr(each, "_done_callbacks", ())))
            pending += source
            if not source and not each.done():
                pooled.append(each)
        elif is_future(each) and not each.done():
            pending += reversed(getattr(each, "_children", ()))  # of `gather`
            pending += _behind(getattr(each, "_callbacks", None) or ())
    return pooled


_SOURCES: Final = {
    # The callback of a future that was made of another one, and its name of that.
    "_call_check_cancel": "source",
    "_outer_done_callback": "inner",
}


def _behind(callbacks: Iterable[Any]) -> Iterator[object]:
    """Iterate over the futures that a future with *callbacks* was made of."""
    for each in tuple(callbacks):
        # asyncio's come with a context each, those of a pool alone.
        function: Any = each[0] if is_a(each, tuple) else each
        if not is_a(function, types.FunctionType):
            continue
        code = function.__code__
        name = _SOURCES.get(code.co_name)
        if name in code.co_freevars and function.__closure__ is not None:
            with contextlib.suppress(ValueError):  # the cell is empty
                yield function.__closure__[code.co_freevars.index(name)].cell_contents


def _ask(coroutine: object, known: set[int], found: Upstream) -> None:
    """Add to *found* the tasks and the threads that *coroutine* has in its hands."""
    held = list(_held_by(coroutine))
    for each in held:
        # anyio's `to_thread`, which has a root task in its hands as well.
        if is_a(each, threading.Thread) and each.is_alive():
            found.threads.append(each.ident)
    if found:
        return
    for each in held:
        if type(each).__name__ == "TaskGroup":
            found.tasks += _pending(getattr(each, "_tasks", ()), known)
        elif type(each).__name__ == "_AsCompletedIterator":  # from 3.13 on
            found.tasks += _pending(getattr(each, "_todo", ()), known)
        elif type(each) in (set, frozenset, list, dict):
            found.tasks += _pending(each, known)
        else:
            found.tasks += _pending((each,), known)


def _ask_completions(coroutine: object, known: set[int], found: Upstream) -> None:
    """Add to *found* the tasks of an `as_completed` that *coroutine* iterates over.

    What it awaits knows nothing of them before 3.13, but the iterator does.
    """
    for each in _held_by(coroutine):
        if is_a(each, types.GeneratorType) and each.gi_code is _COMPLETIONS:
            _ask(each, known, found)


_COMPLETIONS: Final[object] = getattr(asyncio.as_completed, "__code__", None)


def _held_by(coroutine: object) -> Iterator[Any]:
    for each in gc.get_referents(coroutine):
        if isinstance(each, types.CellType):
            with contextlib.suppress(ValueError):  # the cell is empty
                yield each.cell_contents
        else:
            yield each


def _pending(members: Iterable[Any], known: set[int]) -> list[Task]:
    """Return those of *members* that are tasks and not done, each once."""
    try:
        candidates = list(members)[:_MEMBERS]
    except RuntimeError:  # a set that its loop changes meanwhile
        return []
    tasks: list[Task] = []
    for each in candidates:
        # By type: what else a library has in its hands may be anything.
        if not _is_task(each) or id(each) in known:
            continue
        known.add(id(each))
        if not each.done():
            tasks.append(each)
    return tasks


def is_given(task: Task, future: object) -> bool:
    """Return whether the coroutine of *task* has *future* in its hands."""
    return any(each is future for each in gc.get_referents(task.get_coro()))


def _is_task(each: object) -> bool:
    """Return whether *each* is a task, of C or of Python: `nest_asyncio` makes both."""
    return is_future(each) and hasattr(type(each), "get_coro")
