"""The await chain of a task, from its coroutine to what it waits for, and beyond.

A suspended coroutine tells what it awaits, by three names in three kinds of object.
The wrappers between them (`asend()` of a generator, the iterator of a future) tell
nothing; the garbage collector knows what they refer to.

What a task waits for in the end is a future, and who is to resolve it stands in one of
few places: in the future where it is a task, in its callbacks where it was wrapped or
shielded, and else in the coroutines of asyncio and anyio that wait in the
application's place, `wait` and task groups among them.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import inspect
import threading
import types
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from agenttrace.watchdog import threads
from agenttrace.watchdog.frames import Whose, whose

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType

    from agenttrace.watchdog.frames import Line
    from agenttrace.watchdog.tasks import Task

_DEPTH: Final = 500
_MEMBERS: Final = 10_000
"""How many tasks of one group are looked at."""


class State(Enum):
    """What a task is doing."""

    UNSTARTED = "has not begun"
    RUNNING = "runs"
    WAITING = "waits"
    READY = "could go on"
    DONE = "is done"


class Chain:
    """What a task is in.

    Attributes:
        state: What it is doing.
        lines: Its stack, outermost first; where it runs, down to its running coroutine.
        suspended: The coroutines and generators in it, outermost first.
        frame: The frame of the outermost of them.
        innermost: The frame of the innermost of them.
        end: What the innermost of them awaits, if it is no coroutine.
    """

    __slots__ = ("end", "frame", "innermost", "lines", "state", "suspended")

    def __init__(self) -> None:
        self.state = State.DONE
        self.lines: list[Line] = []
        self.suspended: list[object] = []
        self.frame: FrameType | None = None
        self.innermost: FrameType | None = None
        self.end: object = None


_KINDS: Final = (
    ("cr_frame", "cr_running", "cr_await"),
    ("ag_frame", "ag_running", "ag_await"),
    ("gi_frame", "gi_running", "gi_yieldfrom"),
)


_NATIVE: Final = (
    types.CoroutineType,
    types.AsyncGeneratorType,
    types.GeneratorType,
)


def chain_of(task: Task) -> Chain:
    """Return what *task* is in."""
    chain = Chain()
    if task.done():
        return chain
    each: Any = task.get_coro()
    seen: set[int] = set()
    while each is not None and len(seen) < _DEPTH and id(each) not in seen:
        seen.add(id(each))
        names = _names_of(each)
        if names is None:
            if _is_future(each):
                break
            each = _beneath(each)
            continue
        frame, running, awaited = names
        chain.suspended.append(each)
        chain.innermost = None
        if type(each) in _NATIVE:
            with threads.undisturbed():
                where: FrameType | None = getattr(each, frame)
            if where is not None:
                chain.lines.append((where.f_code, where.f_lineno))
                chain.frame = chain.frame or where
                chain.innermost = where
        elif isinstance(getattr(each, "cr_code", None), types.CodeType):
            # Cython's, which would make a frame for us, on this thread.
            chain.lines.append((each.cr_code, each.cr_code.co_firstlineno))
        # An asynchronous generator counts as running while somebody awaits it.
        if getattr(each, running) and names is not _KINDS[1]:
            chain.state = State.RUNNING
            return chain
        each = getattr(each, awaited)
    chain.end = each if each is not None else _waiter(task)
    chain.state = _state(task, chain)
    return chain


def _names_of(each: object) -> tuple[str, str, str] | None:
    """Return the names by which *each* tells its frame and what it awaits, if it does.

    The type is asked: an object of the application's may answer to every name.
    """
    kind: Any = type(each)
    return next((names for names in _KINDS if hasattr(kind, names[2])), None)


def _state(task: Task, chain: Chain) -> State:
    waiter = _waiter(task)
    if waiter is not None:
        return State.READY if waiter.done() else State.WAITING
    first: Any = chain.suspended[0] if chain.suspended else None
    if _is_a(first, types.CoroutineType) and (
        inspect.getcoroutinestate(first) == inspect.CORO_CREATED
    ):
        return State.UNSTARTED
    return State.READY


def _waiter(task: Task) -> Any:  # noqa: ANN401 - a future of any make
    return getattr(task, "_fut_waiter", None)


def _beneath(wrapper: object) -> object:
    """Return what a wrapper without attributes leads on to."""
    for each in gc.get_referents(wrapper):
        if _is_future(each) or _names_of(each) is not None:
            return each
    for each in gc.get_referents(wrapper):
        if type(each).__name__ in _WRAPPERS:
            return each
    return None


_WRAPPERS: Final = frozenset(
    {
        *("async_generator_asend", "async_generator_athrow", "coroutine_wrapper"),
        *("FutureIter", "anext_awaitable"),
    }
)


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
    waiter = _waiter(task)
    for future in (chain.end, waiter):
        if future is not None:
            resolve(future, stacks, found)
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


def resolve(future: object, stacks: dict[int, FrameType], found: Upstream) -> None:
    """Add to *found* who is to resolve *future*."""
    pending: list[Any] = [future]
    seen: set[int] = set()
    while pending and len(seen) < _MEMBERS:
        each = pending.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if _is_task(each):
            if not each.done():
                found.tasks.append(each)
        elif _is_a(each, threading.Thread):
            if each.ident is not None and each.is_alive():
                found.threads.append(each.ident)
        elif _is_a(each, concurrent.futures.Future):
            source = list(_behind(getattr(each, "_done_callbacks", ())))
            pending += source
            if not source:
                _find_worker(each, stacks, found)
        elif _is_future(each) and not each.done():
            pending += reversed(getattr(each, "_children", ()))  # of `gather`
            pending += _behind(getattr(each, "_callbacks", None) or ())


def _find_worker(
    future: concurrent.futures.Future[Any],
    stacks: dict[int, FrameType],
    found: Upstream,
) -> None:
    if future.done():
        return
    worker = threads.worker_for(stacks, future)
    if worker is not None:
        found.threads.append(worker)
    elif future.running():
        found.futures.append(future)  # of another process
    else:
        found.futures.append(future)
        found.queued = True


_SOURCES: Final = {
    # The callback of a future that was made of another one, and its name of that.
    "_call_check_cancel": "source",
    "_outer_done_callback": "inner",
}


def _behind(callbacks: Iterable[Any]) -> Iterator[object]:
    """Iterate over the futures that a future with *callbacks* was made of."""
    for each in tuple(callbacks):
        # asyncio's come with a context each, those of a pool alone.
        function: Any = each[0] if _is_a(each, tuple) else each
        if not _is_a(function, types.FunctionType):
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
        if _is_a(each, threading.Thread) and each.is_alive():
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
        if _is_a(each, types.GeneratorType) and each.gi_code is _COMPLETIONS:
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


def calls_in(chain: Chain, stack: Iterable[FrameType]) -> Iterator[object]:
    """Iterate over the calls of `boundary` in whose frames a task is.

    Args:
        chain: What the task is in.
        stack: The frames of its thread, while it runs.
    """
    for each in chain.suspended:
        code = getattr(each, "ag_code", None) or getattr(each, "cr_code", None)
        if code is not None and whose(code.co_filename) is Whose.OURS:
            for held in gc.get_referents(each):
                if _is_call(held):
                    yield held
    for frame in stack:
        if whose(frame.f_code.co_filename) is Whose.OURS and (
            "call" in frame.f_code.co_varnames
        ):
            yield threads.local(frame, "call")


def _is_a(each: object, kind: type[Any]) -> bool:
    """Return whether *each* is a *kind*, by its type.

    `isinstance` would ask an object for its class, and it may be the application's.
    """
    return issubclass(type(each), kind)


def _is_task(each: object) -> bool:
    """Return whether *each* is a task, of C or of Python: `nest_asyncio` makes both."""
    return _is_future(each) and hasattr(type(each), "get_coro")


def _is_future(each: object) -> bool:
    """Return whether *each* is a future of any make, by its type; see `_is_a`."""
    return hasattr(type(each), "_asyncio_future_blocking")


def _is_call(held: object) -> bool:
    # By its name: `boundary` stands above this package.
    kind = type(held)
    return kind.__name__ == "Call" and kind.__module__ == "agenttrace.boundary.call"
