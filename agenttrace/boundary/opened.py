"""What a request has opened: its generators and streams, and who pulls at each.

Nobody can close some of them but who serves the request: a response that was cut off in
the middle may keep its generator in a reference cycle (Starlette does behind a
`BaseHTTPMiddleware`), with the upstream connection that it reads from.

What is left is told from what somebody goes on with by who pulled last.  If that is a
task which is done, or the one that serves the request, nobody will come again.  Another
task is the application's own, and so is a thread that may be in the middle of a loop:
what they read is never closed.  A plain generator that a framework advances step by
step in a pool of threads is known by the framework's function.
"""

from __future__ import annotations

import asyncio
import sys
import types
import weakref
from typing import TYPE_CHECKING, Any, Final

from agenttrace.boundary.recorder import Progress
from agenttrace.context.request import current_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from agenttrace.boundary.call import Call

    Read = Callable[[Any], Progress]


class OpenedStream:
    """One generator or stream: reads its items, and notes who pulls them.

    It is held by the generator that calls it and by nobody else.

    Args:
        call: The call that goes on in it.
        read: Reads each item; None takes each for progress.
    """

    __slots__ = (
        "__weakref__",
        "_call",
        "_code",
        "_is_async",
        "_pulls",
        "_response",
        "_task",
        "read",
    )

    def __init__(self, call: Call, read: Read | None = None) -> None:
        self.read = read
        self._call = call
        self._code: types.CodeType | None = None
        self._is_async = False
        self._pulls: weakref.ref[Any] | None = None
        self._response: weakref.ref[Any] | None = None
        self._task = task_here()

    def __call__(self, item: Any) -> Progress:  # noqa: ANN401 - whatever is streamed
        """Read *item*, for whoever has just pulled it."""
        self._task = task_here()
        if self._task is None:
            # Above the frame of the generator that drives it there may be none.
            caller = sys._getframe(1).f_back  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # the documented way to one's caller
            self._code = None if caller is None else caller.f_code
        return _PROGRESS if self.read is None else self.read(item)

    def pulled_by(self, pulls: Any) -> None:  # noqa: ANN401 - a generator of either colour
        """Know *pulls* for the generator that drives it."""
        self._pulls = weakref.ref(pulls)

    def answered_by(self, response: Any, *, is_async: bool) -> None:  # noqa: ANN401 - a library's object
        """Know *response* for what has the connection, and which colour that has."""
        self._response = weakref.ref(response)
        self._is_async = is_async

    @property
    def task(self) -> weakref.ref[asyncio.Task[Any]] | None:
        """The task that pulled last, or opened it; None where that was in none."""
        return self._task

    def is_left(self) -> bool:
        """Return whether it is open, with nobody inside it, and nobody comes again."""
        call = self._call
        if call.done or call.span is None:
            return False
        pulls = None if self._pulls is None else self._pulls()
        if pulls is None:
            if self._response is None or self._pulls is not None:
                return False  # a finalizer is closing it, at this very moment
        elif is_running(pulls):
            return False
        if self._task is None:
            return self._code is not None and self._code in STEPS
        return comes_no_more(self._task)

    async def close(self) -> None:
        """Close it: the generator first, which may have something to say.

        Raises:
            BaseException: Whatever comes out of its clean-up.
        """
        pulls = None if self._pulls is None else self._pulls()
        try:
            if isinstance(pulls, types.AsyncGeneratorType):
                await pulls.aclose()
            elif pulls is not None:
                await asyncio.to_thread(pulls.close)
        finally:
            response = None if self._response is None else self._response()
            if response is not None and self._is_async:
                await response.aclose()
            elif response is not None:
                await asyncio.to_thread(response.close)


class Stopped:
    """What is closed by stopping it, which waits for nothing."""

    def stop(self) -> None:
        """Stop it."""
        raise NotImplementedError

    async def close(self) -> None:
        """Stop it."""
        self.stop()


def opened(call: Call, read: Read | None = None) -> OpenedStream | None:
    """Note that *call* is about to stream; None where that is for no request.

    Args:
        call: The call, whose request is noted as well.
        read: Reads its items.
    """
    request = current_request()
    if request is None or request.is_over:
        return None
    call.request = request
    stream = OpenedStream(call, read)
    request.opened(stream)
    return stream


def comes_no_more(known: weakref.ref[asyncio.Task[Any]]) -> bool:
    """Return whether a task is done, or the one that this is called in."""
    task = known()
    return task is None or task.done() or task is _current_task()


def task_here() -> weakref.ref[asyncio.Task[Any]] | None:
    """Return the task that this is called in; None outside of one."""
    task = _current_task()
    return None if task is None else weakref.ref(task)


def _current_task() -> asyncio.Task[Any] | None:
    loop = asyncio._get_running_loop()  # noqa: SLF001 - documented; None without a loop
    return None if loop is None else asyncio.current_task(loop)


def is_running(pulls: Any) -> bool:  # noqa: ANN401 - a generator of either colour
    """Return whether somebody is inside *pulls* now."""
    if isinstance(pulls, types.AsyncGeneratorType):
        return pulls.ag_running
    return bool(pulls.gi_running)


STEPS: Final[set[types.CodeType]] = set()
"""Functions that return after each step, and are called again by whoever serves."""
_PROGRESS: Final = Progress.PROGRESS
