"""A span that is left open is told with where it was started, and what ends it."""

from __future__ import annotations

import asyncio
import gc
import re
import threading
from concurrent.futures import Future
from contextlib import ExitStack, aclosing, closing
from pathlib import Path
from typing import TYPE_CHECKING

import agents
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

import agenttrace
from agenttrace.runtime.process import PROCESS
from agenttrace.testing import capture_spans, fresh_runtime, leaks
from agenttrace.testing.origins import Origins, Shape
from tests.testing.given import expected, triage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from agenttrace.registry import OpenSpan
    from agenttrace.testing import CapturedSpans


@agenttrace.agent
async def attend(question: str) -> AsyncGenerator[str]:
    for word in question.split():
        yield word


@agenttrace.agent
async def wait(event: asyncio.Event) -> None:
    await event.wait()


@agenttrace.tool
def submit(future: Future[str]) -> Future[str]:
    return future


def failure_of(spans: CapturedSpans) -> str:
    """Return why not all is closed, without what differs from run to run."""
    with pytest.raises(AssertionError) as caught:
        spans.assert_all_closed()
    message = re.sub(r"open for [\d.]+ m?s\b", "open for ...", str(caught.value))
    return re.sub(r"\S*test_leaks\.py:\d+", "HERE", message)


def test_a_generator_is_told_with_its_first_step(
    agenttrace_spans: CapturedSpans,
) -> None:
    """The line that took the first item is near the one that forgot to close."""
    with closing(triage("the weather")) as stream:
        next(stream)

        assert failure_of(agenttrace_spans) == expected("""
            1 span still open: invoke_agent triage

              invoke_agent triage (open for ...)
                started at HERE
                    next(stream)
                It is a generator that was not read to its end: close it where it is \
left,
                with contextlib.closing().
        """)
    agenttrace_spans.assert_all_closed()


def test_an_async_generator_is_told_with_another_remedy(
    agenttrace_spans: CapturedSpans,
) -> None:
    """`closing` would call a method that it has not."""

    async def main() -> str:
        async with aclosing(attend("the weather")) as stream:
            await anext(stream)
            return failure_of(agenttrace_spans)

    assert asyncio.run(main()) == expected("""
        1 span still open: invoke_agent attend

          invoke_agent attend (open for ...)
            started at HERE
                await anext(stream)
            It is an async generator that was not read to its end: close it where it is
            left, with contextlib.aclosing().
    """)
    agenttrace_spans.assert_all_closed()


def test_a_task_is_told_with_the_function_that_it_runs(
    agenttrace_spans: CapturedSpans,
) -> None:
    """Nothing but the event loop stands above it, and that is nobody's line."""

    async def main() -> str:
        done = asyncio.Event()
        task = asyncio.create_task(wait(done))
        await asyncio.sleep(0)
        message = failure_of(agenttrace_spans)
        done.set()
        await task
        return message

    assert asyncio.run(main()) == expected("""
        1 span still open: invoke_agent wait

          invoke_agent wait (open for ...)
            started by a task or thread that runs HERE
                async def wait(event: asyncio.Event) -> None:
            It is a coroutine that has not finished: await its task, or cancel it and
            await it then. Or it has returned a stream: close that where it is left.
    """)


def test_a_coroutine_is_told_with_the_line_that_awaits_it(
    agenttrace_spans: CapturedSpans,
) -> None:
    """A span that is started within a running task has a line of the application."""

    async def within() -> None:
        await wait(done)

    async def main() -> str | None:
        task = asyncio.create_task(within())
        await asyncio.sleep(0)
        (span,) = agenttrace_spans.open
        done.set()
        await task
        return span.origin

    done = asyncio.Event()
    place = asyncio.run(main())

    assert place is not None
    assert line_of(place) == "await wait(done)"


def line_of(place: str) -> str:
    """Return the source at *place* (`file:line`)."""
    file, _, line = place.rpartition(":")
    return Path(file).read_text().splitlines()[int(line) - 1].strip()


def test_a_block_in_a_thread_is_told_with_its_line(
    agenttrace_spans: CapturedSpans,
) -> None:
    """The thread has a stack of its own, and the block stands on it."""
    entered, leave = threading.Event(), threading.Event()

    def work() -> None:
        with agenttrace.span("work"):
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=work)
    thread.start()
    entered.wait(10)
    message = failure_of(agenttrace_spans)
    leave.set()
    thread.join()

    assert message == expected("""
        1 span still open: work

          work (open for ...)
            started at HERE
                with agenttrace.span("work"):
            It is a `with` block that has not been left: wait for the task or thread
            that is inside, or close what it is in: a generator, or an ExitStack.
    """)


def test_a_span_that_was_started_by_hand_is_told_with_that(
    agenttrace_spans: CapturedSpans,
) -> None:
    """OpenTelemetry's own way to start a span is the one that is forgotten most."""
    span = trace.get_tracer("test").start_span("by hand")
    message = failure_of(agenttrace_spans)
    span.end()

    assert message == expected("""
        1 span still open: by hand

          by hand (open for ...)
            started at HERE
                span = trace.get_tracer("test").start_span("by hand")
            A span from start_span() ends with its end() and not before;
            `with agenttrace.span(...)` ends by itself.
    """)


def test_a_call_whose_result_is_still_to_come_is_told_with_the_call(
    agenttrace_spans: CapturedSpans,
) -> None:
    """A Future that is never done keeps the span of the call that returned it."""
    future: Future[str] = Future()
    submit(future)
    message = failure_of(agenttrace_spans)
    future.set_result("done")

    assert message == expected("""
        1 span still open: execute_tool submit

          execute_tool submit (open for ...)
            started at HERE
                submit(future)
            The call has not returned, or what it returned has not come to its end: wait
            for it, or close it.
    """)
    agenttrace_spans.assert_all_closed()


