"""A loop that is really blocked is told of by the runtime, from end to end."""

from __future__ import annotations

import asyncio
import gc
import re
import signal
import subprocess
import sys
import threading
import time
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import agenttrace
from agenttrace import semconv
from agenttrace.errors import SettingError
from agenttrace.runtime.process import PROCESS
from agenttrace.testing.runtimes import FreshRuntime, fresh_runtime
from agenttrace.watchdog.pauses import Collections
from tests.watchdog.looking import TIME_LIMIT
from tests.watchdog.test_loops_seen import every_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

LIMIT = 0.25


def blocked(fresh: FreshRuntime) -> list[ReadableSpan]:
    """Return what was told of blocked loops."""
    fresh.runtime.shutdown()
    spans = fresh.exporter.get_finished_spans()
    return [span for span in spans if span.name == semconv.LOOP_BLOCKED]


def blamed_on(
    name: str, spans: Sequence[ReadableSpan], fresh: FreshRuntime
) -> list[ReadableSpan]:
    """Return what *spans* tell of blocks by a span of that name that has ended."""
    ids = {
        span.context.span_id
        for span in fresh.exporter.get_finished_spans()
        if span.context and span.name == name
    }
    return [
        span
        for span in spans
        if span.name == semconv.LOOP_BLOCKED
        and span.parent is not None
        and span.parent.span_id in ids
    ]


def until_ticks(number: int, meanwhile: Callable[[], object]) -> None:
    """Do *meanwhile* again and again while the ticker ticks so often."""
    enough = PROCESS.ticker.ticks + number
    deadline = time.monotonic() + TIME_LIMIT
    while PROCESS.ticker.ticks < enough:
        assert time.monotonic() < deadline
        meanwhile()


def sleeps() -> None:
    until_ticks(5, lambda: time.sleep(0.05))


def computes() -> None:
    until_ticks(5, lambda: sum(range(1_000)))


@every_loop
@pytest.mark.parametrize("block", [sleeps, computes])
def test_a_tool_that_blocks_its_loop_is_told_with_its_line(
    block: Callable[[], None], new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Every other run of the process stands still meanwhile, and this is why."""

    async def main() -> None:
        with agenttrace.span("run"):
            await asyncio.sleep(0)
            with agenttrace.span("tool"):
                block()
            await asyncio.sleep(0)

    with fresh_runtime(loop_blocked_after=LIMIT) as fresh:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(main())
        # A machine with much else to do may have kept the loop before or after, too.
        told, *_ = blamed_on("tool", blocked(fresh), fresh)

    values = told.attributes or {}
    assert values[semconv.CODE_FILE_PATH] == __file__
    assert f"in {block.__name__}" in str(values[semconv.CODE_STACKTRACE])
    assert told.start_time is not None
    assert told.end_time is not None
    assert told.end_time - told.start_time > 250_000_000


def catastrophe() -> tuple[str, str]:
    """Return a pattern and a text that take about a second together."""
    pattern, number = r"(a+)+$", 16
    while True:
        began = time.process_time()
        re.match(pattern, "a" * number + "b")
        if time.process_time() - began > 0.1:
            return pattern, "a" * (number + 3) + "b"  # each one more doubles it
        number += 1


@every_loop
def test_c_code_that_keeps_the_gil_is_told_with_the_line_that_called_it(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Nobody can look meanwhile; but it gives the GIL back in that very line."""
    pattern, text = catastrophe()

    def search() -> None:
        re.match(pattern, text)

    async def main() -> None:
        with agenttrace.span("run"):
            # Until it is seen: on a machine that is busy with something else, most of
            # the time is excused.
            for _ in range(20):
                await asyncio.sleep(0.5)
                with agenttrace.span("tool"):
                    search()
                await asyncio.sleep(0.5)
                if blamed_on("tool", fresh.exported(), fresh):
                    break

    with fresh_runtime(loop_blocked_after=LIMIT) as fresh:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(main())
        told, *_ = blamed_on("tool", blocked(fresh), fresh)

    values = told.attributes or {}
    assert str(values[semconv.CODE_FUNCTION_NAME]).endswith("search")


def test_the_collector_is_excused() -> None:
    """It stops every thread, and the callback that it comes in is not to blame."""
    heap = [[number] for number in range(200_000)]
    collections = Collections()
    collections.listen()
    began = time.monotonic()
    try:
        for _ in range(5):
            gc.collect()
    finally:
        took = time.monotonic() - began
        seconds = collections.seconds()
        collections.rest()

    gc.collect()
    assert len(heap) == 200_000
    assert 0 < seconds <= took
    assert collections.seconds() == seconds
    assert collections not in gc.callbacks


def test_a_storm_of_collections_is_no_block() -> None:
    """A second of the collector's, in one callback, is told apart from the tool's."""
    heap = [[number] for number in range(200_000)]

    def storm(seconds: float) -> None:
        collections = Collections()
        collections.listen()
        while collections.seconds() < seconds:
            gc.collect()
        collections.rest()

    async def main() -> None:
        with agenttrace.span("run"):
            await asyncio.sleep(0.5)  # the first tick sees the loop, and listens
            storm(3)
            await asyncio.sleep(0)

    with fresh_runtime(loop_blocked_after=2.5) as fresh:
        asyncio.run(main())
        told = blocked(fresh)

    assert told == []
    assert len(heap) == 200_000


def test_nothing_listens_to_the_collector_while_no_span_is_open() -> None:
    """It would cost every collection of the application for nothing."""
    before = list(gc.callbacks)

    async def main() -> None:
        with agenttrace.span("run"):
            while gc.callbacks == before:  # noqa: ASYNC110 - no event tells of it
                await asyncio.sleep(0.05)

    with fresh_runtime(loop_blocked_after=LIMIT):
        asyncio.run(asyncio.wait_for(main(), TIME_LIMIT))
        deadline = time.monotonic() + TIME_LIMIT
        while gc.callbacks != before:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_the_collector_is_listened_to_before_a_loop_of_uvloop_is_seen() -> None:
    """It is seen in the middle of a step alone, as in one that a collection keeps."""
    pytest.importorskip("uvloop")
    before = list(gc.callbacks)

    with fresh_runtime(loop_blocked_after=LIMIT), agenttrace.span("run"):
        deadline = time.monotonic() + TIME_LIMIT
        while gc.callbacks == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)


