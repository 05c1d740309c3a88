"""A busy worker that writes down the truth about its spans, until it is killed.

Threads, an event loop and streams; spans that return, fail, are cancelled, are left by
their readers, and are judged while their owners go on.  The order of event and line is
what `truth` relies on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import threading
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from opentelemetry import trace

import agenttrace
from agenttrace import crashpoints
from agenttrace.model import EndedBy, Ending, Outcome
from tests.crash import truth

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path

SERVICE: Final = "crash-soak"
_THREADS: Final = 2
_DWELL: Final = 0.1
"""How often a thread of ours stays a moment at an instant where it may be killed."""
_STAY: Final = 0.004
"""Seconds that it stays at most."""
_LONGEST_LIFE: Final = 60


class Aim(NamedTuple):
    """An instant at which the worker kills itself.

    Args:
        name: Of the crash point.
        times: At which pass of it.
    """

    name: str
    times: int


class Worker:
    """One life.

    Args:
        log: Where the truth is written, a line at a time.
        seed: Of all that is random in it.
    """

    def __init__(self, log: Path, seed: int) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._seed = seed
        self._runtime = agenttrace.configure(service_name=SERVICE)

    def live(self) -> None:
        """Work until the end, which comes from outside."""
        for number in range(_THREADS):
            threading.Thread(target=self._steps, args=(number,), daemon=True).start()
        asyncio.run(self._loop())

    def _steps(self, number: int) -> None:
        chance = random.Random(f"{self._seed} {number}")  # noqa: S311 - nothing secret
        while True:
            with agenttrace.span("run"):
                run = self._started("ok")
                self._step(chance)
                self._stream(chance)
                if chance.random() < 0.2:
                    self._hung(chance)
            self._ended(run)

    def _step(self, chance: random.Random) -> None:
        plan = chance.choice(("ok", "ok", "error"))
        step = ""
        try:
            with agenttrace.span("step", attributes={"size": chance.random()}):
                step = self._started(plan)
                time.sleep(chance.random() * 0.003)
                if plan == "error":
                    _fail()
        except ZeroDivisionError:
            pass
        self._ended(step)

    def _stream(self, chance: random.Random) -> None:
        is_read = chance.random() < 0.5
        ids: list[str] = []
        chunks = self._chunks(ids, "ok" if is_read else "abandoned")
        for _ in chunks:
            if not is_read:
                break
        chunks.close()
        self._ended(ids[0])

    @agenttrace.traced
    def _chunks(self, ids: list[str], plan: str) -> Generator[int]:
        ids.append(self._started(plan))
        yield from range(3)

    def _hung(self, chance: random.Random) -> None:
        with agenttrace.span("hung"):
            ids = self._started("ok")
            record = self._runtime.spans.find(
                trace.get_current_span().get_span_context().span_id.to_bytes(8, "big")
            )
            if record is not None:
                os.write(self._log, truth.judged(ids, "stuck"))
                self._runtime.spans.judge(
                    record, Ending(Outcome.STUCK, EndedBy.WATCHDOG, message="no sign")
                )
            time.sleep(chance.random() * 0.15)

    async def _loop(self) -> None:
        chance = random.Random(f"{self._seed} loop")  # noqa: S311 - nothing secret
        while True:
            ids: list[str] = []
            with agenttrace.span("request"):
                request = self._started("ok")
                task = asyncio.create_task(self._cancelled(ids))
                read = [item async for item in self._items(ids, chance)]
                task.cancel()
                await asyncio.wait([task])
            self._ended(request)
            for each in ids:
                self._ended(each)
            await asyncio.sleep(chance.random() * 0.002 * len(read))

    async def _cancelled(self, ids: list[str]) -> None:
        with agenttrace.span("cancelled"):
            ids.append(self._started("cancelled"))
            await asyncio.sleep(3600)

    @agenttrace.traced
    async def _items(
        self, ids: list[str], chance: random.Random
    ) -> AsyncGenerator[int]:
        ids.append(self._started("ok"))
        for item in range(3):
            yield item
            await asyncio.sleep(chance.random() * 0.001)

    def _started(self, plan: str) -> str:
        """Write down that the current span has started; return its ids."""
        span = trace.get_current_span()
        ids = span.get_span_context()
        # Of the SDK's shape, which the API does not tell.
        above: trace.SpanContext | None = getattr(span, "parent", None)
        named = f"{ids.trace_id:032x}{ids.span_id:016x}"
        parent = truth.NO_PARENT if above is None else f"{above.span_id:016x}"
        os.write(self._log, truth.started(named, parent, plan))
        return named

    def _ended(self, ids: str) -> None:
        os.write(self._log, truth.ended(ids))


def _fail() -> float:
    return 1 / 0


def live(log: Path, seed: int, aim: Aim | None) -> None:
    """Be a worker, in a process that was forked for it.  Does not return.

    Args:
        log: Where the truth is written.
        seed: Of all that is random.
        aim: Where it kills itself; None: it is killed from outside, and meanwhile
            stays a moment now and then at the instants that are hard to hit.
    """
    signal.alarm(_LONGEST_LIFE)  # if whoever is to kill it was killed
    logging.getLogger("agenttrace").setLevel(logging.ERROR)  # outages are its life
    chance = random.Random(f"{seed} hook")  # noqa: S311 - nothing secret
    passed = 0

    def hook(name: str) -> None:
        nonlocal passed
        if aim is None:
            if chance.random() < _DWELL:
                time.sleep(chance.random() * _STAY)
        elif name == aim.name:
            passed += 1
            if passed == aim.times:
                os.kill(os.getpid(), signal.SIGKILL)

    crashpoints.hook = hook
    Worker(log, seed).live()
