"""Threads, pools and processes go on with the trace of whoever gave them the work."""

from __future__ import annotations

import asyncio
import multiprocessing
import operator
import os
import queue
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import propagate, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import agenttrace
from agenttrace.context.handed import Handed
from agenttrace.testing import kill_and_recover
from agenttrace.testing.runtimes import fresh_runtime
from tests.background import workers
from tests.background.workers import current, current_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import NoReturn

    from agenttrace.testing import CapturedSpans

NOTHING = ("0" * 32, "0" * 16, False)
PATIENCE = 60
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _instrumented(  # pyright: ignore[reportUnusedFunction]  # pytest does
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[None]:
    # A process that is spawned imports `workers` by name, from where this one would.
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])
    agenttrace.instrument("threading")
    yield
    agenttrace.uninstrument("threading")


def ids_of(span: trace.Span) -> tuple[str, str]:
    """Return what `current` says of it, but where it is said."""
    context = span.get_span_context()
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_processes_work_under_the_span_that_gave_them_the_work(
    start_method: str, agenttrace_spans: CapturedSpans
) -> None:
    """Whoever came first: a worker of a pool is nobody's child, its jobs are."""
    if start_method not in multiprocessing.get_all_start_methods():
        pytest.skip("this system has no fork")
    context: Any = multiprocessing.get_context(start_method)
    seen: dict[str, Any] = {}

    with (
        context.Pool(1) as before,
        agenttrace.span("first"),
        ProcessPoolExecutor(1, context, workers.initialize) as executor,
        context.Pool(1, workers.initialize) as pool,
    ):
        with agenttrace.span("second") as second:
            expected = (*ids_of(second), True)
            seen["submit"] = executor.submit(current).result(PATIENCE)
            seen["executor.map"] = next(iter(executor.map(current_for, [0])))
            seen["apply"] = pool.apply(current)
            seen["map"] = pool.map(current_for, [0])[0]
            seen["map, by name"] = pool.map(func=current_for, iterable=[0])[0]
            seen["starmap"] = pool.starmap(current_for, [(0,)])[0]
            seen["imap"] = next(iter(pool.imap(current_for, [0])))
            seen["of a pool of before"] = before.apply(current)
            results = context.SimpleQueue()
            process = context.Process(target=workers.tell, args=(results,))
            process.start()
            seen["Process"] = results.get()
            process.join(PATIENCE)
            assert "run" not in vars(process)
        initializers = [
            executor.submit(workers.seen_at_first).result(PATIENCE),
            pool.apply(workers.seen_at_first),
        ]

    assert seen == dict.fromkeys(seen, expected)
    assert initializers == [NOTHING, NOTHING]
    assert agenttrace_spans.names == ["first", "second"]


def test_a_pool_of_threads_works_under_the_span_that_gave_it_the_work(
    agenttrace_spans: CapturedSpans,
) -> None:
    """Its threads were started under another one, which is not theirs to keep."""
    begun: list[str] = []
    with (
        agenttrace.span("first"),
        ThreadPool(1) as pool,
        agenttrace.span("second") as second,
    ):
        inside = pool.apply(current)
    with ThreadPool(1) as pool:
        with agenttrace.span("third"):
            pool.apply(current)
        outside = pool.apply(current)

        def iterate() -> Iterator[int]:
            begun.append(getattr(trace.get_current_span(), "name", "none"))
            yield 0

        with agenttrace.span("fourth"):
            pool.map(current_for, iterate())

    assert inside == (*ids_of(second), False)
    assert outside == NOTHING
    assert begun == ["fourth"]
    assert len(agenttrace_spans) == 4


def test_an_initializer_of_threads_runs_with_nothing_current(
    agenttrace_spans: CapturedSpans,
) -> None:
    """What it opens serves everybody; who happens to come first does not own it."""
    seen: list[tuple[str, str, bool]] = []

    def initialize() -> None:
        seen.append(current())

    with (
        agenttrace.span("first") as first,
        ThreadPoolExecutor(1, initializer=initialize) as executor,
    ):
        inside = executor.submit(current).result(PATIENCE)

    assert seen == [NOTHING]
    assert inside == (*ids_of(first), False)
    assert len(agenttrace_spans) == 1


def test_where_nothing_is_current_nothing_is_wrapped(
    agenttrace_spans: CapturedSpans,
) -> None:
    """What a pool pickles is then what it would be without us."""
    with ThreadPoolExecutor(1) as executor:
        outside = executor.submit(workers.caller).result(PATIENCE)
        with agenttrace.span("first"):
            inside = executor.submit(workers.caller).result(PATIENCE)

    assert outside == "concurrent.futures.thread"
    assert inside == "agenttrace.context.carriers"
    assert agenttrace_spans.names == ["first"]


def test_a_pool_of_interpreters_is_given_what_it_would_be_without_us(
    agenttrace_spans: CapturedSpans,
) -> None:
    """It is one of threads by its class, and can share no closure with its workers."""
    futures: Any = pytest.importorskip("concurrent.futures.interpreter")

    with agenttrace.span("first"), futures.InterpreterPoolExecutor(1) as executor:
        named = executor.submit(operator.add, 1, 2).result(PATIENCE)
        unnamed = executor.submit(lambda: 3).result(PATIENCE)

    assert (named, unnamed) == (3, 3)
    assert agenttrace_spans.names == ["first"]


def test_a_function_is_handed_over_with_any_argument() -> None:
    """Its own arguments may have the names of ours."""
    handed = Handed(dict, {})

    assert handed(self=1, fn=2) == {"self": 1, "fn": 2}


