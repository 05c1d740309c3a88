"""Things that really hang, in threads and loops of their own, and looks at them.

A test asks for the report again and again until it names what it should: how long a
hang takes to come about is the machine's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from agenttrace.runtime.process import PROCESS
from agenttrace.watchdog.report import HangReport, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    from agenttrace.registry import OpenSpan

PATIENCE: Final = 30.0
"""Seconds that a hang may take to come about, and to end."""
_PAUSE: Final = 0.01


def new_uvloop() -> asyncio.AbstractEventLoop:
    """Return a loop of uvloop; skips the test where that is not installed."""
    uvloop: Any = pytest.importorskip("uvloop")
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


LOOPS: Final = (
    pytest.param(asyncio.new_event_loop, id="asyncio"),
    pytest.param(new_uvloop, id="uvloop"),
)


class Running:
    """A loop in a thread of its own."""

    def __init__(self, factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self.loop = factory()
        self.error: BaseException | None = None


@contextmanager
def running(
    main: Callable[[], Coroutine[Any, Any, Any]],
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
    *releases: Callable[[], object],
) -> Generator[Running]:
    """Run `main()` on a loop of *factory* meanwhile, then cancel all that it started.

    Args:
        main: A coroutine function.
        factory: Makes the loop.
        releases: Called first at the end, for what cannot be cancelled.
    """
    run = Running(factory)

    def body() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: run.loop) as runner:
                runner.run(main())
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # noqa: BLE001 - told by the test's thread
            run.error = error

    def cancel_all() -> None:
        for task in asyncio.all_tasks():
            task.cancel()

    thread = threading.Thread(target=body, name="hanging-loop")
    thread.start()
    try:
        yield run
    finally:
        for release in releases:
            release()
        with contextlib.suppress(RuntimeError):  # it may be over already
            run.loop.call_soon_threadsafe(cancel_all)
        thread.join(PATIENCE)
    assert not thread.is_alive()
    if run.error is not None:
        raise run.error


def open_span(name: str) -> OpenSpan | None:
    """Return the open span that is called *name*, if there is one."""
    return next((span for span in PROCESS.spans if span.name == name), None)


def report_on(span: OpenSpan) -> HangReport:
    """Return the report on *span*, as a rule would ask for it."""
    return describe(span, idle=61.0, limit=60.0, rule="silence", now=time.time_ns())


def hang_of(
    name: str, cause: str, function: str, source: str | None = None
) -> HangReport:
    """Return the report on the span *name* once it blames *function* and *cause*.

    Args:
        name: The span's name.
        cause: The class of the cause.
        function: The last part of the name of the function to blame.
        source: The line in it, if it matters which.

    Raises:
        AssertionError: It never did; the message is what it said last.
    """
    deadline = time.monotonic() + PATIENCE
    last: HangReport | None = None
    while time.monotonic() < deadline:
        span = open_span(name)
        if span is not None:
            last = report_on(span)
            if last.cause == cause and blames(last, function, source):
                return last
        time.sleep(_PAUSE)
    told = "it was never open" if last is None else last.text()
    message = f"{name!r} does not hang in {function} ({cause}):\n{told}"
    raise AssertionError(message)


def blames(report: HangReport, function: str, source: str | None) -> bool:
    """Return whether *report* names a line of *function*, in a file of these tests."""
    where = report.where
    return (
        where is not None
        and where.function.rpartition(".")[2] == function
        and Path(where.file).parent == Path(__file__).parent
        and where.line > 0
        and source in {None, where.source}
    )
