"""What a signal handler raises, or an end of the stack, loses no span."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from agenttrace import safety
from agenttrace.clock import COARSE
from agenttrace.model import RETURNED, EndedBy, Ending, Outcome
from agenttrace.registry import MemorySlots, OpenSpan, OpenSpans
from tests.core import programs

if TYPE_CHECKING:
    from collections.abc import Callable

    from agenttrace.registry import Slots

needs_timers = pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="interval timers are POSIX"
)


class Body:
    """A span object that takes note of what it is told."""

    def __init__(self) -> None:
        self.told: list[Ending] = []

    def tell(self, ending: Ending) -> None:
        self.told.append(ending)

    def copied(self) -> Callable[[Ending], None]:
        return self.told.append

    def remark(self, key: str, value: str) -> None:
        del key, value


def record(number: int, body: Body) -> OpenSpan:
    return OpenSpan(
        body,
        b"t" * 16,
        number.to_bytes(8, "big"),
        b"",
        None,
        "step",
        None,
        COARSE.now,
        sampled=True,
    )


class SlotsThatAreInterrupted(MemorySlots):
    """Slots under which Ctrl-C arrives when the first span begins."""

    interrupted = False

    def take(self, span: OpenSpan) -> None:
        if not self.interrupted:
            self.interrupted = True
            raise KeyboardInterrupt
        super().take(span)


def test_a_span_whose_start_was_interrupted_does_not_trouble_the_sweeper() -> None:
    """Its object is collected half made, and there is nothing to tell of it."""
    slots: Slots = SlotsThatAreInterrupted()
    registry = OpenSpans(slots)
    first, second = Body(), Body()
    unborn, dropped = record(1, first), record(2, second)
    with pytest.raises(KeyboardInterrupt):
        registry.started(unborn)
    registry.started(dropped)
    registry.collected.extend([(unborn, first), (dropped, second)])

    swept = registry.sweep(lambda _: Ending(Outcome.ABANDONED, EndedBy.GC))

    assert (swept, first.told, len(second.told)) == (1, [], 1)


class Stubborn:
    """A span whose ending is cut short each time, as by its exception's `__str__`."""

    def resume(self, cause: object) -> None:
        del cause
        raise KeyboardInterrupt


def test_what_cuts_an_ending_short_each_time_does_not_end_the_sweeping_thread() -> None:
    """The ticker sweeps: without it nothing stuck would be noticed ever again."""
    registry = OpenSpans()
    registry.cut_short.append((Stubborn(), None))
    before = safety.counts()["spans_dropped"]

    with ThreadPoolExecutor(1) as ticker:
        ticker.submit(registry.sweep, lambda _: RETURNED).result()

    assert registry.cut_short == []
    assert safety.counts()["spans_dropped"] == before + 1


class Slow:
    """A span that is being told by one thread when the next one comes."""

    def __init__(self) -> None:
        self.told = 0
        self.begun = threading.Event()
        self.may_end = threading.Event()

    def resume(self, cause: object) -> None:
        del cause
        self.told += 1
        self.begun.set()
        self.may_end.wait(20)


def test_two_threads_that_sweep_at_once_tell_an_ending_once() -> None:
    """A flush comes while the ticker is at it, and a span id has one final form."""
    registry, span = OpenSpans(), Slow()
    registry.cut_short.append((span, None))

    with ThreadPoolExecutor(1) as ticker:
        sweeping = ticker.submit(registry.sweep, lambda _: RETURNED)
        assert span.begun.wait(20)
        registry.sweep(lambda _: RETURNED)
        still_there = len(registry.cut_short)
        span.may_end.set()
        sweeping.result()

    assert (span.told, still_there, registry.cut_short) == (1, 1, [])


def test_a_segment_of_slots_is_made_without_a_lock() -> None:
    """A finalizer that starts a span may run while another one is being started."""
    slots = MemorySlots()
    first = record(1, Body())
    slots.take(first)
    grow = slots._grow  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # what no caller brings about at will
    numbers = {grow()[0], grow()[0], first.slot}

    assert len(numbers) == 3


