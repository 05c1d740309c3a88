"""What happened at the server, for a test to look at and to wait for.

Exchanges are written by the server's thread and read by the test's; one condition
guards them all.  Waiting is event driven: it returns when the thing has happened, not
at the next look.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from agenttrace.testing.model_server.requests import Request

End: TypeAlias = Literal["done", "client_gone", "cut"]
"""Answered to the last byte; the client hung up before that; the server did (`cut`, or
`ModelServer.stop`)."""

State: TypeAlias = Literal["open"] | End
"""How far an exchange has come."""


class Exchange:
    """One request and what became of it.

    *Done* means that the operating system has taken the last byte; a client may have
    read it a moment before that is noted here, so `wait` for it.  A client that
    leaves in the middle is noticed at once while the answer still waits or is larger
    than the socket's buffers; a short answer without pauses is done before the client
    has read its first chunk.
    """

    def __init__(self, request: Request, changed: threading.Condition) -> None:
        self._changed = changed
        self._state: State = "open"
        self._released = asyncio.Event()
        self.request = request
        self.started_at = time.time()
        """Seconds since the epoch, when the request had been read."""
        self.ended_at: float | None = None
        """Seconds since the epoch; None while it is open."""
        self.script_error: Exception | None = None
        """What the script raised; the client was sent a status 500."""

    def __repr__(self) -> str:
        """Name the request and the state."""
        return f"<Exchange {self.request.method} {self.request.path}: {self._state}>"

    @property
    def state(self) -> State:
        """How far it has come."""
        return self._state

    def wait(self, state: End = "done", timeout: float = 5.0) -> None:
        """Block until the exchange has ended, which must be as *state* says.

        From a coroutine on the client's own loop, wait in a thread:
        `await asyncio.to_thread(exchange.wait, "client_gone")`.

        Args:
            state: How it shall end.
            timeout: How long to wait, in seconds.

        Raises:
            TimeoutError: It is still open.
            AssertionError: It has come to another end.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._state != "open", timeout):
                message = f"{self!r} after {timeout:g} s, not {state}"
                raise TimeoutError(message)
        if self._state != state:
            message = f"{self!r}, not {state}"
            raise AssertionError(message)

    def end(self, state: End) -> None:
        """Note the end.  For the server."""
        with self._changed:
            self.ended_at = time.time()
            self._state = state
            self._changed.notify_all()

    def release(self) -> None:
        """End its stall, present or to come.  For the server, on its loop."""
        self._released.set()

    async def released(self) -> None:
        """Wait for `release`.  For the server, on its loop."""
        await self._released.wait()


class Exchanges:
    """All exchanges of one server, oldest first.

    Args:
        remember: How many to keep; older ones are forgotten.
    """

    def __init__(self, remember: int) -> None:
        self._changed = threading.Condition()
        self._kept: deque[Exchange] = deque(maxlen=remember)
        self._total = 0

    def begin(self, request: Request) -> Exchange:
        """Note a new request."""
        exchange = Exchange(request, self._changed)
        with self._changed:
            self._kept.append(exchange)
            self._total += 1
            self._changed.notify_all()
        return exchange

    def snapshot(self) -> list[Exchange]:
        """Return those that are remembered."""
        with self._changed:
            return list(self._kept)

    def wait_for(self, number: int, timeout: float) -> Exchange:
        """Block until *number* requests have come, and return the last of them.

        Raises:
            TimeoutError: Fewer have come in *timeout* seconds.
            LookupError: It came, and is forgotten.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._total >= number, timeout):
                message = f"{self._total} requests after {timeout:g} s, not {number}"
                raise TimeoutError(message)
            index = number - 1 - (self._total - len(self._kept))
            if index < 0:
                message = f"request {number} is forgotten; {len(self._kept)} are kept"
                raise LookupError(message)
            return self._kept[index]
