"""What is said of an exception quotes nothing of what the application works on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel, ValidationError

import agenttrace
from agenttrace import tracing
from agenttrace.exceptions import facts_of, is_quoting

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = "12" + "345"  # a stack shows the lines of the source, and so nothing of this


class Answer(BaseModel):
    """What a model was asked for."""

    number: int


def refused(value: str) -> ValidationError:
    """Return what pydantic raises for *value*."""
    with pytest.raises(ValidationError) as caught:
        Answer.model_validate({"number": value})
    return caught.value


def raised(error: Exception, cause: Exception | None = None) -> Exception:
    """Return *error* as it is after it was raised."""
    with pytest.raises(type(error)) as caught:
        raise error from cause
    return caught.value


def in_a_group(error: Exception) -> Exception:
    """Return a group with *error* deep inside."""
    return raised(ExceptionGroup("all", [ExceptionGroup("some", [error])]))


def as_a_cause(error: Exception) -> Exception:
    """Return what *error* led to."""
    return raised(ValueError("no number"), error)


def in_its_words(error: Exception) -> Exception:
    """Return an exception whose own message quotes *error*."""
    return raised(ValueError(f"cannot be read: {error}"), error)


WRAPPERS = [raised, in_a_group, as_a_cause, in_its_words]


@pytest.mark.parametrize("wrapped", WRAPPERS)
@given(noise=st.text(max_size=30))
def test_no_text_quotes_what_pydantic_refused(
    wrapped: Callable[[Exception], Exception], noise: str
) -> None:
    """Wherever the refusal stands: alone, in a group, behind or in another's words."""
    error = wrapped(refused(f"{noise} is {SECRET}"))

    facts = facts_of(error)

    assert is_quoting(error)
    assert SECRET not in str(facts)
    assert "int_parsing" in facts["exception.stacktrace"]


def test_other_messages_and_stacks_are_told_as_python_prints_them() -> None:
    """An exception that quotes nothing loses nothing."""
    error = raised(KeyError("left"), ValueError("right"))

    facts = facts_of(error)

    assert not is_quoting(error)
    assert facts["exception.message"] == "'left'"
    assert "ValueError: right" in facts["exception.stacktrace"]
    assert facts["exception.stacktrace"].endswith("KeyError: 'left'\n")


@pytest.mark.parametrize("wrapped", WRAPPERS)
def test_a_provider_of_the_application_is_told_without_the_quote(
    wrapped: Callable[[Exception], Exception],
) -> None:
    """Its `record_exception` would format message and stack itself."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    replaced = tracing.install(tracing.ApiTracer(provider.get_tracer("theirs")))
    try:
        with pytest.raises((ValueError, ExceptionGroup)), agenttrace.span("parse"):
            raise wrapped(refused(f"is {SECRET}"))
    finally:
        tracing.install(replaced)

    (span,) = exporter.get_finished_spans()
    (event,) = span.events
    assert SECRET not in span.to_json()
    assert "int_parsing" in str((event.attributes or {})["exception.stacktrace"])
    assert (span.attributes or {})["agenttrace.outcome"] == "error"