def test_what_a_signal_handler_raises_inside_the_guard_is_the_applications(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A time-out by alarm that is swallowed is a hang."""
    monkeypatch.setenv(safety.STRICT_VARIABLE, "0")

    def time_out(_number: int, _frame: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGTERM, time_out)
    try:
        with pytest.raises(TimeoutError):
            safety.guarded("test", signal.raise_signal, signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)

    assert "test" not in safety.guard_hits()


STORM = """
    import collections, contextvars, gc, random, signal
    import agenttrace
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
        InMemorySpanExporter,
    )

    exporter = InMemorySpanExporter()
    runtime = agenttrace.configure(span_exporter=exporter)
    armed = False

    class Interrupt({base}):
        pass

    def interrupt(*_):
        if armed:
            raise Interrupt

    signal.signal(signal.SIGALRM, interrupt)

    @agenttrace.traced
    def plain():
        with agenttrace.span("inner"):
            return sum(range(20))

    @agenttrace.traced
    def items():
        yield from range(3)

    def work():
        global armed
        armed = True
        try:
            for _ in range(3):
                plain()
                list(items())
        finally:
            armed = False

    hits = 0
    for _ in range(1_500):
        signal.setitimer(signal.ITIMER_REAL, random.uniform(2e-6, 3e-4))
        try:
            contextvars.Context().run(work)
        except Interrupt:
            hits += 1
        armed = False
    signal.setitimer(signal.ITIMER_REAL, 0)
    for _ in range(2):
        gc.collect()
    assert runtime.flush(20)

    spans = exporter.get_finished_spans()
    status = runtime.status()
    ids = collections.Counter(span.context.span_id for span in spans)
    missing = status.started - len(ids) - status.open
    print(hits > 20, max(ids.values()), missing <= 0, status.open < hits / 10)
    print(sorted(status.guard_hits))
"""


@needs_timers
@pytest.mark.parametrize("base", ["KeyboardInterrupt", "Exception"])
def test_spans_survive_a_storm_of_interrupts(base: str) -> None:
    """Ctrl-C and the limits of job queues arrive between any two instructions."""
    ran = programs.run(STORM.replace("{base}", base))

    assert ran.out.splitlines() == ["True 1 True True", "[]"], ran.err
    assert "AttributeError" not in ran.err


RECURSION = """
    import gc
    import sys
    import agenttrace
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
        InMemorySpanExporter,
    )

    exporter = InMemorySpanExporter()
    runtime = agenttrace.configure(span_exporter=exporter)

    @agenttrace.traced
    def decorated(depth):
        return decorated(depth + 1)

    def blocks(depth):
        with agenttrace.span("block"):
            return blocks(depth + 1)

    # Where exactly the stack ends decides what fails: the start, the body, or the end.
    # A step of the run is some ten frames, so these are all the places there are.
    for limit in range(150, 166):
        for fn in (decorated, blocks):
            usual = sys.getrecursionlimit()
            sys.setrecursionlimit(limit)
            try:
                fn(0)
            except RecursionError:
                pass
            finally:
                sys.setrecursionlimit(usual)
    gc.collect()  # what the last traceback of all holds on to
    assert runtime.flush(20)
    status = runtime.status()
    spans = exporter.get_finished_spans()
    outcomes = [span.attributes["agenttrace.outcome"] for span in spans]
    print(len(spans) == status.started > 500, status.open)
    print(outcomes.count("error") / len(outcomes) > 0.95)
"""


def test_a_stack_that_is_at_its_end_loses_no_span() -> None:
    """An agent that recurses for ever is just what somebody wants to see in a trace."""
    ran = programs.run(
        RECURSION,
        # Thousands of stacks are formatted, which 3.13 takes half a minute for.
        timeout=180,
    )

    assert ran.out.split() == ["True", "0", "True"], ran.err


FLUSH = """
    import signal, threading
    import agenttrace
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class Gated(SpanExporter):
        gate = threading.Event()

        def export(self, spans):
            self.gate.wait()
            return SpanExportResult.SUCCESS

    class Interrupt(Exception):
        pass

    def interrupt(*_):
        raise Interrupt

    signal.signal(signal.SIGALRM, interrupt)
    runtime = agenttrace.configure(span_exporter=Gated())
    interrupted = 0
    for _ in range(20):
        with agenttrace.span("step"):
            pass
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        try:
            runtime.flush(30)
        except Interrupt:
            interrupted += 1
    Gated.gate.set()
    print(interrupted, runtime.flush(20), runtime.status().delivery.acknowledged)
"""


@needs_timers
def test_a_flush_that_is_interrupted_says_so_and_leaves_delivery_in_order() -> None:
    """A condition's lock that is interrupted is nobody's, or for ever somebody's."""
    ran = programs.run(FLUSH)

    assert ran.out.split() == ["20", "True", "20"], ran.err
    assert ran.err == ""


def test_two_threads_that_end_one_span_tell_it_once() -> None:
    """Only what was judged meanwhile has a late finish."""
    ran = programs.run("""
        import sys, threading
        import agenttrace
        from opentelemetry import trace
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
            InMemorySpanExporter,
        )

        exporter = InMemorySpanExporter()
        runtime = agenttrace.configure(span_exporter=exporter)
        sys.setswitchinterval(1e-6)
        tracer = trace.get_tracer("race")
        spans = [tracer.start_span("step") for _ in range(4_000)]

        def end():
            for span in spans:
                span.end()

        threads = [threading.Thread(target=end) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert runtime.flush(20)
        names = {span.name for span in exporter.get_finished_spans()}
        print(names, len(exporter.get_finished_spans()))
    """)

    assert ran.out.strip() == "{'step'} 4000", ran.err
