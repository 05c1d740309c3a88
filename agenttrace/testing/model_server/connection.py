"""HTTP/1.1 on one connection: requests in, bytes out, and whether anyone is there.

h11 keeps the protocol; this module moves the bytes.  It always reads, also while it
answers: that is how it knows at once that the client has hung up.  What is answered,
and how fast, is decided elsewhere (`server`, `sending`).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from agenttrace.errors import MissingExtraError

try:
    import h11
except ImportError as missing:
    feature = "agenttrace.testing.model_server"
    raise MissingExtraError(feature, "demo") from missing

_READ_SIZE: Final = 65_536
_BATCH: Final = 16_384


@dataclass(frozen=True, slots=True)
class Incoming:
    """One HTTP request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Answer: TypeAlias = Callable[[Incoming, "Connection"], Awaitable[None]]


class Connection:
    """One client's connection, for as long as it lasts.

    `serve` is cancelled when the client hangs up in the middle of an answer; whoever
    answers sees a `CancelledError` at its next `await` and `client_gone` set.

    Args:
        reader: What the client sends.
        writer: Where it is answered.
        answer: Answers one request with `start`, `send`, `finish` or `hang_up`.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._answer = answer
        self._http = h11.Connection(h11.SERVER)
        self._arrived = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None
        self._answering = False
        self._unsent = bytearray()
        self.client_gone = False
        # So that `drain` means "the operating system has it", which is what *done* and
        # *cut* promise; a full socket still stops the stream, as it should.
        writer.transport.set_write_buffer_limits(high=0)

    async def serve(self) -> None:
        """Answer requests, one after the other, until either side hangs up."""
        self._serving = asyncio.current_task()
        listening = asyncio.ensure_future(self._listen())
        try:
            while (incoming := await self._receive()) is not None:
                self._answering = True
                if self.client_gone:
                    self._abandon()
                await self._answer(incoming, self)
                self._answering = False
                if self._http.our_state is not h11.DONE:
                    break
                self._http.start_next_cycle()
        except h11.RemoteProtocolError as error:
            await self._refuse(error)
        except ConnectionError:
            pass
        finally:
            listening.cancel()
            self._writer.transport.abort()

    def start(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        """Begin the answer."""
        encoded = [(name.encode(), value.encode()) for name, value in headers]
        self._queue(h11.Response(status_code=status, headers=encoded))

    def send(self, data: bytes) -> bool:
        """Queue a part of the body; return whether it is time to `flush`.

        Parts are gathered: a stream without pauses costs a system call for many
        chunks, not one for each.
        """
        self._queue(h11.Data(data=data))
        return len(self._unsent) >= _BATCH

    async def finish(self, drip: float | None = None) -> None:
        """End the answer and flush it."""
        self._queue(h11.EndOfMessage())
        await self.flush(drip)

    async def flush(self, drip: float | None = None) -> None:
        """Wait until the operating system has taken all that is queued.

        Args:
            drip: Send byte by byte, with so many seconds between two of them.

        Raises:
            ConnectionError: The client has gone.
        """
        unsent, self._unsent = bytes(self._unsent), bytearray()
        if self.client_gone:
            raise ConnectionResetError
        if drip is None:
            self._writer.write(unsent)
            await self._writer.drain()
            return
        for at in range(len(unsent)):
            self._writer.write(unsent[at : at + 1])
            await self._writer.drain()
            await asyncio.sleep(drip)

    async def hang_up(self) -> None:
        """Send what is queued, then close in the middle of the message."""
        await self.flush()
        # A forked child may hold a copy of this socket, so that closing ours would
        # not reach the client; a shutdown does.
        connected: socket.socket = self._writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            connected.shutdown(socket.SHUT_RDWR)
        self._writer.transport.abort()

    def _queue(self, part: h11.Event) -> None:
        self._unsent += self._http.send(part) or b""

    async def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while data := await self._reader.read(_READ_SIZE):
                self._http.receive_data(data)
                self._arrived.set()
        self.client_gone = True
        self._arrived.set()
        # While a request is being read it is not over: it may have come whole, and a
        # test wants to see also the request of a client that left at once.
        if self._answering:
            self._abandon()

    def _abandon(self) -> None:
        if self._serving is not None:
            self._serving.cancel()

    async def _receive(self) -> Incoming | None:
        head = await self._next_event()
        if not isinstance(head, h11.Request):
            return None
        body = bytearray()
        while isinstance(part := await self._next_event(), h11.Data):
            body += part.data
        if not isinstance(part, h11.EndOfMessage):
            return None
        headers = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in head.headers
        }
        method, target = head.method.decode(), head.target.decode("latin-1")
        return Incoming(method, target, headers, bytes(body))

    async def _next_event(self) -> object:
        """Return what the client sent next; None where it has gone instead."""
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self.client_gone:
                return None
            if self._http.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                self._queue(go_on)
                await self.flush()
            self._arrived.clear()
            await self._arrived.wait()
        return event

    async def _refuse(self, error: h11.RemoteProtocolError) -> None:
        headers = [("content-length", "0"), ("connection", "close")]
        with contextlib.suppress(ConnectionError):
            self.start(error.error_status_hint, headers)
            await self.finish()
