"""A subprocess goes on with the trace in its environment, where it is told to."""

from __future__ import annotations

import contextvars
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import baggage, trace
from opentelemetry import context as otel

import agenttrace
from agenttrace.context.environment import variable_of
from agenttrace.context.scope import detach
from agenttrace.testing.runtimes import fresh_runtime

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext

    from agenttrace.testing import CapturedSpans

CHILD = """
import agenttrace
from opentelemetry import trace

with agenttrace.configure(service_name="child", durable=False):
    with agenttrace.span("child") as span:
        print(format(span.get_span_context().trace_id, "032x"))
agenttrace.configure(durable=False, continue_trace=False)
print(format(trace.get_current_span().get_span_context().span_id, "016x"))
"""
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def traces_of(environ: dict[str, str]) -> list[str]:
    """Return the trace of a child's span, and the span that is current at its end."""
    child = subprocess.run(
        [sys.executable, "-c", CHILD],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    assert child.stderr == ""
    return child.stdout.split()


@pytest.mark.timeout(240)
def test_a_subprocess_goes_on_with_the_trace_where_it_is_told_to(
    agenttrace_spans: CapturedSpans,
) -> None:
    """Any shell or CI may set `TRACEPARENT`, for servers that live for months."""
    with agenttrace.span("parent") as span:
        context = span.get_span_context()
        told = agenttrace.environ()

    trace_id, current = traces_of(told)
    foreign, nothing = traces_of({**os.environ, "TRACEPARENT": PARENT})

    assert trace_id == f"{context.trace_id:032x}"
    assert current == f"{context.span_id:016x}"
    assert foreign not in PARENT
    assert nothing == "0" * 16
    assert len(agenttrace_spans) == 1


def test_a_process_can_be_told_by_its_own_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where whoever starts it does not know agenttrace: a build tool, a shell."""
    monkeypatch.setenv("TRACEPARENT", PARENT)

    def be_the_child() -> tuple[ReadableSpan, SpanContext]:
        with fresh_runtime(continue_trace=True) as fresh:
            with agenttrace.span("child"):
                pass
            [ended] = fresh.exported()
        return ended, trace.get_current_span().get_span_context()

    # In a context of its own: what it makes current, it makes current for good.
    child, current = contextvars.copy_context().run(be_the_child)

    assert child.context is not None
    assert f"{child.context.trace_id:032x}" in PARENT
    assert f"{current.span_id:016x}" in PARENT


def test_a_block_goes_on_with_the_trace_in_the_environment(
    agenttrace_spans: CapturedSpans,
) -> None:
    """The names are those of headers, in capitals."""
    with (
        agenttrace.continue_trace({"TRACEPARENT": PARENT}),
        agenttrace.span("child"),
    ):
        pass

    assert agenttrace_spans.span("child").trace_id in PARENT


def test_an_environment_says_nothing_of_an_older_trace(
    agenttrace_spans: CapturedSpans,
) -> None:
    """A state beside the parent of another trace would be a lie to whoever reads it."""
    base = {"TRACESTATE": "vendor=old", "TRACEPARENT": PARENT, "PATH": "/bin"}
    token = otel.attach(baggage.set_baggage("tenant", "gold"))
    try:
        with agenttrace.span("parent") as span:
            told = agenttrace.environ(base)
        outside = agenttrace.environ({"PATH": "/bin"})
    finally:
        detach(token)

    context = span.get_span_context()
    assert told == {
        "PATH": "/bin",
        "TRACEPARENT": f"00-{context.trace_id:032x}-{context.span_id:016x}"
        f"-{int(context.trace_flags):02x}",
        "BAGGAGE": "tenant=gold",
        "AGENTTRACE_CONTINUE_TRACE": "true",
    }
    assert "TRACEPARENT" not in outside
    assert base["TRACESTATE"] == "vendor=old"
    assert "TRACEPARENT" not in os.environ
    assert len(agenttrace_spans) == 1


def test_where_nothing_is_current_an_environment_is_left_as_it_is() -> None:
    """What another tool has put there is between it and the subprocess."""
    base = {"TRACEPARENT": PARENT}

    assert agenttrace.environ(base) == base
    assert agenttrace.environ() == dict(os.environ)


def test_baggage_alone_does_not_cut_an_inherited_trace(
    agenttrace_spans: CapturedSpans,
) -> None:
    """It says nothing of a span, so what is said of one stays true."""
    base = {"TRACEPARENT": PARENT, "TRACESTATE": "vendor=old"}
    token = otel.attach(baggage.set_baggage("tenant", "gold"))
    try:
        told = agenttrace.environ(base)
    finally:
        detach(token)

    assert told == {**base, "BAGGAGE": "tenant=gold"}
    assert len(agenttrace_spans) == 0


@given(st.text(min_size=1))
def test_every_field_has_a_name_that_a_variable_can_have(key: str) -> None:
    """Propagators choose their own fields; `=` and NUL would not even start a child."""
    name = variable_of(key)

    assert name.isascii()
    assert name.replace("_", "A").isalnum()
    assert not name[0].isdigit()
    assert variable_of(name) == name
