"""What a report looks at is not kept alive by it, and not freed on its thread."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

import agenttrace
from tests.watchdog.hangs import PATIENCE, open_span, report_on, running

if TYPE_CHECKING:
    from agenttrace.registry import OpenSpan


class Held:
    """Notes on which thread it is freed."""

    def __init__(self, freed: list[int]) -> None:
        self.freed = freed

    def __del__(self) -> None:
        """Take note."""
        self.freed.append(threading.get_ident())


def is_waiting(thread: threading.Thread) -> bool:
    """Return whether the report on *thread* waits, to look once more."""
    frame = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001 - the documented way  # pyright: ignore[reportPrivateUsage]
    while frame is not None:
        if frame.f_code.co_name == "_lasts":
            return True
        frame = frame.f_back
    return False


def report_when(go: threading.Event, span: OpenSpan) -> None:
    """Make a report as soon as there is something to look at."""
    assert go.wait(PATIENCE)
    report_on(span)


def met(freed: list[int], reporter: threading.Thread, go: threading.Event) -> bool:
    """Return while a report waits, with something in a variable; False if it is over.

    What is held of this thread is a frame that was looked at before that.
    """
    held = Held(freed)
    deadline = time.monotonic() + PATIENCE
    go.set()
    while time.monotonic() < deadline and reporter.is_alive():
        if is_waiting(reporter):
            return True
    del held
    return False


@pytest.mark.usefixtures("traced")
def test_variables_are_freed_by_the_thread_whose_they_are() -> None:
    """What a finalizer does may need its own thread: a loop, a connection, a lock."""
    done = threading.Event()

    async def main() -> None:
        with agenttrace.span("blocks"):
            done.wait(PATIENCE)
            await asyncio.sleep(0)

    freed: list[int] = []
    with running(main, asyncio.new_event_loop, done.set):
        while (span := open_span("blocks")) is None:
            time.sleep(0.01)
        # A machine that is slow may let the wait end between two lines here.
        for _ in range(20):
            go = threading.Event()
            reporter = threading.Thread(target=report_when, args=(go, span))
            reporter.start()
            freed.clear()
            did_meet = met(freed, reporter, go)
            at_once = list(freed)
            reporter.join(PATIENCE)
            if did_meet and at_once == [threading.get_ident()]:
                break
        else:
            pytest.fail("what a report has looked at was never freed while it waited")
