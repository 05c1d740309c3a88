"""Drives a coroutine step by step, and does something at one of its suspensions.

Every place at which a coroutine hands over to the event loop is one, so that each can
be tried in its turn, by number and not by chance.
"""

from __future__ import annotations

import asyncio
import linecache
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agenttrace.testing.leaks import shown
from agenttrace.watchdog import frames
from agenttrace.watchdog.chains import chain_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from types import CodeType

    from agenttrace.testing.conforming.stage import Stage
    from agenttrace.testing.spans import Key
    from agenttrace.watchdog.chains import Chain

_JOINS: Final = frozenset({"TaskGroup.__aexit__", "_wait", "wait", "wait_for"})
"""Functions that wait for other tasks: nothing but a cancellation comes up there."""
_JOINERS: Final = ("asyncio", "anyio")
"""Whose functions they are: an application may call one of its own `wait`."""


class Steps:
    """One drive of a coroutine, with one suspension at which something is done.

    Args:
        at: Which suspension, from 1; 0 is none.
        act: Called there.  What it returns is raised where the coroutine waits, None
            lets it wait.
        stage: Knows which spans something raised there comes up through.
        joins: Whether that is done where it waits for tasks of its own, too.

    Attributes:
        count: How many suspensions there were.
        where: The place of the one at which something was done, for a report.
        path, beside: The spans that something raised there comes up through; those
            that are open beside them.
    """

    def __init__(
        self,
        at: int = 0,
        act: Callable[[], BaseException | None] | None = None,
        *,
        stage: Stage | None = None,
        joins: bool = True,
    ) -> None:
        self.count = 0
        self.acted = False
        self.where = ""
        self.path: list[Key] = []
        self.beside: list[Key] = []
        self._stage = stage
        self._at = at
        self._act = act
        self._joins = joins

    def __call__(self, coroutine: Coroutine[Any, Any, Any]) -> _Driven:
        """Return what drives *coroutine* when it is awaited."""
        return _Driven(self, coroutine)

    def suspended(
        self, coroutine: Coroutine[Any, Any, Any], waits_for: object
    ) -> BaseException | None:
        """Do what is to be done at this suspension, if anything is."""
        self.count += 1
        if self.count != self._at or self._act is None:
            return None
        chain = chain_of(_Suspended(coroutine))  # type: ignore[arg-type]  # what is asked of a task
        if not self._joins and _is_join(chain, waits_for):
            return None
        self.acted = True
        self.where = _told(chain)
        if self._stage is not None:
            self.path, self.beside = self._stage.path(), self._stage.beside()
        return self._act()


class _Driven:
    def __init__(self, steps: Steps, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._steps = steps
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, Any]:
        send, throw = self._coroutine.send, self._coroutine.throw
        argument: Any = None
        error: BaseException | None = None
        try:
            while True:
                try:
                    if error is None:
                        waits_for = send(argument)
                    else:
                        thrown, error = error, None
                        waits_for = throw(thrown)
                except StopIteration as stop:
                    return stop.value
                error = self._steps.suspended(self._coroutine, waits_for)
                if error is None:
                    try:
                        argument = yield waits_for
                    except BaseException as raised:  # noqa: BLE001 - passed on
                        error = raised
        finally:
            # Held by nobody's frame, so that what is dropped is gone.
            argument = error = None


class _Suspended:
    """As much of a task as the await chain is read from."""

    _fut_waiter = None

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine

    def done(self) -> bool:
        """Return that it is not."""
        return False

    def get_coro(self) -> Coroutine[Any, Any, Any]:
        """Return the coroutine."""
        return self._coroutine


def _is_join(chain: Chain, waits_for: object) -> bool:
    if isinstance(waits_for, asyncio.Task) or "Gathering" in type(waits_for).__name__:
        return True
    code: CodeType | None = chain.lines[-1][0] if chain.lines else None
    return (
        code is not None
        and code.co_qualname in _JOINS
        and not _folders().isdisjoint(Path(code.co_filename).parents)
    )


def _folders() -> set[Path]:
    """Return where the code of those lies whose functions wait for other tasks."""
    files = [getattr(sys.modules.get(name), "__file__", None) for name in _JOINERS]
    return {Path(file).parent for file in files if file is not None}


def _told(chain: Chain) -> str:
    """Return the application's line that waits, and that line's source."""
    seen = frames.told(chain.lines)
    theirs = [frame for frame in seen if frame.whose is frames.Whose.APPLICATION]
    if not theirs:
        return ""
    frame = theirs[-1]
    source = linecache.getline(frame.file, frame.line).strip()
    place = f"in {frame.function} ({shown(frame.file)}:{frame.line})"
    return f"{place}\n    {source}" if source else place
