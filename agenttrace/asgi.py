"""A middleware for any ASGI application: FastAPI, Starlette, Django, Litestar, Quart.

    app.add_middleware(AgenttraceMiddleware)      # FastAPI, Starlette
    application = AgenttraceMiddleware(application)  # any other

It makes no span: frameworks and their instrumentations have a server span of their own.
It knows when the client of a request goes away, as far as the server tells.  Then

- what is cancelled because of that ends as `abandoned`, by `disconnect`;
- what the request opened and nobody reads any more is closed, with its upstream
  request, also where the framework keeps it in a reference cycle;
- who asked to be told is told (`context.request`): a streamed agent run is cancelled.

How that is done is `boundary.served`'s business.  This imports no framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agenttrace import tracing
from agenttrace.boundary.served import serve

if TYPE_CHECKING:
    from agenttrace.boundary.served import Application, Receive, Scope, Send

__all__ = ["AgenttraceMiddleware"]

_REQUESTS: Final = frozenset({"http", "websocket"})


class AgenttraceMiddleware:
    """Tells what is traced in a request that its client has gone.

    Messages and exceptions pass as they are.  Put it anywhere around the application;
    inside another one of its kind it does nothing.

    Args:
        app: The ASGI application.
    """

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass the lifespan on."""
        if scope["type"] not in _REQUESTS or tracing.installed is tracing.DISABLED:
            await self.app(scope, receive, send)
        else:
            await serve(self.app, scope, receive, send)
