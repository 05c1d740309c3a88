"""An ASGI application while it answers one request, as seen from outside.

What passes between server and application is looked at and let through: no message is
asked for, held back or changed, and no turn of the event loop is added.  So a client
that goes away is seen where the server tells it to somebody who listens: `receive()`
that says so, `send()` that fails because of it.

At the end of such a request, what it opened and nobody reads any more is closed, in a
task of its own: the server need not wait for it.  What is left is `opened`'s business.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

from agenttrace import safety
from agenttrace.boundary.opened import STEPS
from agenttrace.context.request import Request

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from agenttrace.context.request import Opened

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

KEY: Final = "agenttrace.request"
"""Under this key the scope of a request that is served has its `Request`."""


class Exchange:
    """The messages of one request, passed on.

    Args:
        request: The request, which is told when its client goes.
        receive: The server's.
        send: The server's.
    """

    __slots__ = ("_is_answered", "_receive", "_request", "_send")

    def __init__(self, request: Request, receive: Receive, send: Send) -> None:
        self._request = request
        self._receive = receive
        self._send = send
        self._is_answered = False

    async def receive(self) -> Message:
        """Return the server's next message."""
        message = await self._receive()
        if message.get("type") in _LEAVING and not self._is_answered:
            # Whoever leaves after the answer was all there for it.
            self._request.go()
        return message

    async def send(self, message: Message) -> None:
        """Send *message*."""
        kind = message.get("type")
        if kind in _LAST and not message.get("more_body", False):
            self._is_answered = True
        try:
            await self._send(message)
        except OSError:
            # The specification's word for a client that has gone.
            self._request.go()
            raise


async def serve(
    application: Application,
    scope: Scope,
    receive: Receive,
    send: Send,
    around: Callable[[Request], AbstractContextManager[object]] | None = None,
) -> None:
    """Have *application* answer one request.

    Where it is served already, further out, only what is *around* is added.  A scope
    that is used again, after its request is over, is of a new one.

    Args:
        application: The application.
        scope: Of a request.
        receive: The server's.
        send: The server's.
        around: Returns what else is to be entered for the time.
    """
    request: Request | None = scope.get(KEY)
    if request is not None and not request.is_over:
        with _entered(around, request):
            await application(scope, receive, send)
        return
    request = Request()
    scope[KEY] = request
    exchange = Exchange(request, receive, send)
    with request:
        try:
            with _entered(around, request):
                await application(scope, exchange.receive, exchange.send)
        finally:
            request.over()
            if request.is_gone:
                safety.guarded("request.over", _close_left, request)


def _entered(
    around: Callable[[Request], AbstractContextManager[object]] | None,
    request: Request,
) -> AbstractContextManager[object]:
    return _NOTHING if around is None else around(request)


def _close_left(request: Request) -> None:
    """Have a task close what *request* has left behind."""
    loop = asyncio._get_running_loop()  # noqa: SLF001 - documented; None without a loop
    if loop is None or loop.is_closed():
        return  # another library's loop, or a coroutine that is only collected now
    concurrency = sys.modules.get("starlette.concurrency")
    step = getattr(getattr(concurrency, "_next", None), "__code__", None)
    if step is not None:
        STEPS.add(step)
    left = request.left()
    if left:
        task = loop.create_task(_close(loop, left), name="agenttrace: close streams")
        _closing.add(task)
        task.add_done_callback(_closing.discard)


async def _close(loop: asyncio.AbstractEventLoop, left: list[Opened]) -> None:
    for stream in left:
        try:
            await stream.close()
        except Exception as error:  # noqa: BLE001 - as a loop does with what it closes
            loop.call_exception_handler(
                {
                    "message": "an error occurred while a stream was closed whose "
                    "client had gone",
                    "exception": error,
                }
            )


_NOTHING: Final = nullcontext()
_closing: Final[set[asyncio.Task[None]]] = set()
_LEAVING: Final = frozenset({"http.disconnect", "websocket.disconnect"})
_LAST: Final = frozenset(
    {
        "http.response.body",
        "http.response.pathsend",
        "websocket.close",
        "websocket.http.response.body",
    }
)
