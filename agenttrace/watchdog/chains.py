"""The await chain of a task, from its coroutine to what it waits for.

A suspended coroutine tells what it awaits, by three names in three kinds of object.
The wrappers between them (`asend()` of a generator, the iterator of a future) tell
nothing; the garbage collector knows what they refer to.

Who is to resolve what it waits for in the end is the business of `upstream`.
"""

from __future__ import annotations

import gc
import inspect
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
            if is_future(each):
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
    chain.end = each if each is not None else waiter_of(task)
    chain.state = _state(task, chain)
    return chain


def _names_of(each: object) -> tuple[str, str, str] | None:
    """Return the names by which *each* tells its frame and what it awaits, if it does.

    The type is asked: an object of the application's may answer to every name.
    """
    kind: Any = type(each)
    return next((names for names in _KINDS if hasattr(kind, names[2])), None)


def _state(task: Task, chain: Chain) -> State:
    waiter = waiter_of(task)
    if waiter is not None:
        return State.READY if waiter.done() else State.WAITING
    first: Any = chain.suspended[0] if chain.suspended else None
    if is_a(first, types.CoroutineType) and (
        inspect.getcoroutinestate(first) == inspect.CORO_CREATED
    ):
        return State.UNSTARTED
    return State.READY


def waiter_of(task: Task) -> Any:  # noqa: ANN401 - a future of any make
    """Return the future that *task* is suspended in, None where it is in none."""
    return getattr(task, "_fut_waiter", None)


def _beneath(wrapper: object) -> object:
    """Return what a wrapper without attributes leads on to."""
    for each in gc.get_referents(wrapper):
        if is_future(each) or _names_of(each) is not None:
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


def is_a(each: object, kind: type[Any]) -> bool:
    """Return whether *each* is a *kind*, by its type.

    `isinstance` would ask an object for its class, and it may be the application's.
    """
    return issubclass(type(each), kind)


def is_future(each: object) -> bool:
    """Return whether *each* is a future of any make, by its type; see `_is_a`."""
    return hasattr(type(each), "_asyncio_future_blocking")


def _is_call(held: object) -> bool:
    # By its name: `boundary` stands above this package.
    kind = type(held)
    return kind.__name__ == "Call" and kind.__module__ == "agenttrace.boundary.call"
