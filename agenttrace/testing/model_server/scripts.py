"""What decides the answers: the type of a script, and the ready-made ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from agenttrace.testing.model_server.replies import Reply, text
from agenttrace.testing.model_server.requests import Request

Script: TypeAlias = Callable[[Request], Reply | Awaitable[Reply | None] | None]
"""Answers a request.  None stands for the ordinary answer: an echo, the stored
response, the list of models.  It runs on the server's loop: one that waits must be a
coroutine function."""


def echo(request: Request) -> Reply:
    """Say politely what the user said."""
    return text(f"You said: {request.text}" if request.text else "Hello!")


def in_turn(*replies: Reply) -> Script:
    """Give *replies* one after the other; the last one again and again.

    Only requests for an answer count: what is retrieved or listed is as usual.

    Raises:
        ValueError: There is none.
    """
    if not replies:
        message = "in_turn() needs at least one reply"
        raise ValueError(message)
    remaining = list(reversed(replies))

    def script(request: Request) -> Reply | None:
        if not request.wants_answer:
            return None
        return remaining.pop() if len(remaining) > 1 else remaining[0]

    return script
