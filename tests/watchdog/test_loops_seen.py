"""A loop that is looked at by hand: which callback blocks it, and which does not."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVarTuple

import pytest

import agenttrace
from agenttrace import semconv
from agenttrace.registry import OpenSpans
from agenttrace.runtime.process import PROCESS
from agenttrace.testing.runtimes import fresh_runtime
from agenttrace.watchdog.loops import LoopMonitor
from agenttrace.watchdog.watched import blamed
from tests.watchdog import looking
from tests.watchdog.looking import (
    ANY_TIME,
    NEVER_LATE,
    TIME_LIMIT,
    Driven,
    Gate,
    running,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextvars import Context

    from agenttrace.model import SpanData

Ts = TypeVarTuple("Ts")


def loops() -> list[Any]:
    """Return what makes loops here, each as a parameter."""
    found: list[Any] = [pytest.param(asyncio.new_event_loop, id="asyncio")]
    try:
        import uvloop  # noqa: PLC0415 - not on Windows
    except ImportError:
        return found
    return [*found, pytest.param(uvloop.new_event_loop, id="uvloop")]


every_loop = pytest.mark.parametrize("new_loop", loops())


@pytest.fixture
def driven() -> Generator[Driven]:
    """Return a monitor, beside a runtime that has none of its own."""
    with fresh_runtime():
        made = Driven()
        yield made
        made.monitor.stop()


@every_loop
def test_a_callback_that_is_found_again_blocks_its_loop(
    driven: Driven, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """It is told with the span that is current in it, and with the line."""
    gate, over = Gate(), Gate()
    ids: list[int] = []

    async def tool() -> None:
        with agenttrace.span("tool") as span:
            ids.append(span.get_span_context().span_id)
            gate.pass_through()
            await asyncio.sleep(0)
        over.pass_through()

    async def main() -> None:
        with agenttrace.span("run"):
            await asyncio.gather(tool())

    with running(main, new_loop):
        gate.reached()
        driven.look(3)
        assert driven.told == []
        gate.open()
        over.reached()
        driven.look()
        over.open()

    [told] = driven.told
    assert told.name == "agenttrace.event_loop.blocked"
    assert int.from_bytes(told.parent_id, "big") == ids[0]
    assert told.start_time < told.end_time <= time.time_ns()
    assert told.attributes[semconv.CODE_FILE_PATH] == looking.__file__
    assert str(told.attributes[semconv.CODE_FUNCTION_NAME]).endswith(
        "Gate.pass_through"
    )
    assert "in test_a_callback_that" in str(told.attributes[semconv.CODE_STACKTRACE])
    assert "_run_once" not in str(told.attributes[semconv.CODE_STACKTRACE])


@every_loop
def test_a_loop_that_is_busy_with_many_callbacks_is_not_blocked(
    driven: Driven, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Whenever one looks, it is in the same line, but of another callback."""
    gates = [Gate() for _ in range(6)]

    async def other() -> None:
        # Comes first in every turn: the one after it is not known to have begun with
        # the turn.
        while True:  # noqa: ASYNC110 - it is busy, and waits for nothing
            await asyncio.sleep(0)

    async def main() -> None:
        first = asyncio.ensure_future(other())
        await asyncio.sleep(0)
        with agenttrace.span("busy"):
            for gate in gates:
                gate.pass_through()
                await asyncio.sleep(0)
        first.cancel()

    with running(main, new_loop):
        for gate in gates:
            gate.reached()
            driven.look()
            gate.open()
    driven.monitor.rest()

    assert driven.told == []


