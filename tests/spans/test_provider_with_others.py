"""Other tools join our provider as they join the SDK's, and get what they came for."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import SpanProcessor, sampling
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agenttrace import safety
from tests.core.programs import run
from tests.delivery.collector import Collector
from tests.spans.given import STUCK, ended_as, lean

if TYPE_CHECKING:
    from opentelemetry.context.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span


class Redacting(SpanProcessor):
    """Takes card numbers out at the last moment, as recipes on the web do."""

    def on_end(self, span: ReadableSpan) -> None:
        """Change what the span holds."""
        span._attributes["card"] = "***"  # type: ignore[index]  # noqa: SLF001  # pyright: ignore[reportPrivateUsage, reportIndexIssue, reportOptionalSubscript]  # as the recipes do


class Seeing(SpanProcessor):
    """Remembers what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, object]] = []

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Remember the name it starts with."""
        del parent_context
        self.calls.append(("start", span.name, None))
        span.set_attribute("seen", value=True)

    def on_end(self, span: ReadableSpan) -> None:
        """Remember the outcome."""
        self.calls.append(("end", span.name, ended_as(span)[0]))


class Raising(SpanProcessor):
    """Fails at everything."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Fail."""
        raise LookupError(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        """Fail."""
        raise LookupError(span)


class RaisingSampler(sampling.StaticSampler):
    """Fails at its one task."""

    def should_sample(
        self, *_arguments: object, **_options: object
    ) -> sampling.SamplingResult:
        """Fail."""
        raise LookupError


@pytest.fixture
def _as_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the guard swallow what it finds."""
    monkeypatch.setenv("AGENTTRACE_STRICT", "0")


def test_what_a_processor_redacts_is_not_sent() -> None:
    """It runs before the span is queued, or it would come too late."""
    given = lean()
    given.provider.add_span_processor(Redacting())
    later = InMemorySpanExporter()
    given.provider.add_span_processor(SimpleSpanProcessor(later))

    with given.tracer.start_as_current_span("work", attributes={"card": "4111"}):
        pass

    assert given.sunk[0].attributes["card"] == "***"
    assert (later.get_finished_spans()[0].attributes or {})["card"] == "***"


def test_a_processor_redacts_a_verdict_and_its_late_finish() -> None:
    """They are sent as well, and from places where nobody thinks of cards."""
    given, seeing = lean(), Seeing()
    given.provider.add_span_processor(Redacting())
    given.provider.add_span_processor(seeing)

    with given.tracer.start_as_current_span("work", attributes={"card": "4111"}):
        (record,) = given.registry
        given.registry.judge(record, STUCK)

    judged, late = given.sunk
    assert (judged.attributes["card"], late.attributes["card"]) == ("***", "***")
    assert seeing.calls == [
        ("start", "work", None),
        ("end", "work", "stuck"),
        ("end", "agenttrace.late_finish: work", "ok"),
    ]
    assert (late.parent_id, late.links[-1].span_id) == (judged.span_id,) * 2
    assert late.span_id != judged.span_id


def test_a_processor_sees_start_and_end_with_the_outcome() -> None:
    """What it does with a span may depend on how the span ended."""
    given, seeing = lean(), Seeing()
    given.provider.add_span_processor(seeing)

    with pytest.raises(TimeoutError), given.tracer.start_as_current_span("work"):
        raise TimeoutError

    assert seeing.calls == [("start", "work", None), ("end", "work", "timed_out")]
    assert given.sunk[0].attributes["seen"] is True


@pytest.mark.usefixtures("_as_in_production")
def test_a_processor_that_fails_keeps_no_span_from_the_others() -> None:
    """One tool's bug is not the application's, nor another tool's."""
    given = lean()
    given.provider.add_span_processor(Raising())
    seeing = Seeing()
    given.provider.add_span_processor(seeing)

    with given.tracer.start_as_current_span("work"):
        pass

    assert [call[0] for call in seeing.calls] == ["start", "end"]
    assert len(given.sunk) == 1
    assert safety.guard_hits()["Raising.on_end"] >= 1


@pytest.mark.usefixtures("_as_in_production")
def test_a_sampler_that_fails_lets_the_span_be_seen() -> None:
    """With the SDK's provider the application's call raises here."""
    given = lean(sampler=RaisingSampler(sampling.Decision.DROP))

    with given.tracer.start_as_current_span("work", attributes={"k": 1}):
        pass

    assert given.sunk[0].attributes["k"] == 1


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (None, True),
        (7, True),
        (sampling.Decision.RECORD_AND_SAMPLE, True),
        (sampling.Decision.DROP, False),
    ],
    ids=repr,
)
def test_a_sampler_that_returns_no_verdict_fails_no_call(
    answer: Any,  # noqa: ANN401 - wrong on purpose
    *,
    seen: bool,
) -> None:
    """The decision alone is what many return; with the SDK's provider it raises."""

    class Laconic(sampling.StaticSampler):
        def should_sample(self, *_arguments: object, **_options: object) -> Any:  # noqa: ANN401 - the same
            return answer

    given = lean(sampler=Laconic(sampling.Decision.DROP))

    given.tracer.start_span("work", attributes={"k": 1}).end()

    assert [span.attributes["k"] for span in given.sunk] == [1] * seen


