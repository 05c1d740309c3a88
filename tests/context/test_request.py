"""Who asks is told, once, that the client of its request has gone."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING

import agenttrace
from agenttrace import safety
from agenttrace.context.request import Request, current_request

if TYPE_CHECKING:
    import pytest


def test_everybody_who_asked_is_told_once_and_in_order() -> None:
    """A run is cancelled by it; cancelling it again would cut its clean-up short."""
    told: list[str] = []
    request = Request()
    request.on_gone(lambda: told.append("first"))
    request.on_gone(lambda: told.append("second"))

    request.go()
    request.go()

    assert told == ["first", "second"]


def test_who_asks_when_the_client_has_gone_is_told_at_once() -> None:
    """A run that starts too late is for nobody either."""
    told: list[str] = []
    request = Request()
    request.go()

    forget = request.on_gone(lambda: told.append("late"))
    forget()

    assert told == ["late"]


def test_what_is_taken_back_is_not_told() -> None:
    """A run that is over must not be held, or cancelled, by its request."""
    told: list[int] = []

    def listener() -> None:
        told.append(1)

    request = Request()
    request.on_gone(listener)
    forget = request.on_gone(listener)

    forget()
    forget()
    request.go()

    assert told == [1]


def test_nobody_is_told_when_the_request_is_over() -> None:
    """Servers say `disconnect` to everybody who listens after the answer."""
    told: list[str] = []
    request = Request()
    request.on_gone(lambda: told.append("before"))

    request.over()
    request.on_gone(lambda: told.append("after"))
    request.go()

    assert told == []
    assert not request.is_gone


def test_nobody_is_told_after_a_request_whose_client_went() -> None:
    """What starts then is to outlive it, and is none of its client's business."""
    told: list[str] = []
    request = Request()
    request.go()
    request.over()

    request.on_gone(lambda: told.append("after"))

    assert told == []


def test_one_that_fails_does_not_keep_the_others_from_hearing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server is telling it: nothing may be raised to there."""
    monkeypatch.delenv(safety.STRICT_VARIABLE)
    told: list[str] = []
    request = Request()

    def fails() -> None:
        raise ValueError

    request.on_gone(fails)
    request.on_gone(lambda: told.append("the other"))
    request.go()

    assert told == ["the other"]
    assert safety.guard_hits().get("request.gone") == 1
    safety.reset_for_tests()


def test_a_request_is_current_inside_and_where_that_is_inherited() -> None:
    """What an endpoint starts finds it; what comes afterwards does not."""
    with Request() as request:
        inherited = contextvars.copy_context()
        assert current_request() is request

    assert current_request() is None
    assert inherited.run(current_request) is request


def test_work_in_the_background_is_for_no_client() -> None:
    """It is a run of its own, and goes on when the client of its starter leaves."""

    async def look() -> Request | None:
        await asyncio.sleep(0)
        return current_request()

    async def main() -> Request | None:
        with Request():
            return await agenttrace.background(look(), name="look")

    assert asyncio.run(main()) is None
