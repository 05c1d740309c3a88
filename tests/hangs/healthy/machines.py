"""Machines that have no time, and clocks that are not to be relied on.

What a program does here is always the same, an agent whose tool tells its progress and
a stream of the loop's; what becomes of it is the machine's doing.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import agenttrace
from agenttrace.clock import COARSE
from tests.hangs.catalogue import LIMIT, STEP, healthy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator

_HOUR = 3_600
_STEPS = 6


async def _works(steps: int = _STEPS) -> None:
    """Be an agent with a tool in the loop, one in a thread, and a stream."""

    @agenttrace.tool
    async def crawl() -> None:
        for _ in range(steps):
            await asyncio.sleep(STEP)
            agenttrace.heartbeat()

    @agenttrace.tool
    def convert() -> None:
        for _ in range(steps):
            time.sleep(STEP)
            agenttrace.heartbeat()

    @agenttrace.agent
    async def tokens() -> AsyncIterator[int]:
        for number in range(steps):
            await asyncio.sleep(STEP)
            yield number

    async def reads() -> None:
        async for _ in tokens():
            pass

    @agenttrace.agent
    async def desk() -> None:
        await asyncio.gather(crawl(), asyncio.to_thread(convert), reads())

    await desk()


def _stop_for(seconds: float, after: float) -> subprocess.Popen[bytes]:
    """Have this process stopped by another one, and let it go on again."""
    program = (
        "import os, signal, sys, time\n"
        "_, pid, after, seconds = sys.argv\n"
        "time.sleep(float(after)); os.kill(int(pid), signal.SIGSTOP)\n"
        "time.sleep(float(seconds)); os.kill(int(pid), signal.SIGCONT)"
    )
    arguments = [str(os.getpid()), str(after), str(seconds)]
    return subprocess.Popen([sys.executable, "-S", "-c", program, *arguments])


@healthy(4)
async def process_that_was_stopped() -> None:
    """SIGSTOP, for longer than anything may be silent, and SIGCONT."""
    other = _stop_for(1.5 * LIMIT, after=STEP)
    await _works()
    other.wait()


@healthy(4)
async def process_that_is_stopped_again_and_again() -> None:
    """SIGSTOP and SIGCONT by turns, as in a container that is throttled."""
    program = (
        "import os, signal, sys, time\n"
        "pid = int(sys.argv[1])\n"
        "for _ in range(20):\n"
        "    time.sleep(0.1); os.kill(pid, signal.SIGSTOP)\n"
        "    time.sleep(0.3); os.kill(pid, signal.SIGCONT)"
    )
    arguments = [sys.executable, "-S", "-c", program, str(os.getpid())]
    other = subprocess.Popen(arguments)  # noqa: ASYNC220 - it has nothing to say
    await _works()
    await asyncio.sleep(LIMIT)
    await asyncio.to_thread(other.wait)


@healthy(2)
def thread_that_was_stopped() -> None:
    """The same to a plain tool, without any loop."""
    with _stop_for(1.5 * LIMIT, after=STEP), agenttrace.span("outer"):
        for _ in range(_STEPS):
            with agenttrace.span("inner"):
                time.sleep(STEP)


class _Clocks:
    """The clocks of a host that was suspended, or whose time was set.

    Python asks for the time by these names; what waits in the kernel does not notice,
    as it does not in a host that sleeps.
    """

    def __init__(self) -> None:
        self.wall = self.steady = 0.0
        for name in ("time", "time_ns", "monotonic", "monotonic_ns"):
            self._replace(name)
        # It has bound the real one, long ago.
        COARSE.read = time.time_ns

    def _replace(self, name: str) -> None:
        real: Any = getattr(time, name)
        unit = 1_000_000_000 if name.endswith("_ns") else 1
        offset = "wall" if name.startswith("time") else "steady"

        def now() -> Any:  # noqa: ANN401 - float or int
            return real() + type(real())(getattr(self, offset) * unit)

        setattr(time, name, now)


@healthy(4)
async def laptop_that_was_asleep() -> None:
    """An hour passes by the clock, and not by the one that nobody sets."""
    clocks = _Clocks()

    async def sleeps() -> None:
        await asyncio.sleep(1.5 * STEP)
        clocks.wall += _HOUR

    await asyncio.gather(sleeps(), _works())


@healthy(4)
async def laptop_that_was_asleep_by_all_clocks() -> None:
    """An hour passes by every clock, as on systems whose steady one goes on."""
    clocks = _Clocks()

    async def sleeps() -> None:
        await asyncio.sleep(1.5 * STEP)
        clocks.wall += _HOUR
        clocks.steady += _HOUR

    await asyncio.gather(sleeps(), _works())


@healthy(4)
async def clock_that_is_set() -> None:
    """The clock is set back by an hour, then on by two."""
    clocks = _Clocks()

    async def sets() -> None:
        await asyncio.sleep(1.5 * STEP)
        clocks.wall -= _HOUR
        await asyncio.sleep(2 * STEP)
        clocks.wall += 2 * _HOUR

    await asyncio.gather(sets(), _works())


class _Node:
    """A part of what an application keeps, and the collector has to look at."""

    __slots__ = ("other",)

    def __init__(self) -> None:
        self.other: _Node | None = None


def _heap(size: int) -> list[_Node]:
    """Return objects that lie far from those that they refer to."""
    gc.disable()
    nodes = [_Node() for _ in range(size)]
    random.shuffle(nodes)
    for one, other in pairwise(nodes):
        one.other = other
    gc.enable()
    return nodes


@healthy(4)
async def storms_of_the_garbage_collector() -> None:
    """Collections that take longer than a loop may be blocked, one after the other."""
    heap = _heap(1_200_000)

    async def collects() -> None:
        for _ in range(3):
            gc.collect()
            await asyncio.sleep(STEP)

    await asyncio.gather(collects(), _works())
    del heap


@contextlib.contextmanager
def _starved() -> Generator[None]:
    """Keep the machine busy with twice as many processes as it has cores."""
    # They end with whoever has started them, however that ends.
    program = "import os\np = os.getppid()\nwhile os.getppid() == p: sum(range(10_000))"
    busy = [
        subprocess.Popen([sys.executable, "-S", "-c", program])
        for _ in range(2 * (os.cpu_count() or 1))
    ]
    try:
        yield
    finally:
        for each in busy:
            each.send_signal(signal.SIGKILL)
            each.wait()


@healthy(4, is_alone=True)
async def starved_loop() -> None:
    """Twice as many busy processes as cores, beside a loop."""
    with _starved():
        await _works(4)


@healthy(21, is_alone=True)
def starved_threads() -> None:
    """Twice as many busy processes as cores, beside twenty threads."""

    def works() -> None:
        with agenttrace.span("work"):
            for _ in range(4):
                time.sleep(STEP)
                agenttrace.heartbeat()

    with _starved(), agenttrace.span("outer"):
        carried = agenttrace.carry(works)
        threads = [threading.Thread(target=carried) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
