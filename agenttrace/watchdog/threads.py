"""Where the threads of this process are, and what each of them waits for.

A thread has no handle on what it does; its stack is all there is.  What a thread works
for is found by the few functions in which every worker of a pool stands, and what it
waits for by those in which every waiting thread stands.

Of their variables the futures and threads they stand for are read, and no others.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import dis
import gc
import os
import sys
import threading
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeGuard, cast

from agenttrace.watchdog.frames import Whose, whose

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from types import CodeType, FrameType

    from agenttrace.watchdog.frames import Line

_DEPTH: Final = 1000
"""How many frames of a stack are looked at: runaway recursion is one of the reasons."""
_MAX_CODE: Final = 20_000
"""Bytes.  The code of a longer function is not taken apart for what it calls."""

_Future: Final[Any] = concurrent.futures.Future
_RESULTS: Final = frozenset({_Future.result.__code__, _Future.exception.__code__})
_COMPLETIONS: Final = frozenset(
    {concurrent.futures.wait.__code__, concurrent.futures.as_completed.__code__}
)
"""They keep what they were given in `fs`."""
_JOIN: Final[CodeType] = threading.Thread.join.__code__
_RUN: Final[CodeType] = asyncio.Runner.run.__code__
_LOOPS: Final[dict[CodeType, str]] = {
    asyncio.BaseEventLoop.run_until_complete.__code__: "future",
    _RUN: "task",
}
_TURN: Final[CodeType] = asyncio.BaseEventLoop._run_once.__code__  # type: ignore[attr-defined]  # noqa: SLF001 - where every loop turns  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType, reportAttributeAccessIssue, reportUnknownVariableType]
_FOREVER: Final[CodeType] = asyncio.BaseEventLoop.run_forever.__code__
_CALLBACK: Final[CodeType] = asyncio.Handle._run.__code__  # noqa: SLF001 - where every callback stands  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType]


_is_held_off = False
"""Whether a thread of ours keeps the collector from running at this moment."""


def stacks() -> dict[int, FrameType]:
    """Return the innermost frame of every thread, by the thread's id."""
    with undisturbed():
        found = sys._current_frames()  # noqa: SLF001 - the documented way to other threads  # pyright: ignore[reportPrivateUsage]
    found.pop(threading.get_ident(), None)
    return found


def names() -> dict[int, str]:
    """Return the names of the threads, by their id."""
    return {each.ident: each.name for each in threading.enumerate() if each.ident}


@contextmanager
def undisturbed() -> Generator[None]:
    """Keep the garbage collector from running meanwhile, where that matters.

    Up to 3.11 it runs in the middle of an allocation: of the object for a frame that
    another thread is in, among others.  Its finalizers let that thread go on, and the
    frame is gone before it has its object.  (From 3.12 on it waits for the end of a
    bytecode.  CPython does the same in `sys._current_frames`, gh-106883.)
    """
    global _is_held_off  # noqa: PLW0603 - told to the hook of a fork
    if sys.version_info >= (3, 12) or not gc.isenabled():
        yield
        return
    _is_held_off = True
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        _is_held_off = False


def _after_fork() -> None:
    """Let a child collect whose parent was forked in the middle of a look."""
    global _is_held_off  # noqa: PLW0603 - see above
    if _is_held_off:
        _is_held_off = False
        gc.enable()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def outwards(frame: FrameType | None) -> list[FrameType]:
    """Return *frame* and those that called it, innermost first."""
    found: list[FrameType] = []
    with undisturbed():
        while frame is not None and len(found) < _DEPTH:
            found.append(frame)
            frame = frame.f_back
    return found


def lines_of(frame: FrameType | None, until: FrameType | None = None) -> list[Line]:
    """Return the lines from *until*, or the outermost, to *frame*."""
    lines: list[Line] = []
    for each in outwards(frame):
        lines.append((each.f_code, each.f_lineno))
        if each is until:
            break
    lines.reverse()
    return lines


def thread_in(
    frames: dict[int, FrameType], frame: FrameType
) -> tuple[int, FrameType] | None:
    """Return the thread that is in *frame* now, and its innermost frame."""
    for ident, top in frames.items():
        if any(each is frame for each in outwards(top)):
            return ident, top
    return None


