"""Threads and pools continue the trace of whoever gave them the work."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from opentelemetry import trace

import agenttrace

if TYPE_CHECKING:
    from tests.instrumentation.given import Spans

APPLICATION: contextvars.ContextVar[str] = contextvars.ContextVar(
    "application", default="unset"
)


def current_name() -> str:
    """Return the name of the span that is current."""
    return getattr(trace.get_current_span(), "name", "none")


def test_a_pool_works_under_the_span_that_submitted(spans: Spans) -> None:
    """Each piece of work under its own, whoever came first."""
    with ThreadPoolExecutor(1) as pool:
        with agenttrace.span("first"):
            first = pool.submit(current_name)
        with agenttrace.span("second"):
            second = pool.submit(current_name)
        neither = pool.submit(current_name)

        assert first.result() == "first"
        assert second.result() == "second"
        assert neither.result() == "none"
    assert len(spans.all()) == 2


def test_a_thread_works_under_the_span_that_started_it(spans: Spans) -> None:
    """A target and an overridden `run` alike."""
    seen: list[str] = []

    class Worker(threading.Thread):
        def run(self) -> None:
            seen.append(current_name())

    with agenttrace.span("starter"):
        threads = [
            threading.Thread(target=lambda: seen.append(current_name())),
            Worker(),
            threading.Timer(0, lambda: seen.append(current_name())),
        ]
        for thread in threads:
            thread.start()
    for thread in threads:
        thread.join()

    assert seen == ["starter"] * 3
    assert all("run" not in vars(thread) for thread in threads)
    assert len(spans.all()) == 1


def test_a_thread_without_a_span_is_not_touched(spans: Spans) -> None:
    """What is not there cannot be carried."""
    seen: list[object] = []

    def look() -> None:
        seen.extend((vars(threading.current_thread()).get("run"), current_name()))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()

    assert seen == [None, "none"]
    assert spans.all() == []


def test_a_thread_that_cannot_start_has_its_own_run_again(spans: Spans) -> None:
    """The application may want to try again."""
    thread = threading.Thread(target=lambda: None)

    with agenttrace.span("starter"):
        thread.start()
        thread.join()
        with pytest.raises(RuntimeError):
            thread.start()

    assert "run" not in vars(thread)
    assert spans.one().ending == ("ok", "return")


def test_a_thread_that_was_not_made_says_what_it_says_without_us(spans: Spans) -> None:
    """An `__init__` that forgets its base is the application's mistake to hear of."""

    class Forgetful(threading.Thread):
        def __init__(self) -> None:
            """Forget it."""

    with (
        agenttrace.span("starter"),
        pytest.raises(RuntimeError, match="__init__"),
    ):
        Forgetful().start()

    assert len(spans.all()) == 1


def test_the_applications_own_variables_stay_behind(spans: Spans) -> None:
    """A worker sees of them what it would see without us."""
    APPLICATION.set("set by the caller")

    with agenttrace.span("caller"), ThreadPoolExecutor(1) as pool:
        in_pool = pool.submit(APPLICATION.get).result()

    assert in_pool == "unset"
    assert len(spans.all()) == 1


def test_asyncio_hands_work_to_threads_under_its_span(spans: Spans) -> None:
    """`to_thread` copies the context; `run_in_executor` does not."""

    async def main() -> tuple[str, str]:
        loop = asyncio.get_running_loop()
        with agenttrace.span("task"):
            return (
                await asyncio.to_thread(current_name),
                await loop.run_in_executor(None, current_name),
            )

    assert asyncio.run(main()) == ("task", "task")
    assert len(spans.all()) == 1


def test_it_can_be_undone(spans: Spans) -> None:
    """And then threads begin with nothing again."""
    agenttrace.uninstrument("threading")

    with agenttrace.span("caller"), ThreadPoolExecutor(1) as pool:
        in_pool = pool.submit(current_name).result()

    assert in_pool == "none"
    assert not hasattr(threading.Thread.start, "__wrapped__")
    assert len(spans.all()) == 1


def test_wrong_calls_are_the_pools_own_errors(spans: Spans) -> None:
    """A missing function is complained of by the pool."""
    with (
        agenttrace.span("caller"),
        ThreadPoolExecutor(1) as pool,
        pytest.raises(TypeError, match="submit"),
    ):
        pool.submit()  # type: ignore[call-arg]  # that is the point

    assert len(spans.all()) == 1