class Counting(asyncio.SelectorEventLoop):
    """Counts what other threads send it."""

    sent = 0

    def call_soon_threadsafe(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        self.sent += 1
        return super().call_soon_threadsafe(callback, *args, context=context)


def test_only_a_loop_that_is_blocked_is_sent_something(driven: Driven) -> None:
    """An idle one would be woken by it, and turn once more than without us."""
    made: list[Counting] = []
    idle, gate = threading.Event(), Gate()
    released: list[asyncio.Future[None]] = []

    def new_loop() -> asyncio.AbstractEventLoop:
        made.append(Counting())
        return made[0]

    async def main() -> None:
        with agenttrace.span("run"):
            future = asyncio.get_running_loop().create_future()
            released.append(future)
            asyncio.get_running_loop().call_later(0.05, idle.set)
            await future
            gate.pass_through()

    with running(main, new_loop):
        assert idle.wait(TIME_LIMIT)
        driven.look(5)
        while_idle = made[0].sent
        made[0].call_soon_threadsafe(released[0].set_result, None)
        gate.reached()
        driven.look(5)
        gate.open()

    assert while_idle == 0
    assert made[0].sent == 2  # ours, and the one that released it


def test_a_callback_without_a_task_is_told_by_its_own_context(driven: Driven) -> None:
    """`call_soon` keeps the context of whoever asked for it."""
    gate = Gate()
    ids: list[int] = []

    async def main() -> None:
        with agenttrace.span("asks") as span:
            ids.append(span.get_span_context().span_id)
            asyncio.get_running_loop().call_soon(gate.pass_through)
        with agenttrace.span("waits"):
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    with running(main):
        gate.reached()
        driven.look(2)
        gate.open()
    driven.monitor.rest()

    [told] = driven.told
    assert int.from_bytes(told.parent_id, "big") == ids[0]


def test_what_blocks_outside_of_every_span_names_those_that_wait(
    driven: Driven,
) -> None:
    """It is nobody's step, but somebody's run is kept waiting."""
    gate = Gate()

    async def main() -> None:
        asyncio.get_running_loop().call_later(0.01, gate.pass_through)
        with agenttrace.span("waits"):
            await asyncio.sleep(0.1)

    with running(main):
        gate.reached()
        driven.look(2)
        [waits] = PROCESS.spans.snapshot()
        gate.open()
    driven.monitor.rest()

    [told] = driven.told
    assert told.parent_id == b""
    assert [link.span_id for link in told.links] == [waits.span_id]


def test_a_block_that_nobody_waits_for_is_not_told(driven: Driven) -> None:
    """Without an open span on that loop it is none of our business."""
    gate = Gate()

    async def main() -> None:
        gate.pass_through()

    with running(main), agenttrace.span("elsewhere"):
        gate.reached()
        driven.look(3)
        gate.open()
    driven.monitor.rest()

    assert driven.told == []


def test_a_block_of_an_unsampled_run_is_not_told(driven: Driven) -> None:
    """Its parent would be missing, and the sampler was asked for a reason."""
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF  # noqa: PLC0415 - only here

    gate = Gate()

    async def main() -> None:
        with agenttrace.span("unsampled"):
            gate.pass_through()

    with (
        fresh_runtime(sampler=ALWAYS_OFF),
        running(main),
    ):
        gate.reached()
        driven.look(3)
        gate.open()
    driven.monitor.rest()

    assert driven.told == []


def test_a_block_that_goes_on_is_told_in_parts() -> None:
    """A loop that is blocked for good must be seen while it is."""
    gate, over = Gate(), Gate()

    async def main() -> None:
        with agenttrace.span("run"):
            gate.pass_through()
            await asyncio.sleep(0)
            over.pass_through()

    with fresh_runtime():
        driven = Driven(long=ANY_TIME)
        with running(main):
            gate.reached()
            driven.look(3)
            first = driven.told[0]
            gate.open()
            over.reached()
            driven.look()
            over.open()

    assert set(driven.logged) == {"noticed"}  # by others: a handler may hang
    assert first.attributes[semconv.LOOP_GOES_ON] is True
    assert semconv.LOOP_GOES_ON not in driven.told[-1].attributes
    for earlier, later in zip(driven.told, driven.told[1:], strict=False):
        assert abs(later.start_time - earlier.end_time) < 1_000_000_000


@pytest.mark.skipif(sys.version_info < (3, 12), reason="3.12 has eager tasks")
def test_an_eager_task_that_blocks_is_blamed_itself(driven: Driven) -> None:
    """It runs inside of the step of another task, which is not to blame."""
    gate = Gate()
    ids: list[int] = []

    async def child() -> None:
        with agenttrace.span("child") as span:
            ids.append(span.get_span_context().span_id)
            gate.pass_through()

    async def main() -> None:
        factory: Any = getattr(asyncio, "eager_task_factory", None)
        asyncio.get_running_loop().set_task_factory(factory)
        with agenttrace.span("parent"):
            await asyncio.create_task(child())

    with running(main):
        gate.reached()
        driven.look(2)
        gate.open()
    driven.monitor.rest()

    [told] = driven.told
    assert int.from_bytes(told.parent_id, "big") == ids[0]


def test_a_span_is_blamed_only_if_it_has_been_open_for_so_long() -> None:
    """Not the last of many short ones, and none for what was before it."""
    with fresh_runtime(), agenttrace.span("outer") as outer:
        [record] = PROCESS.spans.snapshot()
        with agenttrace.span("inner") as inner:
            inner_record = PROCESS.spans.snapshot()[1]
            as_inner = blamed(inner, inner_record.started_at)
            as_outer = blamed(
                inner, max(record.started_at, inner_record.started_at - 1)
            )
            as_nobody = blamed(inner, record.started_at - 1)

    assert as_inner == (inner.get_span_context(), inner_record.started_at, "inner")
    assert as_outer == (outer.get_span_context(), record.started_at, "outer")
    assert as_nobody is None


def test_a_flood_of_blocks_is_cut(driven: Driven) -> None:
    """Thirty a minute tell enough."""
    gates = [Gate() for _ in range(33)]

    async def main() -> None:
        with agenttrace.span("run"):
            for gate in gates:
                gate.pass_through()
                await asyncio.sleep(0)

    with running(main):
        for gate in gates:
            gate.reached()
            driven.look(2)
            gate.open()
    driven.monitor.rest()

    assert len(driven.told) == 30


def test_without_loops_there_is_nothing_to_tell() -> None:
    """Threads that wait are not loops, whatever they wait for."""
    told: list[SpanData] = []
    monitor = LoopMonitor(OpenSpans(), told.append, after=ANY_TIME, interval=NEVER_LATE)
    gate = Gate()
    thread = threading.Thread(target=gate.pass_through)
    thread.start()
    gate.reached()

    monitor.tick()
    monitor.tick()
    gate.open()
    thread.join(TIME_LIMIT)
    monitor.stop()

    assert told == []


class Pump:
    """The application's, and no event loop."""

    def _run_once(self, gate: Gate) -> None:
        gate.pass_through()


def test_a_function_that_is_called_like_a_turn_hides_no_block(driven: Driven) -> None:
    """Names are the application's to choose."""
    gate, over = Gate(), Gate()

    async def main() -> None:
        with agenttrace.span("tool"):
            Pump()._run_once(gate)  # noqa: SLF001 - that is what it is called  # pyright: ignore[reportPrivateUsage]
        await asyncio.sleep(0)
        over.pass_through()

    with running(main):
        gate.reached()
        driven.look(3)
        gate.open()
        over.reached()
        driven.look()
        over.open()

    (told,) = driven.told
    assert "Pump._run_once" in str(told.attributes[semconv.CODE_STACKTRACE])


@every_loop
def test_a_look_that_is_late_because_of_ours_blames_nobody(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """A hang report may take half a second, in which a busy loop does its work."""
    over = threading.Event()
    occupied = [0.0]

    async def main() -> None:
        with agenttrace.span("busy"):
            while not over.is_set():  # noqa: ASYNC110 - it is to be at work
                await asyncio.sleep(0)

    with fresh_runtime(), running(main, new_loop):
        try:
            driven = Driven(after=0.2, interval=0.0, occupied=lambda: occupied[0])
            driven.look()
            for _ in range(4):
                began = time.monotonic()
                time.sleep(0.4)  # longer where there is no processor to wake up on
                occupied[0] += time.monotonic() - began
                driven.look(2)
            driven.monitor.stop()
        finally:
            over.set()

    assert driven.told == []


@every_loop
def test_what_began_before_a_look_that_was_late_because_of_ours_began_just_before(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Nobody has seen since when, and two looks that come soon are no proof."""
    begin, gate, over = threading.Event(), Gate(), Gate()
    occupied = [0.0]

    async def main() -> None:
        with agenttrace.span("short"):
            while not begin.is_set():  # noqa: ASYNC110 - it is to be at work
                await asyncio.sleep(0)
            gate.pass_through()
        await asyncio.sleep(0)
        over.pass_through()

    with fresh_runtime(), running(main, new_loop):
        driven = Driven(after=0.2, interval=0.01, occupied=lambda: occupied[0])
        driven.look()
        began = time.monotonic()
        time.sleep(0.6)  # it is this time itself that must not be taken for a block
        begin.set()
        gate.reached()
        occupied[0] += time.monotonic() - began
        driven.look(2)
        gate.open()
        over.reached()
        driven.look()
        over.open()
        driven.monitor.stop()

    assert driven.told == []
