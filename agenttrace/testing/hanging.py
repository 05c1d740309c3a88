"""Something that hangs for as long as a test wants it to, and no longer."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from types import TracebackType

_PATIENCE: Final = 30.0
"""Seconds that somebody is waited for who is to hang."""


class Hang:
    """Hangs whoever calls it, until it is released or its block is left.

    `await hang()` hangs a task, `hang.block()` the thread that calls it, be it the
    event loop's.  Both take any arguments, so that either can stand in for a tool, and
    both return *result* when they are released.

    Args:
        result: What is returned then.

    >>> import asyncio
    >>> from agenttrace.testing import Hang
    >>> async def main():
    ...     with Hang("released") as hang:
    ...         task = asyncio.create_task(hang("any", argument="s"))
    ...         await asyncio.to_thread(hang.wait)
    ...         hang.release()
    ...         return await task
    >>> asyncio.run(main())
    'released'
    """

    def __init__(self, result: object = None) -> None:
        self.result: Any = result
        self._changed = threading.Condition()
        self._reached = 0
        self._is_released = False
        self._waiting: dict[asyncio.Future[None], asyncio.AbstractEventLoop] = {}

    def __enter__(self) -> Self:
        """Return itself; the block's end releases everybody."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release everybody."""
        self.release()

    @property
    def reached(self) -> int:
        """How many have begun to hang so far, those that went on since included."""
        return self._reached

    async def __call__(self, *args: object, **kwargs: object) -> Any:  # noqa: ANN401 - what the test said
        """Hang this task."""
        del args, kwargs
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._changed:
            if not self._is_released:
                self._waiting[future] = loop
            self._note()
        try:
            if not self._is_released:
                await future
        finally:
            self._waiting.pop(future, None)
        return self.result

    def block(self, *args: object, **kwargs: object) -> Any:  # noqa: ANN401 - what the test said
        """Hang this thread."""
        del args, kwargs
        with self._changed:
            self._note()
            self._changed.wait_for(lambda: self._is_released)
        return self.result

    def wait(self, number: int = 1, timeout: float = _PATIENCE) -> None:
        """Block until *number* have begun to hang.

        For the test's thread; a coroutine does `await asyncio.to_thread(hang.wait)`.

        Raises:
            TimeoutError: Fewer have in *timeout* seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._reached >= number, timeout):
                message = f"{self._reached} of {number} began to hang in {timeout:g} s"
                raise TimeoutError(message)

    def release(self) -> None:
        """Let everybody go on, and whoever comes from now on not hang at all."""
        with self._changed:
            self._is_released = True
            waiting, self._waiting = self._waiting, {}
            self._changed.notify_all()
        for future, loop in waiting.items():
            # Its loop may be closed by now.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_finish, future)

    def _note(self) -> None:
        self._reached += 1
        self._changed.notify_all()


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
