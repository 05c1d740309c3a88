"""Finalizers that trace, called by the garbage collector at the worst of moments."""

from __future__ import annotations

import sys

import pytest

from tests.core.programs import run

CYCLES = """
    import gc
    import agenttrace
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
        InMemorySpanExporter,
    )

    exporter = InMemorySpanExporter()
    runtime = agenttrace.configure(span_exporter=exporter)

    @agenttrace.traced
    def items():
        try:
            while True:
                yield 1
        finally:
            with agenttrace.span("clean-up"):
                pass

    class Holder:
        pass

    gc.set_threshold({threshold}, 10, 10)
    for _ in range(4_000):
        holder = Holder()
        holder.myself = holder
        holder.items = items()
        next(holder.items)
        del holder
        with agenttrace.span("outer"), agenttrace.span("inner"):
            pass
    while agenttrace.open_spans():  # another thread may be collecting them
        gc.collect()
    assert runtime.flush(20)
    spans = exporter.get_finished_spans()
    names = {span.context.span_id: span.name for span in spans}
    parents = {
        (span.name, names.get(span.parent and span.parent.span_id)) for span in spans
    }
    print(len(spans) > 10_000, sorted(parents, key=str))
"""

CALLBACKS = """
    import gc
    from contextvars import ContextVar
    import agenttrace

    from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
        InMemorySpanExporter,
    )

    agenttrace.configure(span_exporter=InMemorySpanExporter())

    for name in map(str, range(60)):
        ContextVar(name).set(1)  # the more there are, the more there is to allocate

    def trace_collection(phase, info):
        if phase in {phases}:
            with agenttrace.span("collection"):
                pass

    gc.callbacks.append(trace_collection)
    gc.set_threshold(1, 1, 1)
    for _ in range(5_000):
        with agenttrace.span("step"):
            cycle = []
            cycle.append(cycle)
    gc.callbacks.remove(trace_collection)
    print("alive")
"""


FINALIZER = """
    import gc
    import agenttrace
    from opentelemetry import trace
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
        InMemorySpanExporter,
    )

    exporter = InMemorySpanExporter()
    runtime = agenttrace.configure(span_exporter=exporter)

    @agenttrace.traced
    def pages():
        with agenttrace.span("book"):
            for page in range(3):
                with agenttrace.span("page"):
                    yield page

    @agenttrace.traced
    def close():
        with agenttrace.span("inside"):
            pass

    class Holder:
        def __del__(self):
            with agenttrace.span("clean-up"), agenttrace.bind(user_id="u-1"):
                close()
            list(self.pages)
            list(pages())
            print(trace.get_current_span().name)

    gc.disable()
    holder = Holder()
    holder.myself = holder
    holder.pages = pages()
    next(holder.pages)
    del holder
    with agenttrace.span("outer"):
        gc.collect()
        print(trace.get_current_span().name)
    assert runtime.flush(20)
    spans = exporter.get_finished_spans()
    names = {span.context.span_id: span.name for span in spans}
    for span in spans:
        parent = names.get(span.parent and span.parent.span_id)
        print(span.name, parent, span.attributes.get("user.id"))
"""

VARIABLE = """
    import gc
    from contextvars import ContextVar
    import agenttrace
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
        InMemorySpanExporter,
    )

    exporter = InMemorySpanExporter()
    runtime = agenttrace.configure(span_exporter=exporter)
    tenant = ContextVar("tenant", default="none")

    @agenttrace.traced
    def items():
        token = tenant.set("gold")
        try:
            yield 1
        finally:
            tenant.reset(token)

    class Holder:
        pass

    gc.disable()
    holder = Holder()
    holder.myself = holder
    holder.items = items()
    next(holder.items)
    del holder
    gc.collect()
    assert runtime.flush(20)
    (span,) = exporter.get_finished_spans()
    print(tenant.get(), span.attributes["agenttrace.outcome"])
"""

INTERRUPT = """
    import gc
    import signal
    import time
    import agenttrace

    agenttrace.configure()
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    heap = [[] for _ in range(1_000_000)]  # so that one collection takes a while
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            gc.collect()
    except KeyboardInterrupt:
        print("interrupted")
"""

ONCE = """
    import gc

    gc.disable()

    def once(phase, info):
        if phase == "stop":
            gc.callbacks.remove(once)

    gc.callbacks.append(once)
    import agenttrace
    from opentelemetry import trace

    agenttrace.configure()
    gc.collect()
    with agenttrace.span("outer"):
        gc.collect()
        print(trace.get_current_span().name, once in gc.callbacks)
"""


def test_a_generator_that_the_collector_closes_does_not_crash_the_interpreter() -> None:
    """Python 3.11 collects in mid-`ContextVar.set`, which cannot bear another."""
    for threshold in (7, 700):
        ran = run(CYCLES.replace("{threshold}", str(threshold)))

        expected = [
            ("clean-up", "items"),
            ("inner", "outer"),
            ("items", None),
            ("outer", None),
        ]
        assert ran.code == 0, ran.err
        assert ran.out.strip() == f"True {expected}"


@pytest.mark.parametrize("phases", ['{"start"}', '{"start", "stop"}'])
def test_a_callback_of_the_collector_may_trace(phases: str) -> None:
    """Some tell of every collection; on Python 3.11 that is inside any allocation."""
    ran = run(CALLBACKS.replace("{phases}", phases))

    assert (ran.code, ran.out.strip()) == (0, "alive"), ran.err


def test_spans_of_a_finalizer_have_the_parents_that_they_have_elsewhere() -> None:
    """A clean-up that calls traced tools is one tree, whoever runs it."""
    ran = run(FINALIZER)

    *current, last = ran.out.split("outer\n")
    assert current == ["", ""], ran.err
    assert sorted(last.splitlines()) == sorted(
        [
            "inside close u-1",
            "close clean-up u-1",
            "clean-up outer None",
            *["page book None"] * 6,
            "book pages None",
            "book pages None",
            "pages None None",
            "pages outer None",
            "outer None None",
        ]
    )


def test_a_body_that_the_collector_closes_resets_the_variables_it_set() -> None:
    """In another context they would fail to, loudly, and stay as they are."""
    ran = run(VARIABLE)

    assert (ran.out.strip(), ran.err) == ("none abandoned", "")


def test_a_callback_that_takes_itself_off_leaves_the_current_span_alone() -> None:
    """The collector then passes over the callback that is next to it."""
    ran = run(ONCE)

    assert ran.out.strip() == "outer False", ran.err


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such timer")
def test_an_interrupt_in_mid_collection_is_not_lost() -> None:
    """In a Python callback of the collector it would be printed and forgotten."""
    ran = run(INTERRUPT)

    assert (ran.out.strip(), ran.err) == ("interrupted", "")
