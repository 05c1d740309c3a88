"""Requests are gathered into fewer ones, but never at the expense of who waits."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from agenttrace.delivery.backlog import Backlog, Mark
from agenttrace.delivery.spool import MemorySpool
from tests.delivery.given import frame

if TYPE_CHECKING:
    from collections.abc import Iterator

FOR_EVER = 3600.0


@pytest.fixture
def backlog() -> Iterator[Backlog]:
    backlog = Backlog(MemorySpool(lanes=1, max_bytes=1_000_000))
    yield backlog
    backlog.stop()


def gathering(backlog: Backlog, enough: int) -> threading.Thread:
    """Return a lane's thread that gathers until there is *enough*."""
    thread = threading.Thread(target=backlog.gather, args=(FOR_EVER, enough))
    thread.start()
    return thread


def test_who_waits_for_delivery_is_not_kept_waiting(backlog: Backlog) -> None:
    """A flush at exit has seconds; a pause between requests must not take them."""
    lane = gathering(backlog, enough=1_000_000)
    backlog.append(frame())
    mark = Mark()
    backlog.reach(mark)

    flush = threading.Thread(target=backlog.wait_for, args=(mark, 30.0))
    flush.start()
    lane.join(30)

    assert not lane.is_alive()
    backlog.ack(0, 1, 0)
    flush.join()


def test_a_full_request_goes_at_once(backlog: Backlog) -> None:
    """A burst is sent as fast as the destination takes it."""
    lane = gathering(backlog, enough=10)

    backlog.append(frame())
    backlog.release()
    lane.join(30)

    assert not lane.is_alive()


def test_a_pause_ends_when_the_lanes_have_to_stop(backlog: Backlog) -> None:
    """Shutdown waits for every lane."""
    lane = gathering(backlog, enough=1_000_000)

    backlog.stop()
    lane.join(30)

    assert not lane.is_alive()
