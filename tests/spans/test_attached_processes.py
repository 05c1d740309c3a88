"""Attached to an application's provider, from `configure()` to exit and over forks."""

from __future__ import annotations

import os
import textwrap
import threading
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from agenttrace.registry import OpenSpans
from agenttrace.spans.attached import Attachment
from tests.core.programs import Ran, run
from tests.delivery.collector import Collector, Received
from tests.spans.given import id_of, stock

if TYPE_CHECKING:
    from collections.abc import Iterator

THEIRS = """
import agenttrace
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

def theirs(endpoint):
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
    return provider
"""


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Give a backend."""
    with Collector() as running:
        yield running


def attached(collector: Collector, program: str) -> Ran:
    """Run *program* after the application has set up its own provider."""
    setup = f"provider = theirs({collector.endpoint!r})\n"
    return run(THEIRS + setup + textwrap.dedent(program))


def told(spans: list[Received]) -> list[tuple[str, object]]:
    """Return names and outcomes; a span id that is there twice fails the test."""
    twice = [each for each, n in Counter(s.span_id for s in spans).items() if n > 1]
    assert twice == []
    return sorted(
        (span.name, span.attributes.get("agenttrace.outcome")) for span in spans
    )


def test_a_span_that_outlives_our_module_is_let_go_in_silence() -> None:
    """At exit a module loses its names while a framework still holds handlers."""
    ran = run("""
        import logging  # it comes before us, so the interpreter empties it after us
        import ctypes, sys
        import agenttrace
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider

        trace.set_tracer_provider(TracerProvider())
        agenttrace.configure()
        logging.held = trace.get_tracer("app").start_span("held")
        for module in [*sys.modules.values()]:
            if module.__name__ != "__main__":
                # Something in C refers to it: then it is emptied, and not collected.
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(module))
    """)

    assert (ran.code, ran.out, ran.err) == (0, "", "")


def test_a_global_provider_is_found_and_goes_on_sending(collector: Collector) -> None:
    """The application changes one line, and its backend shows outcomes."""
    ran = attached(
        collector,
        """
        trace.set_tracer_provider(provider)
        runtime = agenttrace.configure()
        print(runtime.status().mode, runtime.status().destinations)
        with agenttrace.span("ours"):
            with trace.get_tracer("app").start_as_current_span("theirs"):
                pass
        """,
    )

    assert (ran.code, ran.out, ran.err) == (0, "attached ()\n", "")
    assert told(collector.spans()) == [("ours", "ok"), ("theirs", "ok")]
    theirs, ours = collector.spans()
    assert (theirs.parent_id, theirs.trace_id) == (ours.span_id, ours.trace_id)


def test_settings_that_the_provider_has_the_last_word_on_are_named(
    collector: Collector,
) -> None:
    """A service that is called something else in the backend is not found there."""
    ran = attached(
        collector,
        """
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON
        agenttrace.configure(
            tracer_provider=provider,
            service_name="desk",
            resource_attributes=dict(provider.resource.attributes),
            sampler=ALWAYS_ON,
        )
        """,
    )

    assert "sampler, service_name: without effect, because the" in ran.err
    assert ran.err.count("\n") == 1


def test_what_is_open_at_exit_is_lost_and_told_once(collector: Collector) -> None:
    """Exit handlers of other tools end their spans after ours has told them."""
    ran = attached(
        collector,
        """
        import atexit
        atexit.register(lambda: late.end())
        agenttrace.configure(tracer_provider=provider)
        late = provider.get_tracer("app").start_span("ended by an exit handler")
        kept = provider.get_tracer("app").start_span("never ended")
        """,
    )

    assert (ran.code, ran.err) == (0, "")
    assert told(collector.spans()) == [
        ("ended by an exit handler", "lost"),
        ("never ended", "lost"),
    ]


def test_after_a_shutdown_the_provider_is_the_applications_alone(
    collector: Collector,
) -> None:
    """We go; the tracing of the application does not."""
    ran = attached(
        collector,
        """
        tracer = provider.get_tracer("app")
        with agenttrace.configure(tracer_provider=provider):
            with tracer.start_as_current_span("watched"):
                pass
            held = tracer.start_span("held")
        held.end()
        with tracer.start_as_current_span("unwatched"):
            pass
        """,
    )

    assert (ran.code, ran.err) == (0, "")
    assert told(collector.spans()) == [
        ("held", "lost"),
        ("unwatched", None),
        ("watched", "ok"),
    ]


def test_configured_again_it_goes_on_where_it_was(collector: Collector) -> None:
    """Frameworks call set-up code more often than one thinks."""
    ran = attached(
        collector,
        """
        tracer = provider.get_tracer("app")
        agenttrace.configure(tracer_provider=provider)
        across = tracer.start_span("across")
        agenttrace.configure(tracer_provider=provider)
        print([span.name for span in agenttrace.open_spans()])
        across.end()
        print(agenttrace.open_spans())
        """,
    )

    assert (ran.code, ran.out, ran.err) == (0, "['across']\n()\n", "")
    assert told(collector.spans()) == [("across", "ok")]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_does_not_tell_its_parents_spans(collector: Collector) -> None:
    """Both processes end the span that was open at the fork; it is the parent's."""
    ran = attached(
        collector,
        """
        import os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks with threads
        agenttrace.configure(tracer_provider=provider)
        tracer = provider.get_tracer("app")
        with tracer.start_as_current_span("inherited"):
            child = os.fork()
            if child == 0:
                print(agenttrace.open_spans(), flush=True)
            with tracer.start_as_current_span("child" if child == 0 else "parent"):
                pass
        if child == 0:
            provider.force_flush()
            os._exit(0)
        os.waitpid(child, 0)
        """,
    )

    assert (ran.code, ran.out, ran.err) == (0, "()\n", "")
    spans = collector.spans()
    assert told(spans) == [("child", "ok"), ("inherited", "ok"), ("parent", "ok")]
    (inherited,) = [span for span in spans if span.name == "inherited"]
    assert {s.parent_id for s in spans if s is not inherited} == {inherited.span_id}


def test_spans_that_end_while_somebody_attaches_are_told_once() -> None:
    """Set-up code runs in one thread while others work."""
    given = stock()
    registry = OpenSpans()
    begun = threading.Barrier(4)
    ids: list[int] = []

    def work() -> None:
        begun.wait()
        for _ in range(200):
            span = given.tracer.start_span("work")
            ids.append(id_of(span))
            span.end()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    begun.wait()
    while any(thread.is_alive() for thread in threads):
        Attachment(given.provider, registry).detach()
    for thread in threads:
        thread.join()

    assert Counter(map(id_of, given.sent())) == Counter(ids)
    assert len(registry) == 0
