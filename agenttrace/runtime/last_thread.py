"""Lets a process end whose main thread ends without the interpreter's exit.

A child that is forked on another thread than the main one has that thread alone, as
its main thread from then on.  When the function of that returns, the thread ends and
nothing else happens: no exit handler runs, and the process ends with the last of its
threads, with status 0.  Daemon threads count like others: ours would keep it for ever.

What tells is an object that only the main thread refers to, by a thread's local: it
goes with the thread, on 3.11 to 3.13, and nobody has to watch until then.  The thread
that is begun there waits until no other of the application's is left, and only then are
ours ended, as they are at exit.

What is to be done before they end is `process`'s business.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

from agenttrace import safety
from agenttrace.lazy import FIRST_PROCESS, no_fork

if TYPE_CHECKING:
    from collections.abc import Callable

OURS: Final = "agenttrace-"
"""What the names of all of our threads begin with."""
_TASKS: Final = "/proc/self/task"
_SOON: Final = 0.005
"""Seconds between two looks: a thread that has just begun has no frame yet."""
_SELDOM: Final = 1.0
"""Seconds between two looks at others that go on for long."""
_GRACE: Final = 0.2
"""Seconds that those of ours which have been told to end may take for it."""


class LastThread:
    """Calls *leave* when no thread but ours is left, and ends the process then.

    Args:
        leave: Ends what there is of ours, in bounded time.  Called on a thread of ours.
    """

    def __init__(self, leave: Callable[[], object]) -> None:
        self.is_off = False
        """Whether exit handlers run: our threads end with the interpreter."""
        self._leave = leave
        # By then, the names of modules may stand for nothing.
        self._is_finalizing = sys.is_finalizing
        self._local = threading.local()

    def watch(self) -> None:
        """Learn of the end of this thread, if it is the main one."""
        is_main = threading.current_thread() is threading.main_thread()
        watched: _Watched | None = getattr(self._local, "watched", None)
        if is_main and (watched is None or watched.process != os.getpid()):
            self._local.watched = _Watched(self._begin)

    def _begin(self, process: int) -> None:
        """See to the end of the process.  Called on the thread that is ending.

        Args:
            process: Whose main thread it was.  In a forked child, all of the parent's
                that do not live on there end as well.
        """
        if self.is_off or self._is_finalizing():
            return
        # Without a fork no main thread ends like that.  Where Python is embedded its
        # state may, and the application goes on.
        if process == os.getpid() != FIRST_PROCESS:
            safety.guarded("last_thread", self._start)

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name=f"{OURS}last", daemon=True)
        with contextlib.suppress(RuntimeError):  # there are too many
            thread.start()

    def _run(self) -> None:
        safety.guarded("last_thread", self._wait_for_others)
        safety.guarded("last_thread.leave", self._leave)
        safety.guarded("last_thread.end", _end)

    def _wait_for_others(self) -> None:
        pause = _SOON
        looks = 0
        while looks < 2:  # noqa: PLR2004 - see `_SOON`
            if _has_others():
                looks, pause = 0, min(pause * 2, _SELDOM)
            else:
                looks, pause = looks + 1, _SOON
            time.sleep(pause)


class _Watched:
    """Calls *ended* with the id of this process when its thread ends."""

    __slots__ = ("_ended", "process")

    def __init__(self, ended: Callable[[int], object]) -> None:
        self._ended = ended
        self.process = os.getpid()

    def __del__(self) -> None:
        self._ended(self.process)


def _running() -> set[int]:
    """Return the idents of the threads that run Python code, without this one."""
    with no_fork():
        from agenttrace.watchdog.threads import (  # noqa: PLC0415 - few processes end this way
            stacks,
        )
    return set(stacks())


def _ours() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith(OURS)]


def _has_others() -> bool:
    """Return whether a thread runs, or is about to, that is not ours."""
    ours = _ours()
    beginning = (each for each in threading.enumerate() if each.ident is None)
    return bool(
        _running() - {each.ident for each in ours}
        or any(each not in ours for each in beginning)
    )


def _end() -> None:
    """Return when this is the last of our threads; end the process if one hangs."""
    patience = time.monotonic() + _GRACE
    pause = _SOON
    while _running():
        # What hangs is in a request, or in code of the application's that was called
        # with a span: the exit of the interpreter would not wait for it, either.
        if time.monotonic() > patience and _has_only_ours():
            os._exit(0)  # as the last thread of a process does
        time.sleep(pause)
        pause = min(pause * 2, _SELDOM)


def _has_only_ours() -> bool:
    """Return whether no thread but ours is left, of those as well that run no Python.

    False where the system does not say which there are.
    """
    # The main thread has ended, and is listed for as long as the process is.
    known = {os.getpid(), *(each.native_id for each in _ours())}
    try:
        tasks = os.listdir(_TASKS)  # noqa: PTH208 - names are all that is wanted
    except OSError:
        return False
    return all(int(task) in known for task in tasks)
