"""A monitor of loops that looks when it is told to, and code that waits for it."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from agenttrace.runtime.process import PROCESS
from agenttrace.watchdog.loops import LoopMonitor

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    from agenttrace.model import SpanData

TIME_LIMIT = 60
ANY_TIME = 1e-6
NEVER_LATE = 1e9


class Gate:
    """A place where code on another thread stands still until it is let through."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._open = threading.Event()

    def pass_through(self) -> None:
        self._reached.set()
        assert self._open.wait(TIME_LIMIT)

    def reached(self) -> None:
        assert self._reached.wait(TIME_LIMIT)

    def open(self) -> None:
        self._open.set()


class Driven:
    """A monitor that looks when it is told to, and what it has told."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - those of the monitor
        self.told: list[SpanData] = []
        self.logged: list[str] = []
        given: dict[str, Any] = {
            "after": ANY_TIME,
            "interval": NEVER_LATE,
            "later": self._later,
            **options,
        }
        self.monitor = LoopMonitor(PROCESS.spans, self.told.append, **given)

    def _later(self, site: str, _: object) -> None:
        self.logged.append(site)

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            self.monitor.tick()
            # Whoever is in a callback has been there for longer the next time.
            time.sleep(0.001)


@contextmanager
def running(
    main: Callable[[], Coroutine[Any, Any, object]],
    new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
) -> Generator[None]:
    """Run *main* on a loop in another thread until it returns."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(main())
        except BaseException as error:  # noqa: BLE001 - raised by the test
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join(TIME_LIMIT)
    assert not thread.is_alive()
    assert not failed