def workers(frames: dict[int, FrameType]) -> dict[int, int]:
    """Return the threads of pools that are at work, by the identity of their future."""
    found: dict[int, int] = {}
    # Where nobody has imported it there is no worker; to be the first registers an
    # exit handler, which at the end of the interpreter fails.
    pools: Any = sys.modules.get("concurrent.futures.thread")
    if pools is None:
        return found
    work: CodeType = pools._WorkItem.run.__code__  # noqa: SLF001 - where every worker stands
    for ident, top in frames.items():
        for frame in outwards(top):
            if frame.f_code is work:
                item = local(frame, "self")
                found[id(getattr(item, "future", None))] = ident
    return found


def awaited_by(top: FrameType) -> list[object]:
    """Return what the thread with the innermost frame *top* waits for.

    Those are futures and threads; none where it waits for neither, or does not wait.
    """
    for frame in outwards(top):
        code = frame.f_code
        if whose(code.co_filename) is Whose.APPLICATION:
            return []
        if code in _RESULTS or code is _JOIN:
            return [local(frame, "self")]
        if code in _COMPLETIONS:
            return _members(local(frame, "fs"))
        if code.co_qualname == "CurrentThreadExecutor.run_until_future":
            return [local(frame, "future")]
        run = _run_in(frame)
        if run is not None:
            return [run]
    return []


def _members(held: object) -> list[object]:
    """Return what is in a collection of the interpreter's, which *held* may be."""
    if type(held) not in (set, frozenset, list, tuple, dict):
        return []
    try:
        return list(cast("Iterable[object]", held))
    except RuntimeError:  # its thread changes it meanwhile
        return []


def main_task_in(top: FrameType) -> object:
    """Return the task for which the thread with the frame *top* runs its loop."""
    return next(filter(None, map(_run_in, outwards(top))), None)


def runs_above(top: FrameType, frame: FrameType) -> list[Any]:
    """Return what the loops run that were begun within *frame*, the outermost first.

    Those are loops within a loop: each can return only when those above it have.
    """
    found: list[Any] = []
    for each in outwards(top):
        if each is frame:
            return found[::-1]
        run = _run_in(each)
        if run is not None:
            found.append(run)
    return []  # it is not on this stack any more


def _run_in(frame: FrameType) -> object:
    """Return what *frame* runs a loop for until it is done, None where it does not."""
    code = frame.f_code
    name = _LOOPS.get(code)
    if name is not None:
        return local(frame, name)
    if code.co_name == "run_until_complete" and _is_of_a_loop(frame):
        # `nest_asyncio` keeps what it was given beside the task that it made of it.
        return local(frame, "f")
    return None


def is_turn(frame: FrameType) -> bool:
    """Return whether *frame* is a turn of an event loop.

    By its code; by its name and its loop where that was exchanged, as `nest_asyncio`
    does it.  The application may have a function of that name.
    """
    code = frame.f_code
    return code is _TURN or (code.co_name == "_run_once" and _is_of_a_loop(frame))


def is_nestable(turn: FrameType) -> bool:
    """Return whether other turns may come within *turn*: it is not asyncio's own."""
    return turn.f_code is not _TURN


def loop_of(frame: FrameType) -> asyncio.AbstractEventLoop | None:
    """Return the loop that *frame* runs until it is stopped; None where it does not."""
    code = frame.f_code
    loop: object = None
    if code is _FOREVER or (code.co_name == "run_forever" and _is_of_a_loop(frame)):
        loop = local(frame, "self")
    elif code is _RUN:
        # Not `get_loop()`, which would make one.
        loop = getattr(local(frame, "self"), "_loop", None)
    return loop if _is_a_loop(loop) else None


def _is_of_a_loop(frame: FrameType) -> bool:
    return _is_a_loop(local(frame, "self"))


def _is_a_loop(each: object) -> TypeGuard[asyncio.AbstractEventLoop]:
    # Its type: an object of the application's may say anything of its class.
    return issubclass(type(each), asyncio.AbstractEventLoop)