@pytest.mark.asyncio
async def test_a_worker_of_an_asyncio_queue_makes_each_job_a_run_linked_to_its_sender(
    agenttrace_spans: CapturedSpans,
) -> None:
    """Its task was started under some span: that has nothing to do with the jobs."""
    jobs: asyncio.Queue[dict[str, str] | None] = asyncio.Queue()

    async def work() -> None:
        while (headers := await jobs.get()) is not None:
            with (
                agenttrace.continue_trace(headers, run="job"),
                agenttrace.span("step"),
            ):
                await asyncio.sleep(0)

    with agenttrace.span("start-up"):
        worker = asyncio.create_task(work())
    for number in range(2):
        with agenttrace.span(f"request {number}"):
            jobs.put_nowait(agenttrace.carrier())
    jobs.put_nowait(None)
    await worker

    agenttrace_spans.assert_tree("""
        start-up
        request 0
        request 1
        job
          step
        job
          step
    """)
    first, second = agenttrace_spans.find(name="job")
    assert first.linked == [agenttrace_spans.span("request 0")]
    assert second.linked == [agenttrace_spans.span("request 1")]
    assert first.trace_id != second.trace_id


def test_a_thread_that_works_off_a_queue_goes_on_with_each_jobs_trace(
    agenttrace_spans: CapturedSpans,
) -> None:
    """As children of the sender where no run is named; what is bound here stays."""
    jobs: queue.Queue[dict[str, str] | None] = queue.Queue()

    def work() -> None:
        with agenttrace.bind(attributes={"worker": "w-1"}):
            while (headers := jobs.get()) is not None:
                with agenttrace.continue_trace(headers), agenttrace.span("job"):
                    pass

    with agenttrace.span("start-up"):
        thread = threading.Thread(target=work)
        thread.start()
    with agenttrace.span("request"):
        jobs.put(agenttrace.carrier())
    jobs.put({"traceparent": "damaged"})
    jobs.put(None)
    thread.join(PATIENCE)

    job, orphan = agenttrace_spans.find(name="job")
    assert job.parent is agenttrace_spans.span("request")
    assert orphan.parent is None
    assert job.attributes["worker"] == orphan.attributes["worker"] == "w-1"


@pytest.mark.parametrize("carrier", [{}, None], ids=["empty", "none"])
def test_a_job_that_brings_no_trace_is_not_the_child_of_its_worker(
    carrier: Any,  # noqa: ANN401 - that it may be wrong is the point
    agenttrace_spans: CapturedSpans,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In whichever order `OTEL_PROPAGATORS` names them; what is bound here stays."""
    monkeypatch.delenv("AGENTTRACE_STRICT")  # None cannot be read
    before = propagate.get_global_textmap()
    orders = (W3CBaggagePropagator(), TraceContextTextMapPropagator())
    try:
        for order in orders, orders[::-1]:
            propagate.set_global_textmap(CompositePropagator(order))
            with (
                agenttrace.bind(attributes={"worker": "w-1"}),
                agenttrace.span("worker"),
                agenttrace.continue_trace(carrier),
                agenttrace.span("job"),
            ):
                pass
    finally:
        propagate.set_global_textmap(before)

    for job in agenttrace_spans.find(name="job"):
        assert job.parent is None
        assert job.attributes["worker"] == "w-1"
    assert len(agenttrace_spans) == 4


@pytest.mark.timeout(300)
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_worker_process_that_is_killed_in_a_job_has_lost_that_job_alone(
    agenttrace_spans: CapturedSpans,
) -> None:
    """Each job is a run of its own, linked to its sender, whatever became of it."""
    context = multiprocessing.get_context("spawn")
    jobs: Any = context.Queue()
    results: Any = context.Queue()
    with agenttrace.span("request") as request:
        for number, is_deadly in enumerate([False, True]):
            headers = agenttrace.carrier()
            jobs.put({"headers": headers, "number": number, "is deadly": is_deadly})
    process = context.Process(target=workers.work_off, args=(jobs, results))
    process.start()
    process.join(PATIENCE)

    runs = [results.get(timeout=PATIENCE)[0] for _ in range(2)]
    state = os.environ["AGENTTRACE_STATE_DIR"]
    with fresh_runtime(state_dir=state, durable=True) as fresh:
        fresh.runtime.recover()
        told = {
            span.name: (span.attributes or {})["agenttrace.outcome"]
            for span in fresh.exported()
        }
    assert process.exitcode == -9
    assert len({ids_of(request)[0], *runs}) == 3
    # The first one, which had ended, had its destination in the worker.
    assert told["job 1"] == "lost"
    assert told.get("job 0", "ok") == "ok"
    assert agenttrace_spans.names == ["request"]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_job_that_is_lost_with_its_process_leads_to_its_sender(
    agenttrace_spans: CapturedSpans,
) -> None:
    """By a link or as a child: a crash leaves both."""
    with agenttrace.span("request") as request:
        headers = agenttrace.carrier()

    def work(die: Callable[[], NoReturn]) -> None:
        with (
            agenttrace.continue_trace(headers, run="run"),
            agenttrace.continue_trace(headers),
            agenttrace.span("job"),
        ):
            die()

    recovered = kill_and_recover(work)

    job, run = recovered.span("job"), recovered.span("run")
    assert (job.outcome, job.ended_by) == ("lost", "recovery")
    assert (job.trace_id, job.parent_id) == ids_of(request)
    assert (run.outcome, run.parent_id) == ("lost", None)
    assert [(link.trace_id, link.span_id) for link in run.links] == [ids_of(request)]
    assert len(agenttrace_spans) == 1
