"""Finalizers that trace, called by the garbage collector at the worst of moments."""

from __future__ import annotations

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
    while runtime.open_spans():
        gc.collect()  # which does nothing while another thread collects
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
    import agenttrace

    agenttrace.configure()

    def trace_collection(phase, info):
        with agenttrace.span("collection"):
            pass

    gc.callbacks.append(trace_collection)
    gc.set_threshold(1, 1, 1)
    for _ in range(2_000):
        with agenttrace.span("step"):
            cycle = []
            cycle.append(cycle)
    gc.callbacks.remove(trace_collection)
    print("alive")
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


def test_a_callback_of_the_collector_may_trace() -> None:
    """Some tell of every collection; on Python 3.11 that is inside any allocation."""
    ran = run(CALLBACKS)

    assert (ran.code, ran.out.strip()) == (0, "alive"), ran.err
