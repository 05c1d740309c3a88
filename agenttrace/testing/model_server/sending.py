"""How one reply reaches the client: its pace, and the faults on its way.

Every wait here ends at once when the client goes or the server stops, because the
serving task is cancelled; none of them looks at a clock to find out.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Final

from agenttrace.testing.model_server.encoding import COMMENT, Frame, middle_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agenttrace.testing.model_server.connection import Connection
    from agenttrace.testing.model_server.exchanges import Exchange
    from agenttrace.testing.model_server.replies import Reply, Stage

_OK: Final = 200


class HungUp(Exception):  # noqa: N818 - a decision of the script, not an error
    """The server has closed the connection, as the script wanted."""


class Sending:
    """Sends one reply.

    Args:
        connection: Where to.
        exchange: What is being answered; `release` ends its stalls.
        reply: Pace and faults.
        request_id: What `x-request-id` says.
    """

    def __init__(
        self,
        connection: Connection,
        exchange: Exchange,
        reply: Reply,
        request_id: str,
    ) -> None:
        self._connection = connection
        self._exchange = exchange
        self._reply = reply
        self._headers = {"x-request-id": request_id, "openai-version": "2020-10-01"}
        self._streaming = False

    async def before_head(self) -> None:
        """Wait as long as the reply wants before its head.

        Raises:
            HungUp: The reply is cut there.
        """
        if self._reply.delay:
            await asyncio.sleep(self._reply.delay)
        await self._strike("head")

    async def whole(self, status: int, body: bytes) -> None:
        """Send a JSON body.

        Raises:
            HungUp: The reply is cut half way.
        """
        half = len(body) // 2
        if self._reply.garbage and status == _OK:
            body = body[:half]
        self._start(
            status,
            {"content-type": "application/json", "content-length": str(len(body))},
        )
        if self._reply.stall == "mid" or self._reply.cut == "mid":
            self._connection.send(body[:half])
            await self._strike("mid")
            body = body[half:]
        self._connection.send(body)
        await self._connection.finish(self._reply.drip)

    def start_stream(self) -> None:
        """Begin a stream of server-sent events."""
        self._streaming = True
        self._start(
            _OK,
            {
                "content-type": "text/event-stream; charset=utf-8",
                "cache-control": "no-cache",
            },
        )

    def at_once(self, frames: Sequence[Frame]) -> None:
        """Queue *frames* that have no pace and in which nothing goes wrong."""
        for frame in frames:
            self._connection.send(frame.data)

    async def frames(self, frames: Sequence[Frame]) -> None:
        """Send *frames* at the pace of the reply.

        Raises:
            HungUp: The reply is cut half way.
        """
        gap, middle = self._reply.gap, middle_of(frames)
        follows = False
        for index, frame in enumerate(frames):
            if index == middle:
                await self._strike("mid")
            if frame.paced:
                if gap and follows:
                    await self.pause(gap)
                follows = True
            if self._connection.send(frame.data):
                await self._connection.flush(self._reply.drip)
                # A flush does not wait where the client reads as fast as we write;
                # the other connections must have their turn all the same.
                await asyncio.sleep(0)

    async def finish_stream(self) -> None:
        """End the stream."""
        await self._connection.finish(self._reply.drip)

    async def pause(self, seconds: float) -> None:
        """Send what is queued, then be silent for *seconds*; infinite is a stall."""
        await self._connection.flush(self._reply.drip)
        every = self._reply.keep_alive_comments if self._streaming else None
        stalled = seconds == math.inf
        while every is not None and every < seconds:
            if await self._silence(every, stalled=stalled):
                return
            self._connection.send(COMMENT)
            await self._connection.flush(self._reply.drip)
            seconds -= every
        await self._silence(seconds, stalled=stalled)

    async def _silence(self, seconds: float, *, stalled: bool) -> bool:
        """Wait, and return whether a stall has been released."""
        if not stalled:
            await asyncio.sleep(seconds)
            return False
        try:
            async with asyncio.timeout(None if seconds == math.inf else seconds):
                await self._exchange.released()
        except TimeoutError:
            return False
        return True

    async def _strike(self, stage: Stage) -> None:
        if self._reply.stall == stage:
            await self.pause(math.inf)
        if self._reply.cut == stage:
            await self._connection.hang_up()
            raise HungUp

    def _start(self, status: int, headers: dict[str, str]) -> None:
        chosen = {**self._headers, **headers}
        for name, value in (self._reply.headers or {}).items():
            chosen[name.lower()] = value
        self._connection.start(status, chosen.items())