def test_background_work_is_told_with_the_task_that_it_is(
    agenttrace_spans: CapturedSpans,
) -> None:
    """It is a run of its own, which nobody has waited for."""

    async def main() -> str:
        event = asyncio.Event()
        task = agenttrace.background(event.wait(), name="refresh")
        await asyncio.sleep(0)
        message = failure_of(agenttrace_spans)
        event.set()
        await task
        return message

    message = asyncio.run(main())

    assert message == expected("""
        1 span still open: refresh

          refresh (open for ...)
            started at HERE
                task = agenttrace.background(event.wait(), name="refresh")
            It is a task from background() that has not finished: await it, or cancel it
            and await it then.
    """)


def test_a_trace_of_the_agents_sdk_is_told_with_what_ends_it(
    agenttrace_spans: CapturedSpans,
) -> None:
    """Its words are others: finish() is its end()."""
    agenttrace.instrument("openai-agents")
    try:
        flow = agents.trace("flow")
        flow.start()
        message = failure_of(agenttrace_spans)
        flow.finish()
    finally:
        agenttrace.uninstrument()

    assert message == expected("""
        1 span still open: invoke_workflow flow

          invoke_workflow flow (open for ...)
            started at HERE
                flow.start()
            It is the Agents SDK's: read the run to its end, or cancel it. A trace or
            span of your own ends with its `with` block, or with its finish().
    """)


@pytest.mark.parametrize("way", ["block", "by hand", "generator"])
def test_beside_another_provider_the_places_are_the_same(way: str) -> None:
    """There OpenTelemetry's SDK stands between the application's line and us."""
    provider = TracerProvider()
    tracer = provider.get_tracer("web")
    with (
        fresh_runtime(tracer_provider=provider),
        capture_spans() as spans,
        ExitStack() as stack,
    ):
        if way == "block":
            stack.enter_context(tracer.start_as_current_span("GET /"))  # here
        elif way == "by hand":
            stack.callback(tracer.start_span("GET /").end)  # here
        else:
            next(stack.enter_context(closing(triage("the weather"))))  # here

        message = failure_of(spans)

    assert "  # here\n" in message
    remedies = {"block": "`with` block", "by hand": "end()", "generator": "closing()"}
    assert remedies[way] in message
    spans.assert_all_closed()


def test_a_span_beneath_an_open_one_is_told_with_its_path(
    agenttrace_spans: CapturedSpans,
) -> None:
    """The same tool is called from many places; the run says which."""
    with agenttrace.span("plan"), agenttrace.span("look up"):
        message = failure_of(agenttrace_spans)

    assert message.startswith("2 spans still open: plan, look up\n\n  plan (open for ")
    assert "\n\n  plan / look up (open for " in message


def test_of_very_many_spans_the_first_are_told_and_the_rest_is_counted(
    agenttrace_spans: CapturedSpans,
) -> None:
    """A report of ten thousand lines is read by nobody."""
    with ExitStack() as stack:
        for number in range(25):
            stack.enter_context(closing(triage("the weather"))).send(None)
            stack.enter_context(agenttrace.span(f"step {number}"))
        message = failure_of(agenttrace_spans)

    assert message.startswith("50 spans still open: invoke_agent triage, step 0, step ")
    assert message.count("started at") == 20
    assert message.endswith("\n\n  and 30 more")


def test_spans_that_were_started_in_one_place_are_told_once(
    agenttrace_spans: CapturedSpans,
) -> None:
    """A loop that leaks is one mistake."""
    with ExitStack() as stack:
        for _ in range(3):
            next(stack.enter_context(closing(triage("the weather"))))
        message = failure_of(agenttrace_spans)

    assert message.startswith(
        "3 spans still open: invoke_agent triage\n\n"
        "  invoke_agent triage, 3 times (open for ...)\n"
    )
    assert message.count("started at") == 1


def test_what_does_one_thing_after_the_other_leaves_none_open(
    agenttrace_spans: CapturedSpans,
) -> None:
    """Some span of a thread is open whenever one looks, and never the same."""
    tracer = trace.get_tracer("worker")
    under_way = [tracer.start_span("one")]

    def find() -> list[OpenSpan]:
        under_way.append(tracer.start_span("one"))
        under_way.pop(0).end()
        return agenttrace_spans.open

    assert find() != []
    assert leaks.confirmed(find) == []
    under_way.pop().end()


def test_what_a_reference_cycle_holds_is_open_until_it_is_collected(
    agenttrace_spans: CapturedSpans,
) -> None:
    """When the collector runs is chance, so a test says whether it is to count."""
    gc.disable()
    try:
        leak_in_a_cycle()

        assert len(agenttrace_spans.open) == 1
        agenttrace_spans.assert_all_closed(collect=True)
    finally:
        gc.enable()
    assert agenttrace_spans.span("invoke_agent triage").outcome == "abandoned"


def test_what_has_ended_unheard_is_not_remembered_for_good(
    agenttrace_spans: CapturedSpans,
) -> None:
    """A fixture that is torn down after the capture has one in every test."""
    origins = Origins()
    with ExitStack() as beyond, origins.noted(PROCESS.spans):
        beyond.enter_context(agenttrace.span("plan"))
        (plan,) = agenttrace_spans.open
        while_open = origins.of(plan)

    with origins.noted(PROCESS.spans):
        long_after = origins.of(plan)

    assert (while_open.shape, long_after.shape) == (Shape.BLOCK, None)


def leak_in_a_cycle() -> None:
    """Leave a generator to the cyclic collector."""
    stream: Generator[str] = triage("the weather")
    next(stream)
    cycle: list[object] = [stream]
    cycle.append(cycle)