def test_an_exporter_of_the_sdk_sends_what_it_is_given() -> None:
    """A second backend is one `add_span_processor` away, as always."""
    given = lean()
    with Collector() as collector:
        processor = BatchSpanProcessor(OTLPSpanExporter(collector.endpoint))
        given.provider.add_span_processor(processor)

        with given.tracer.start_as_current_span("outer", attributes={"k": (1, 2)}):
            given.tracer.start_span("inner").end()
        assert given.provider.force_flush(10_000)

        inner, outer = collector.spans()
        given.provider.shutdown()

    assert (inner.parent_id, outer.attributes["k"]) == (outer.span_id, [1, 2])
    assert (outer.scope, outer.attributes["agenttrace.outcome"]) == ("lib", "ok")


def test_a_batch_that_is_waiting_at_exit_is_sent() -> None:
    """The SDK's provider shuts its processors down at exit; so does ours."""
    with Collector() as collector:
        ran = run(f"""
            import agenttrace, atexit
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
                OTLPSpanExporter,
            )
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            agenttrace.configure()
            trace.get_tracer_provider().add_span_processor(
                BatchSpanProcessor(OTLPSpanExporter({collector.endpoint!r}))
            )
            with agenttrace.span("ended"):
                pass
            kept = trace.get_tracer("app").start_span("open")
        """)
        spans = collector.spans()

    assert (ran.code, ran.err) == (0, "")
    assert {span.name: span.attributes["agenttrace.outcome"] for span in spans} == {
        "ended": "ok",
        "open": "lost",
    }
    assert ran.spans().keys() == {"ended", "open"}


def test_a_provider_that_is_shut_down_has_sent_everything_and_goes_on() -> None:
    """Web frameworks shut it down when they stop, and their workers may go on."""
    with Collector() as collector:
        ran = run(
            f"""
            import agenttrace
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
                OTLPSpanExporter,
            )
            from opentelemetry.sdk.trace.export import SimpleSpanProcessor
            agenttrace.configure()
            provider = trace.get_tracer_provider()
            provider.add_span_processor(
                SimpleSpanProcessor(OTLPSpanExporter({collector.endpoint + "/2"!r}))
            )
            with agenttrace.span("before"):
                pass
            provider.shutdown()
            print(agenttrace.flush(30))
            """,
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=collector.endpoint,
        )
        paths = Counter(
            (request.path, span.name)
            for request in collector.requests
            for span in request.spans
        )

    assert (ran.code, ran.out, ran.err) == (0, "True\n", "")
    assert paths == {("/v1/traces", "before"): 1, ("/v1/traces/2", "before"): 1}


def test_the_console_exporter_prints_our_spans() -> None:
    """Everybody's first exporter."""
    ran = run("""
        import agenttrace
        from opentelemetry import trace
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        agenttrace.configure()
        trace.get_tracer_provider().add_span_processor(
            SimpleSpanProcessor(ConsoleSpanExporter())
        )
        with agenttrace.span("work", attributes={"nested": {"a": [1]}}):
            pass
    """)

    assert (ran.code, ran.err) == (0, "")
    printed = json.loads(ran.out)
    assert printed["name"] == "work"
    assert printed["attributes"]["nested"] == {"a": [1]}


def test_what_joined_stays_when_agenttrace_is_configured_again() -> None:
    """The provider is the process's; what stands behind it is the runtime's."""
    ran = run("""
        import agenttrace
        from opentelemetry import trace
        from opentelemetry.sdk.trace import SpanProcessor
        class Printing(SpanProcessor):
            def on_end(self, span):
                print(span.name, span.resource.attributes["service.name"])
        early = trace.get_tracer("before anything is configured")
        agenttrace.configure(service_name="first")
        provider = trace.get_tracer_provider()
        provider.add_span_processor(Printing())
        early.start_span("one").end()
        agenttrace.configure(service_name="second")
        assert trace.get_tracer_provider() is provider
        early.start_span("two").end()
    """)

    assert (ran.code, ran.out, ran.err) == (0, "one first\ntwo second\n", "")


def test_a_sampler_is_gone_with_the_runtime_it_was_given_to() -> None:
    """A notebook that had sampled nothing, and is run again, must see its spans."""
    ran = run("""
        import agenttrace
        from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
        for sampler in (ALWAYS_OFF, None):
            agenttrace.configure(sampler=sampler)
            with agenttrace.span("work") as span:
                print(span.is_recording())
    """)

    assert (ran.code, ran.out, ran.err) == (0, "False\nTrue\n", "")


@pytest.mark.parametrize(
    ("sampler", "seen"), [("always_on", True), ("parentbased_always_off", False)]
)
def test_the_samplers_of_the_environment_decide(sampler: str, *, seen: bool) -> None:
    """They are set where the process is started, not where it is written."""
    ran = run(
        """
        import agenttrace
        agenttrace.configure()
        with agenttrace.span("work") as span:
            print(span.is_recording(), len(agenttrace.open_spans()))
        """,
        OTEL_TRACES_SAMPLER=sampler,
    )

    assert (ran.code, ran.out, ran.err) == (0, f"{seen} 1\n", "")
    assert ("work" in ran.spans()) is seen
