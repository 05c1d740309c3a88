"""Programs in which loops run within loops, each for a process of its own.

What makes that possible patches asyncio for good.  A program prints one JSON object.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import agenttrace
from agenttrace.noticed import noticed
from agenttrace.runtime.process import PROCESS
from agenttrace.testing import capture_spans
from agenttrace.testing.runtimes import fresh_runtime
from agenttrace.watchdog.report import describe
from tests.watchdog.looking import Driven, Gate, running

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine

    from agenttrace.testing import CapturedSpans
    from agenttrace.watchdog.report import HangReport

PATIENCE = 60


def nested(coroutine: Coroutine[Any, Any, object]) -> object:
    """Run *coroutine* in the loop that runs already."""
    return asyncio.get_running_loop().run_until_complete(coroutine)


async def step(name: str) -> str:
    with agenttrace.span(name):
        await asyncio.sleep(0.01)
    return name


@agenttrace.tool
def ask(name: str) -> object:
    """Be a tool that is not asynchronous, and needs what is."""
    return nested(step(name))


@agenttrace.agent
async def handler(number: int) -> object:
    return ask(f"step {number}")


@agenttrace.agent
async def streamed() -> AsyncGenerator[int]:
    for number in range(2):
        asyncio.run(step(f"streamed {number}"))
        yield number


@agenttrace.tool
def failing() -> None:
    async def fails() -> None:
        with agenttrace.span("fails"):
            await asyncio.sleep(0)
            raise LookupError

    asyncio.run(fails())


async def cancelled_within() -> str:
    """Cancel what runs in a nested loop: whoever began that goes on."""

    async def waits() -> None:
        with agenttrace.span("waits"):
            await asyncio.Event().wait()

    task = asyncio.ensure_future(waits())
    asyncio.get_running_loop().call_later(0.05, task.cancel)
    with agenttrace.span("canceller"):
        try:
            nested(task)  # type: ignore[arg-type]  # a task does as well
        except asyncio.CancelledError:
            return "cancelled"
    return "went on"


def trees(library: str) -> None:
    """Print the tree of runs that nest, and what became of them."""
    nest: Any = importlib.import_module(library)
    nest.apply()
    said: dict[str, object] = {}

    async def main() -> None:
        with agenttrace.span("root"):
            said["answers"] = await asyncio.gather(*map(handler, range(3)))
            said["items"] = [item async for item in streamed()]
            try:
                failing()
            except LookupError as error:
                said["raised"] = type(error).__name__
            said["inner"] = await cancelled_within()

    with capture_spans() as spans:
        asyncio.run(main())
        spans.assert_all_closed()
    said["tree"] = spans.tree()
    print(json.dumps(said))  # noqa: T201 - what the test reads


def watched(library: str) -> None:
    """Print what the loop monitor and an investigation make of nested loops."""
    nest: Any = importlib.import_module(library)
    said: dict[str, object] = {}
    outer_works, inner_works = Gate(), Gate()
    released = asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def turns() -> None:
        loops.append(asyncio.get_running_loop())
        await released.wait()

    async def blocks() -> None:
        with agenttrace.span("culprit"):
            inner_works.pass_through()

    async def main() -> None:
        with agenttrace.span("outer"):
            nested(turns())
            outer_works.pass_through()
        with agenttrace.span("around"):
            nested(blocks())

    # A loop of its own: without one, from 3.12 on the second library leaves alone those
    # that `asyncio.run` has not made.
    loop = asyncio.new_event_loop()
    nest.apply(loop)
    loop.close()
    with fresh_runtime(), capture_spans() as spans:
        driven = Driven()
        with running(main):
            _until_it_waits(loops)
            driven.look(3)
            loops[0].call_soon_threadsafe(released.set)
            outer_works.reached()
            driven.look()
            outer_works.open()
            inner_works.reached()
            # What has begun before this look is over: it was found once, and may
            # have begun but a moment before that.
            driven.look(2)
            inner_works.open()
        driven.monitor.stop()
        said["blamed"] = [_name_of(spans, told.parent_id) for told in driven.told]
        outer = spans.span("outer")
        said["nested"] = outer.attributes["agenttrace.event_loop.nested"]
        said["noticed"] = [(each.kind, each.span) for each in noticed()]
        said |= _waits()
    print(json.dumps(said))  # noqa: T201 - what the test reads


def _until_it_waits(loops: list[asyncio.AbstractEventLoop]) -> None:
    """Wait until the loop has nothing to do."""
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        tops = [frame.f_code.co_name for frame in sys._current_frames().values()]  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # documented
        if loops and "select" in tops:
            return
        time.sleep(0.01)
    raise TimeoutError


def _name_of(spans: CapturedSpans, span_id: bytes) -> str:
    [name] = [span.name for span in spans if span.span_id == span_id.hex()]
    return name


def _waits() -> dict[str, object]:
    """Return why two handlers wait, of which the later one keeps the earlier one."""
    entered = threading.Semaphore(0)
    is_done: list[asyncio.Event] = []
    released: list[asyncio.Event] = []

    async def first() -> None:
        is_done.append(asyncio.Event())
        await asyncio.sleep(0)
        is_done[0].set()

    async def second() -> None:
        released.append(asyncio.Event())
        await is_done[0].wait()
        entered.release()
        await released[0].wait()

    async def handles(name: str, work: Any) -> None:  # noqa: ANN401 - a coroutine function
        with agenttrace.span(name):
            nested(work())

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        await asyncio.gather(handles("early", first), handles("late", second))

    loops: list[asyncio.AbstractEventLoop] = []
    found: dict[str, HangReport] = {}
    with running(main):
        assert entered.acquire(timeout=PATIENCE)
        for span in PROCESS.spans.snapshot():
            found[span.name] = describe(span, idle=1, limit=1, rule="idle", now=0)
        loops[0].call_soon_threadsafe(released[0].set)
    return {name: [each.cause, each.why] for name, each in found.items()}