def callback_in(top: FrameType) -> FrameType | None:
    """Return the frame of the callback a loop is in, None where it is in none."""
    for frame in outwards(top):
        if is_turn(frame):
            return None
        if frame.f_code is _CALLBACK:
            return frame
    return None


def callback_of(
    loop: asyncio.AbstractEventLoop, frames: dict[int, FrameType]
) -> tuple[int, FrameType] | tuple[None, None]:
    """Return the thread of *loop* and the frame of the callback it is in, if any.

    For loops without frames of their own (uvloop): what stands on their runner's frame
    was called by them.
    """
    for ident, top in frames.items():
        above: FrameType | None = None
        for frame in outwards(top):
            if (
                frame.f_code is _RUN
                and getattr(local(frame, "self"), "_loop", 0) is loop
            ):
                return (None, None) if above is None else (ident, above)
            above = frame
    return None, None


def turn_of(frame: FrameType) -> FrameType:
    """Return the frame that is there for one step of what *frame* belongs to.

    That of a coroutine is there again at every step.
    """
    return next((each for each in outwards(frame) if each.f_code is _CALLBACK), frame)


def is_beneath(turn: FrameType, top: FrameType | None) -> bool:
    """Return whether the thread with the frame *top* is in *turn* still.

    Not where a loop within a loop, as `nest_asyncio` makes them, has come between.
    """
    for frame in outwards(top):
        if frame is turn:
            return True
        if is_turn(frame):
            return False
    return False


def local(frame: FrameType, name: str) -> Any:  # noqa: ANN401 - whatever it is
    """Return a local variable of a frame that another thread is in.

    Up to 3.12 asking makes a copy of all of them, which would keep them alive for as
    long as the frame lasts: so it is emptied again, unless a debugger is at work there
    and would write it back.
    """
    if frame.f_trace is not None:
        return None
    with undisturbed():
        found = frame.f_locals
        value = found.get(name)
        if type(found) is dict:
            found.clear()
    return value


def call_in_progress(frame: FrameType | None) -> str | None:
    """Return the name of the function that *frame* is calling; None if unknown.

    For functions in C, which have no frame of their own.  `with lock:` is a call of
    `__enter__`.
    """
    return None if frame is None else _call_at(frame.f_code, frame.f_lasti)


@lru_cache(maxsize=256)
def _call_at(code: CodeType, at: int) -> str | None:
    """Return the name of what *code* calls at the offset *at*."""
    if len(code.co_code) > _MAX_CODE:
        return None
    before = [
        instruction
        for instruction in dis.get_instructions(code)
        if instruction.offset <= at
    ]
    while before and before[-1].opname in _SUSPENDED:
        before.pop()
    if not before:
        return None
    if before[-1].opname == "BEFORE_WITH":
        return "__enter__"
    if len(before) > 1 and before[-2].opname == "LOAD_SPECIAL":  # from 3.14 on
        return before[-2].argrepr
    return _name_of(before) if before[-1].opname in _CALLS else None


_NAMES: Final = frozenset({"LOAD_ATTR", "LOAD_METHOD", "LOAD_GLOBAL", "LOAD_NAME"})
_CALLS: Final = frozenset({"CALL", "CALL_FUNCTION_EX", "CALL_KW", "PRECALL"})
_SUSPENDED: Final = frozenset(
    {
        *("SEND", "YIELD_VALUE", "RESUME", "JUMP_BACKWARD_NO_INTERRUPT", "LOAD_CONST"),
        *("GET_AWAITABLE", "END_SEND", "CACHE"),
    }
)
"""What an `await` consists of, after the call whose result it awaits."""


def _name_of(before: list[dis.Instruction]) -> str | None:
    """Return which name the call that *before* ends in has loaded last.

    The call `a.b.recv(1)` begins where `a.b.recv` begins.
    """
    start = _start_of(before[-1])
    if start is None:
        return None
    for instruction in reversed(before[:-1]):
        if instruction.opname in _NAMES and _start_of(instruction) == start:
            return str(instruction.argval)
    return None


def _start_of(instruction: dis.Instruction) -> tuple[int, int] | None:
    where = instruction.positions
    if where is None or where.lineno is None or where.col_offset is None:
        return None
    return where.lineno, where.col_offset
