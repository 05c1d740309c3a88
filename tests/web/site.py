"""A Django project of one file, for ASGI and for WSGI.

Settings are the process's: it is configured once, with the middleware and without the
app, whose business it would be to configure agenttrace.
"""

# Django brings no types: this file is checked as far as that goes.
# pyright: basic

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Final

import django
from asgiref.sync import async_to_sync, sync_to_async
from django.conf import settings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        DEBUG=False,
        LOGGING_CONFIG=None,
        MIDDLEWARE=["agenttrace.django.middleware.AgenttraceMiddleware"],
        ROOT_URLCONF=__name__,
        SECRET_KEY="only on loopback",  # noqa: S106 - it keeps no secret
    )
    django.setup()

from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path
from django.views import View

import agenttrace

OVER: Final = threading.Event()
"""Set when what was left has been cleaned up."""
GO_ON: Final = threading.Event()
"""What views wait for."""
PATIENCE: Final = 20
"""Seconds."""


@agenttrace.tool
def search() -> str:
    """Be a plain step."""
    return "page"


@agenttrace.agent
async def triage() -> str:
    """Be a run with a plain step in a thread."""
    return await sync_to_async(search)()


@agenttrace.agent
async def waits() -> str:
    """Be a run that waits for ever."""
    try:
        await asyncio.Event().wait()
    finally:
        OVER.set()
    return "never"


@agenttrace.agent
async def streams() -> AsyncGenerator[bytes]:
    """Be a streamed run that says a word and waits for ever."""
    try:
        yield b"first\n"
        await asyncio.Event().wait()
    finally:
        OVER.set()


@agenttrace.agent
def counts() -> Generator[bytes]:
    """Be a streamed run that is pulled by a thread."""
    try:
        yield b"first\n"
        GO_ON.wait(PATIENCE)
        for _ in range(200):
            yield b"x" * 100_000
    finally:
        OVER.set()


@agenttrace.agent
def three() -> Generator[bytes]:
    """Be a short streamed run."""
    for number in range(3):
        yield b"%d\n" % number


@agenttrace.tool(heartbeat_timeout=0.5)
def hangs() -> None:
    """Be a step that makes no progress."""
    GO_ON.wait(PATIENCE)


def plain(_: Any) -> HttpResponse:  # noqa: ANN401 - Django has no types
    """Be a plain view with an asynchronous run."""
    with agenttrace.span("in the view"):
        return HttpResponse(async_to_sync(triage)().encode() + b"\n")


async def asynchronous(_: Any) -> HttpResponse:  # noqa: ANN401 - Django has no types
    """Be an asynchronous view with a plain step in a thread."""
    with agenttrace.span("in the view"):
        return HttpResponse((await triage()).encode() + b"\n")


class Asked(View):  # type: ignore[misc]  # see above
    """Be a view of a class."""

    def get(self, _: Any, number: int) -> HttpResponse:  # noqa: ANN401 - Django has no types
        """Answer."""
        with agenttrace.span(f"asked {number}"):
            return HttpResponse(b"answer\n")


async def waiting(_: Any) -> HttpResponse:  # noqa: ANN401 - Django has no types
    """Wait for ever."""
    return HttpResponse((await waits()).encode())


def stuck(_: Any) -> HttpResponse:  # noqa: ANN401 - Django has no types
    """Hang in a step."""
    hangs()
    return HttpResponse(b"at last\n")


async def streaming(_: Any) -> StreamingHttpResponse:  # noqa: ANN401 - Django has no types
    """Stream from an asynchronous generator."""
    return StreamingHttpResponse(streams())


def counting(_: Any) -> StreamingHttpResponse:  # noqa: ANN401 - Django has no types
    """Stream from a plain generator."""
    return StreamingHttpResponse(counts())


def counted(_: Any) -> StreamingHttpResponse:  # noqa: ANN401 - Django has no types
    """Stream from a plain generator that starts its run when it is read."""

    def content() -> Generator[bytes]:
        yield from three()

    return StreamingHttpResponse(content())


urlpatterns = [
    path("plain", plain),
    path("asynchronous", asynchronous),
    path("asked/<int:number>", Asked.as_view()),
    path("waiting", waiting),
    path("stuck", stuck),
    path("streaming", streaming),
    path("counting", counting),
    path("counted", counted),
]
