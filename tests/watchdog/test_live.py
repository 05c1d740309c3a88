"""The ticker's own thread, real time, and processes as users run them."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest
from openai import AsyncOpenAI
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import agenttrace
from agenttrace.instrumentation.openai import requests
from agenttrace.registry import OpenSpan, Usual
from agenttrace.runtime.process import PROCESS
from agenttrace.testing.model_server import ModelServer, text
from agenttrace.testing.runtimes import FreshRuntime, fresh_runtime
from tests.core.programs import run
from tests.watchdog.given import until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan

SOON = 0.5
"""Seconds: a limit that passes while a test waits for it."""


def endings(spans: Sequence[ReadableSpan]) -> dict[str, str]:
    """Return the outcomes by name."""
    return {
        span.name: str((span.attributes or {})["agenttrace.outcome"]) for span in spans
    }


def is_told(fresh: FreshRuntime, name: str) -> bool:
    """Return whether a span of that name has been delivered."""
    return name in endings(fresh.exported())


def test_where_no_span_is_open_nothing_is_kept_of_those_that_were() -> None:
    """Records of thousands stayed until their limits would have passed."""

    def records() -> int:
        found: list[object] = gc.get_objects()
        return sum(type(each) is OpenSpan and each.name == "brief" for each in found)

    with fresh_runtime() as fresh:
        spans = fresh.runtime.spans
        with agenttrace.span("long"):
            for _ in range(3):
                with agenttrace.span("brief"):
                    seen = PROCESS.ticker.ticks
                    until(lambda: PROCESS.ticker.ticks > seen)  # noqa: B023 - called at once
        fresh.runtime.flush()
        until(lambda: not spans.awake)
        until(lambda: not records())


def test_a_tool_that_hangs_in_a_thread_is_delivered_as_stuck_while_it_hangs() -> None:
    """That is the point of it all."""
    go = threading.Event()

    @agenttrace.tool(heartbeat_timeout=SOON)
    def search() -> None:
        go.wait(60)

    with fresh_runtime() as fresh:
        thread = threading.Thread(target=search)
        thread.start()
        until(lambda: is_told(fresh, "execute_tool search"))
        while_it_hangs = endings(fresh.exported())
        go.set()
        thread.join()
        afterwards = endings(fresh.exported())

    assert while_it_hangs == {"execute_tool search": "stuck"}
    assert afterwards == {
        "execute_tool search": "stuck",
        "agenttrace.late_finish: execute_tool search": "ok",
    }


def test_a_generator_that_hangs_is_stuck_and_one_that_is_slow_is_not() -> None:
    """Items are progress, however long it takes altogether."""
    go = threading.Event()

    @agenttrace.agent(heartbeat_timeout=10)
    def slow() -> Any:  # noqa: ANN401 - a generator
        for _ in range(5):
            yield go.wait(0.3)

    @agenttrace.agent(heartbeat_timeout=SOON)
    def stuck() -> Any:  # noqa: ANN401 - a generator
        yield 1
        until(lambda: is_told(fresh, "invoke_agent stuck"))
        yield 2

    with fresh_runtime() as fresh:
        assert len(list(slow())) == 5
        assert list(stuck()) == [1, 2]
        told = endings(fresh.exported())

    assert told["invoke_agent slow"] == "ok"
    assert told["invoke_agent stuck"] == "stuck"
    assert told["agenttrace.late_finish: invoke_agent stuck"] == "ok"


def test_spans_of_other_libraries_are_judged_and_left_alone() -> None:
    """A plain SDK, a plain tracer: neither has heard of us, and both are watched."""
    provider = TracerProvider(shutdown_on_exit=False)
    sent = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(sent))
    tracer = provider.get_tracer("somebody else's")

    def names() -> list[str]:
        return [span.name for span in sent.get_finished_spans()]

    with (
        fresh_runtime(
            tracer_provider=provider,
            span_exporter=None,
            heartbeat_timeout={":GET": SOON},
        ),
        tracer.start_as_current_span("handler") as handler,
    ):
        with tracer.start_as_current_span("GET") as get:
            until(lambda: names() == ["GET"])
            goes_on = get.is_recording()
            get.set_attribute("http.response.status_code", 200)
        untouched = dict(handler.attributes or {})  # type: ignore[attr-defined]  # the SDK's

    judged, late, waited = sent.get_finished_spans()
    assert goes_on
    assert untouched == {}
    assert endings([judged, late, waited]) == {
        "GET": "stuck",
        "agenttrace.late_finish: GET": "ok",
        "handler": "ok",
    }
    assert (waited.attributes or {})["agenttrace.waiting_on"] == "GET"
    assert [event.name for event in judged.events] == ["agenttrace.hang"]
    assert "http.response.status_code" not in (judged.attributes or {})
    assert (late.attributes or {})["http.response.status_code"] == 200


def test_hooks_are_called_with_what_is_known() -> None:
    """A bell, a ticket, a restart: that is for the application to do."""
    reports: list[Any] = []
    with (
        fresh_runtime(stuck_hooks=[reports.append]),
        agenttrace.span("agent", heartbeat_timeout=math.inf),
        agenttrace.span("plan", heartbeat_timeout=SOON),
    ):
        until(lambda: reports)

    (report,) = reports
    assert (report.name, report.path) == ("plan", "agent / plan")
    assert report.rule == "silence"
    assert report.limit == SOON
    assert report.idle >= SOON


def test_nothing_is_judged_where_the_watchdog_is_off() -> None:
    """The ticker goes on, for all the others that need it."""
    with fresh_runtime(on_stuck="off", heartbeat_timeout=SOON) as fresh:
        with agenttrace.span("plan"):
            (record,) = agenttrace.open_spans()
            before = PROCESS.ticker.ticks
            until(lambda: PROCESS.ticker.ticks > before + 5)
            watched = getattr(record, "watched", None)
        told = endings(fresh.exported())

    assert (watched, told) == (None, {"plan": "ok"})


def test_limits_of_a_process_can_stand_in_its_environment() -> None:
    """Its code need not be changed."""
    ran = run(
        """
        import time, agenttrace
        runtime = agenttrace.configure()
        with agenttrace.span("plan"):
            deadline = time.monotonic() + 50
            while not runtime.status().counts["spans_stuck"]:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        """,
        AGENTTRACE_HEARTBEAT_TIMEOUT=":plan=0.5",
    )

    assert (ran.code, ran.err) == (0, "")
    spans = ran.spans()
    assert spans["plan"].attributes["agenttrace.outcome"] == "stuck"
    assert "agenttrace.late_finish: plan" in spans


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_has_a_watchdog_of_its_own() -> None:
    """What hangs in a worker is judged there; what its parent has open is not."""
    ran = run(
        """
        import os, time, agenttrace
        runtime = agenttrace.configure(heartbeat_timeout={":child": 0.5})

        def judged():
            return runtime.status().counts["spans_stuck"]

        with agenttrace.span("parent"):
            (record,) = agenttrace.open_spans()
            while getattr(record, "watched", None) is None:
                time.sleep(0.05)
            pid = os.fork()
            if not pid:
                with agenttrace.span("child"):
                    deadline = time.monotonic() + 50
                    while not judged() and time.monotonic() < deadline:
                        time.sleep(0.05)
                agenttrace.shutdown(20)
                os._exit(judged())
            _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), judged())
        """,
        PYTHONWARNINGS="ignore::DeprecationWarning",
    )

    assert (ran.out, ran.err) == ("1 0\n", "")
    spans = ran.spans()
    assert spans["child"].attributes["agenttrace.outcome"] == "stuck"
    assert spans["parent"].attributes["agenttrace.outcome"] == "ok"
    assert spans["parent"].attributes.get("agenttrace.waiting_on") is None


def test_a_process_without_an_open_span_has_not_loaded_the_watchdog() -> None:
    """The start is what every process pays for, and most never hang."""
    ran = run(
        """
        import sys, agenttrace
        agenttrace.configure()
        agenttrace.instrument()
        print(sorted(name for name in sys.modules if "agenttrace.watchdog." in name))
        """
    )

    assert (ran.out, ran.err) == ("['agenttrace.watchdog.ticker']\n", "")


def test_the_ticker_knows_how_late_it_was() -> None:
    """Its own lag is what its verdicts are worth."""
    with fresh_runtime(), agenttrace.span("plan"):
        before = PROCESS.ticker.ticks
        until(lambda: PROCESS.ticker.ticks > before + 2)

    assert 0 <= PROCESS.ticker.lag <= PROCESS.ticker.worst_lag


@pytest.mark.asyncio
async def test_a_stream_nobody_reads_is_not_stuck_like_one_that_is_awaited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is the model's silence that the short limit is for, not the reader's."""
    # A tick may look at the span before its first word, and again when that is due.
    monkeypatch.setattr(requests, "FIRST_WORD", Usual(10.0))
    monkeypatch.setattr(requests, "NEXT_WORD", Usual(SOON))
    agenttrace.instrument("openai")
    try:
        with (
            ModelServer(lambda _: text("one two three four", stall="mid")) as server,
            fresh_runtime() as fresh,
        ):
            client = AsyncOpenAI(base_url=server.base_url, api_key="unused")

            async def begun(model: str) -> Any:  # noqa: ANN401 - an AsyncStream
                stream = await client.responses.create(
                    model=model, input="x", stream=True
                )
                record = agenttrace.open_spans()[-1]
                while record.heartbeat_timeout != SOON:
                    await anext(stream)
                return stream

            unread = await begun("unread")
            awaited = await begun("awaited")
            reading = asyncio.create_task(_read(awaited))
            await asyncio.to_thread(until, lambda: is_told(fresh, "chat awaited"))
            told = endings(fresh.exported())
            reading.cancel()
            await asyncio.wait([reading])
            await unread.close()
            await client.close()
    finally:
        agenttrace.uninstrument()

    assert told == {"chat awaited": "stuck"}


async def _read(stream: Any) -> None:  # noqa: ANN401 - an AsyncStream
    async for _ in stream:
        pass