STOPPED = """
    import asyncio, sys, time
    import agenttrace
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
        InMemorySpanExporter,
    )

    exporter = InMemorySpanExporter()
    runtime = agenttrace.configure(span_exporter=exporter, loop_blocked_after=4)

    def tool():
        print("in it", flush=True)
        sys.stdin.readline()

    async def main():
        with agenttrace.span("run"):
            await asyncio.sleep(0.5)
            tool()
            await asyncio.sleep(0)

    asyncio.run(main())
    runtime.shutdown()
    print([span.name for span in exporter.get_finished_spans()], flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot stop a process")
def test_a_process_that_was_stopped_has_not_blocked_its_loop() -> None:
    """A suspended laptop, a frozen container: the tool took none of that time."""
    with subprocess.Popen(
        [sys.executable, "-c", dedent(STOPPED)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in it\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(8)  # how long it stands still is what this is about
        process.send_signal(signal.SIGCONT)
        said, _ = process.communicate("go on\n", TIME_LIMIT)

    assert said == "['run']\n"


def test_the_setting_switches_it_off() -> None:
    """Somebody may have a monitor already."""

    async def main() -> None:
        with agenttrace.span("run"):
            sleeps()
            await asyncio.sleep(0)

    with fresh_runtime(loop_blocked_after=float("inf")) as fresh:
        asyncio.run(main())

        assert blocked(fresh) == []


@pytest.mark.parametrize("value", [0, -1, float("nan"), "soon", True])
@pytest.mark.parametrize("setting", ["loop_blocked_after", "gil_dump_after"])
def test_a_limit_that_cannot_be_meant_is_refused(setting: str, value: object) -> None:
    """At once, by name, with what is allowed."""
    given: dict[str, Any] = {setting: value}

    with pytest.raises(SettingError, match=f"{setting}.*seconds above zero"):
        agenttrace.configure(**given)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_a_forked_child_has_a_monitor_of_its_own() -> None:
    """The parent's knows threads that the child has not."""
    ran = subprocess.run(
        [sys.executable, "-c", dedent(FORKED)],
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
        check=True,
    )

    assert ran.stdout == "True child\nTrue parent\n"


FORKED = """
    import asyncio, os, sys, time, warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    import agenttrace
    from agenttrace.runtime.process import PROCESS

    runtime = agenttrace.configure(loop_blocked_after=0.25)

    def block():
        enough = PROCESS.ticker.ticks + 5
        while PROCESS.ticker.ticks < enough:
            time.sleep(0.05)

    async def main():
        with agenttrace.span("run"):
            # Until it is seen: on a busy machine the host may be what held it up.
            for _ in range(8):
                block()
                await asyncio.sleep(0.1)
                if runtime.status().counts["loops_blocked"]:
                    break

    async def idle():
        with agenttrace.span("idle"):
            await asyncio.sleep(0.5)

    asyncio.run(idle())
    pid = os.fork()
    asyncio.run(main()) if not pid else os.waitpid(pid, 0)
    if pid:
        asyncio.run(main())
    runtime.shutdown()
    who = "parent" if pid else "child"
    print(runtime.status().counts["loops_blocked"] > 0, who, flush=True)
"""


def test_a_loop_in_another_thread_is_seen_as_well() -> None:
    """Servers and notebooks run theirs beside the main thread."""
    done = threading.Event()

    async def main() -> None:
        with agenttrace.span("tool"):
            sleeps()
            await asyncio.sleep(0)
        done.set()

    with fresh_runtime(loop_blocked_after=LIMIT) as fresh:
        thread = threading.Thread(target=asyncio.run, args=(main(),))
        thread.start()
        assert done.wait(TIME_LIMIT)
        thread.join(TIME_LIMIT)
        [told] = blocked(fresh)

    assert (told.attributes or {})[semconv.CODE_FILE_PATH] == __file__


def test_a_blocked_loop_is_told_through_the_processors_of_another_provider() -> None:
    """They are the only way out there is, for their own spans' blocks as well."""
    provider = TracerProvider(shutdown_on_exit=False)
    sent = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(sent))
    tracer = provider.get_tracer("somebody else's")

    async def main() -> None:
        with tracer.start_as_current_span("handler"), agenttrace.span("step"):
            await asyncio.sleep(0)
            with tracer.start_as_current_span("tool"):
                sleeps()
            await asyncio.sleep(0)

    with fresh_runtime(
        tracer_provider=provider, span_exporter=None, loop_blocked_after=LIMIT
    ) as fresh:
        asyncio.run(main())
        fresh.runtime.shutdown()

    spans = {span.name: span for span in sent.get_finished_spans()}
    told, tool = spans[semconv.LOOP_BLOCKED], spans["tool"]
    assert told.parent is not None
    assert tool.context is not None
    assert told.parent.span_id == tool.context.span_id
    assert told.context is not None
    assert told.context.trace_id == tool.context.trace_id
    assert told.resource.attributes == tool.resource.attributes
    assert "in sleeps" in str((told.attributes or {})[semconv.CODE_STACKTRACE])
