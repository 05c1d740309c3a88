"""What a program leaves behind is the same with our provider as with the SDK's."""

from __future__ import annotations

import copy
import json
import logging
from typing import TYPE_CHECKING

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import (
    ReadableSpan,
    Span,
    SpanLimits,
    Tracer,
    TracerProvider,
    sampling,
)
from opentelemetry.trace import Link, StatusCode, TraceState

from agenttrace.delivery.readable import to_readable
from agenttrace.model import RETURNED
from agenttrace.testing.garbage import collect_garbage
from tests.spans.bodies import BODIES, ELSEWHERE, OddError, fail_after, shape
from tests.spans.given import Beside, Lean, beside, ended_as, id_of, lean, stock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.context.context import Context
    from opentelemetry.trace import SpanKind
    from opentelemetry.util.types import Attributes

LIMITS = SpanLimits(
    max_span_attributes=3,
    max_events=1,
    max_links=1,
    max_event_attributes=1,
    max_link_attributes=1,
    max_attribute_length=3,
)


class Picky(sampling.Sampler):
    """Drops, records or samples by name, and leaves its marks."""

    def should_sample(  # noqa: PLR0913, PLR0917 - OTel's signature
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> sampling.SamplingResult:
        """Decide by the name alone."""
        del parent_context, trace_id, kind, links, trace_state
        decisions = {"b": sampling.Decision.RECORD_ONLY, "c": sampling.Decision.DROP}
        return sampling.SamplingResult(
            decisions.get(name, sampling.Decision.RECORD_AND_SAMPLE),
            {**(attributes or {}), "sampler": "picky"},
            TraceState([("picky", "1")]),
        )

    def get_description(self) -> str:
        """Return its name."""
        return "Picky"


SAMPLERS = {
    "always on": sampling.ALWAYS_ON,
    "always off": sampling.ALWAYS_OFF,
    "ratio 0": sampling.TraceIdRatioBased(0),
    "ratio 1": sampling.TraceIdRatioBased(1),
    "parent, on": sampling.ParentBased(sampling.ALWAYS_ON),
    "parent, off": sampling.ParentBased(sampling.ALWAYS_OFF),
    "picky": Picky(),
}


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Let the SDK warn of what some bodies do with an ended span."""
    caplog.set_level(logging.ERROR, "opentelemetry")


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_a_program_leaves_the_same_spans(body: Callable[[trace.Tracer], None]) -> None:
    """Whoever changes the provider must not find the dashboards changed."""
    reference, ours = stock(), lean()

    body(reference.tracer)
    body(ours.tracer)

    assert shape(ours.sent()) == shape(reference.sent())
    assert shape([to_readable(span) for span in ours.sunk]) == shape(ours.sent())
    assert all(None not in ended_as(span) for span in ours.sent())


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_a_program_leaves_the_same_spans_with_us_beside(
    body: Callable[[trace.Tracer], None],
) -> None:
    """Attached, agenttrace adds outcomes and changes nothing else."""
    reference, attached = stock(), beside()

    body(reference.tracer)
    body(attached.tracer)

    assert shape(attached.sent()) == shape(reference.sent())
    assert all(None not in ended_as(span) for span in attached.sent())


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_samplers_decide_the_same(
    body: Callable[[trace.Tracer], None], name: str
) -> None:
    """A ratio that is doubled, or a parent that is not asked, costs real money."""
    reference, ours = stock(sampler=SAMPLERS[name]), lean(sampler=SAMPLERS[name])

    body(reference.tracer)
    body(ours.tracer)

    got = shape(ours.sent())
    assert got == shape(reference.sent())
    assert len(ours.sunk) == sum(bool(span["sampled"]) for span in got)


def test_limits_cut_the_same() -> None:
    """They are there because a backend refuses what is longer."""
    reference, ours = stock(span_limits=LIMITS), lean(span_limits=LIMITS)

    for given in (reference, ours):
        links = [Link(ELSEWHERE, {"a": "12345", "b": 2}), Link(ELSEWHERE)]
        with given.tracer.start_as_current_span(
            "limited", attributes={"a": "12345", "b": ["12345"], "c": 1}, links=links
        ) as span:
            span.set_attribute("d", 1)
            span.set_attribute("a", "xxxxxx")
            span.add_event("first", {"k": 1})
            span.add_event("second", {"k": "12345", "l": 1})
            span.add_link(ELSEWHERE, {"e": 1, "f": 2})

    assert shape(ours.sent()) == shape(reference.sent())
    assert [event.dropped_attributes for event in ours.sunk[0].events] == [1]
    assert [link.dropped_attributes for link in ours.sunk[0].links] == [1]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "2"),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "3"),
        ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "3"),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "1"),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "1"),
        ("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "1"),
        ("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", "1"),
    ],
)
def test_limits_of_the_environment_are_kept(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """They are set for a whole cluster, by people who never see the code."""
    monkeypatch.setenv(variable, value)
    reference, ours = stock(), lean()

    for given in (reference, ours):
        with given.tracer.start_as_current_span(
            "limited", attributes={"a": "12345", "b": 1, "c": 2}
        ) as span:
            for name in ("first", "second"):
                span.add_event(name, {"a": "12345", "b": 1})
                span.add_link(ELSEWHERE, {"a": "12345", "b": 1})

    assert shape(ours.sent()) == shape(reference.sent())


def test_a_span_is_what_other_tools_ask_for() -> None:
    """They look at types before they look at anything else."""
    given = lean()

    with given.tracer.start_as_current_span("work") as span:
        assert isinstance(span, Span)
        assert isinstance(span, ReadableSpan)
        assert isinstance(span, trace.Span)

    assert isinstance(given.provider, TracerProvider)
    assert isinstance(given.tracer, Tracer)
    assert given.provider.resource.attributes["service.name"] == "given"


def test_a_span_reads_the_same_as_json() -> None:
    """The console exporter prints it, and people pipe that into `jq`."""
    read: list[dict[str, object]] = []
    for given in (stock(), lean()):
        with given.tracer.start_as_current_span(
            "work", attributes={"k": (1, 2)}, links=[Link(ELSEWHERE, {"l": 1})]
        ) as span:
            span.add_event("e", {"x": "y"}, timestamp=5)
            span.set_status(StatusCode.ERROR, "broke")
        values = json.loads(given.one("work").to_json())
        for key in ("context", "start_time", "end_time"):
            assert values.pop(key)
        values["attributes"] = {"k": values["attributes"]["k"]}
        read.append(values)

    assert read[0] == read[1]


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy])
def test_a_copy_of_a_span_has_no_part_in_its_end(
    how: Callable[[trace.Span], trace.Span],
) -> None:
    """Test suites copy what they capture; a dropped copy is no abandoned span."""
    given = lean()
    span = given.tracer.start_span("work", attributes={"k": 1})

    copied = how(span)
    span.set_attribute("later", 2)
    assert isinstance(copied, ReadableSpan)
    assert (copied.name, dict(copied.attributes or {})) == ("work", {"k": 1})
    copied.end()
    del copied
    collect_garbage()
    swept = given.registry.sweep(lambda _span: RETURNED)
    span.end()

    assert swept == 0
    assert [dict(span.attributes)["later"] for span in given.sunk] == [2]
    assert how(span).name == "work"  # type: ignore[attr-defined]  # an ended span is readable


def test_parents_of_two_providers_find_each_other() -> None:
    """An application may have a second provider, say for its audit trail."""
    ours, theirs = lean(), stock()

    with (
        ours.tracer.start_as_current_span("a"),
        theirs.tracer.start_as_current_span("b"),
        ours.tracer.start_as_current_span("c"),
    ):
        pass

    a, b, c = ours.one("a"), theirs.one("b"), ours.one("c")
    assert b.parent is not None
    assert c.parent is not None
    assert (b.parent.span_id, c.parent.span_id) == (id_of(a), id_of(b))
    assert not b.parent.is_remote
    assert len({span.get_span_context().trace_id for span in (a, b, c)}) == 1  # type: ignore[union-attr]  # they have one


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit])
def test_an_interruption_is_no_error(error: type[BaseException]) -> None:
    """The SDK says ERROR where a span is a block by itself, and UNSET elsewhere."""
    given = lean()

    with pytest.raises(error), given.tracer.start_span("block"):
        raise error
    with pytest.raises(error), given.tracer.start_as_current_span("current"):
        raise error

    assert {span.status.status_code for span in given.sent()} == {StatusCode.UNSET}


def test_an_owners_description_is_kept_when_an_exception_follows() -> None:
    """As `use_span` promises in its docstring; the SDK's own overwrites it."""
    given = lean()

    with pytest.raises(OddError), given.tracer.start_as_current_span("work"):
        fail_after(StatusCode.ERROR, "quota exceeded")

    assert given.one("work").status.description == "quota exceeded"


def test_an_owner_that_says_ok_is_believed() -> None:
    """What it has handled is in flight in its `except` block all the same."""
    given = lean()
    span = given.tracer.start_span("work")
    try:
        int("no number")
    except ValueError:
        span.set_status(StatusCode.OK)
        span.end()

    assert ended_as(given.one("work")) == ("ok", "return")
    assert "error.type" not in (given.one("work").attributes or {})


@pytest.mark.parametrize("provider", [lean, beside])
def test_an_exception_at_the_address_of_another_is_not_the_other(
    provider: Callable[[], Lean | Beside],
) -> None:
    """A retry fails as the first attempt did, and gets the address that was freed."""
    given = provider()

    def refuse() -> None:
        raise OddError

    def try_again() -> None:
        try:
            refuse()
        except OddError:
            span = given.tracer.start_span("second attempt")
        else:
            return
        try:
            refuse()
        finally:
            span.end()

    with pytest.raises(OddError):
        try_again()

    assert ended_as(given.one("second attempt")) == ("error", "exception")
