"""A test's own runtime leaves everything as it found it."""

from __future__ import annotations

import os

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

import agenttrace
from agenttrace import content, runtime, safety, settings, tracing
from agenttrace.errors import SettingError
from agenttrace.testing import capture_spans, fresh_runtime


def test_what_was_configured_before_goes_on_afterwards() -> None:
    """Its queue, its threads and its destination were not touched."""
    exporter = InMemorySpanExporter()
    with fresh_runtime(span_exporter=exporter, capture_content=True) as outer:
        before = (tracing.installed, content.wanted())
        with fresh_runtime() as inner, agenttrace.span("within"):
            assert runtime.current() is inner.runtime
            assert not content.wanted()

        assert runtime.current() is outer.runtime
        assert (tracing.installed, content.wanted()) == before
        assert outer.runtime.is_running
        assert not inner.runtime.is_running
        with agenttrace.span("afterwards"):
            pass
        outer.runtime.flush(30)

    assert [span.name for span in inner.exported()] == ["within"]
    assert [span.name for span in exporter.get_finished_spans()] == ["afterwards"]


def test_what_the_application_configures_within_goes_with_it() -> None:
    """An application factory under test configures as it does in production."""
    before = runtime.current()
    with fresh_runtime():
        configured = agenttrace.configure(span_exporter=InMemorySpanExporter())

    assert runtime.current() is before
    assert not configured.is_running


def test_a_sampler_and_processors_are_not_left_behind() -> None:
    """There is one provider in a process, and the next test has it as well."""
    seen: list[str] = []

    class Seeing(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            seen.append(span.name)

    with fresh_runtime():
        with fresh_runtime(sampler=ALWAYS_OFF) as fresh:
            provider = trace.get_tracer_provider()
            assert isinstance(provider, TracerProvider)
            provider.add_span_processor(Seeing())
            with agenttrace.span("unsampled"):
                pass
            assert fresh.exported() == ()
        with capture_spans() as spans, agenttrace.span("sampled"):
            pass

    assert spans.names == ["sampled"]
    assert seen == []


def test_attached_to_another_provider_it_lets_go_of_it() -> None:
    """The provider is the application's, which goes on using it."""
    provider = TracerProvider()
    with fresh_runtime(tracer_provider=provider) as fresh:
        assert fresh.runtime.status().mode == "attached"

    with (
        capture_spans() as spans,
        provider.get_tracer("web").start_as_current_span("x"),
    ):
        pass

    assert len(spans) == 0


def test_spans_that_are_open_at_its_end_stay_open() -> None:
    """A leak must not be tidied away before anybody has looked for it."""
    with capture_spans() as spans:
        with fresh_runtime():
            span = trace.get_tracer("test").start_span("left")

        assert [each.name for each in spans.open] == ["left"]
        span.end()

    assert spans.open == []


def fail() -> None:
    message = "of ours"
    raise LookupError(message)


def test_it_is_strict_about_what_the_guard_would_swallow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A failure of agenttrace's own is a failure of the test that finds it."""
    monkeypatch.setenv("AGENTTRACE_STRICT", "0")

    with (
        pytest.raises(AssertionError, match=r"swallowed something at a recorder$"),
        fresh_runtime(),
        pytest.raises(LookupError),
    ):
        safety.guarded("a recorder", fail)

    assert os.environ["AGENTTRACE_STRICT"] == "0"


def test_a_test_that_expects_the_guard_names_the_site() -> None:
    """Then the application goes on, which is what such a test is about."""
    before = safety.guard_hits()
    with fresh_runtime(swallows=["a recorder"]) as fresh:
        assert safety.guarded("a recorder", fail) is None
        assert fresh.runtime.status().guard_hits == {"a recorder": 1}

    assert safety.guard_hits() == before


def test_a_site_that_was_not_named_fails_the_test() -> None:
    """Expecting one failure is no permission for another."""
    with (
        pytest.raises(
            AssertionError, match=r"the guard swallowed something at a hook$"
        ),
        fresh_runtime(swallows=["a recorder"]),
    ):
        safety.guarded("a hook", fail)


def test_a_test_that_fails_anyway_fails_as_it_does() -> None:
    """What it failed of is not hidden by what the guard swallowed."""

    def broken() -> None:
        safety.guarded("a hook", fail)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), fresh_runtime(swallows=["a recorder"]):
        broken()


def test_a_runtime_that_cannot_be_made_leaves_everything_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The tests that follow would have neither policy nor settings."""
    with fresh_runtime() as fresh:
        fresh.runtime.shutdown()
        content.install(content.Policy(capture=True))
        settings.use(fresh.runtime.settings)
        monkeypatch.setenv("AGENTTRACE_ON_STUCK", "nonsense")

        with pytest.raises(SettingError), capture_spans():
            pass

        assert content.wanted()
        assert settings.in_use() is fresh.runtime.settings


def test_a_runtime_within_another_leaves_its_counters() -> None:
    """What the guard swallowed before it would go unseen."""
    with fresh_runtime(swallows=["a recorder"]):
        safety.guarded("a recorder", fail)
        with fresh_runtime():
            assert safety.guard_hits() == {}

        assert safety.guard_hits() == {"a recorder": 1}
