"""The gate is put in and taken out in place, however often and in whatever order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given as examples
from hypothesis import strategies as st
from opentelemetry import trace

from agenttrace.model import RETURNED
from agenttrace.registry import OpenSpans
from agenttrace.spans.attached import Attachment
from agenttrace.testing.garbage import collect_garbage
from tests.spans.given import (
    STUCK,
    Stock,
    beside,
    composite_of,
    ended_as,
    id_of,
    stock,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.trace import ReadableSpan


def state_of(given: Stock) -> dict[str, Any]:
    """Return the attributes of the composite processor."""
    return dict(vars(composite_of(given.provider)))


def test_detaching_leaves_the_provider_as_it_was() -> None:
    """Whoever takes agenttrace out again must not find traces of it."""
    given = stock()
    before = state_of(given)
    attachment = Attachment(given.provider, OpenSpans())
    given.tracer.start_span("watched").end()

    attachment.detach()

    assert state_of(given) == before
    given.tracer.start_span("unwatched").end()
    assert [ended_as(span) for span in given.sent()] == [
        ("ok", "return"),
        (None, None),
    ]


def test_what_another_tool_had_put_there_is_put_back() -> None:
    """It had its reasons, and its own undo will look for it."""
    given = stock()
    composite: Any = composite_of(given.provider)
    seen: list[str] = []
    inner = composite.on_end

    def theirs(span: ReadableSpan) -> None:
        seen.append(span.name)
        inner(span)

    composite.on_end = theirs
    attachment = Attachment(given.provider, OpenSpans())

    given.tracer.start_span("one").end()
    attachment.detach()

    assert composite.on_end is theirs
    given.tracer.start_span("two").end()
    assert seen == ["one", "two"]


def test_a_tool_that_has_patched_on_top_goes_on_working() -> None:
    """It holds our method: that has to let everything pass, and once only."""
    given = stock()
    composite: Any = composite_of(given.provider)
    registry = OpenSpans()
    first = Attachment(given.provider, registry)
    inner: Callable[[ReadableSpan], None] = composite.on_end
    seen: list[str] = []

    def theirs(span: ReadableSpan) -> None:
        seen.append(span.name)
        inner(span)

    composite.on_end = theirs
    first.detach()
    given.tracer.start_span("between").end()
    second = Attachment(given.provider, registry)
    given.tracer.start_span("again").end()
    second.detach()

    assert seen == ["between", "again"]
    assert [ended_as(span) for span in given.sent()] == [
        (None, None),
        ("ok", "return"),
    ]
    assert registry.started_count == 1


def test_the_gate_waits_for_what_was_told_and_is_not_over() -> None:
    """Told as lost at a shutdown, it must not be told again when its owner ends it."""
    given = beside()
    before = state_of(stock()).keys()
    told = given.tracer.start_span("told")
    untold = given.tracer.start_span("untold")
    given.judge("told")

    given.attachment.detach()
    given.tracer.start_span("after").end()
    told.end()
    untold.end()

    assert [span.name for span in given.sent()] == ["told", "after", "untold"]
    assert ended_as(given.one("after")) == (None, None)
    assert ended_as(given.one("untold")) == ("ok", "return")
    assert state_of(given).keys() == before


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_attached_twice_a_span_is_adopted_once(order: tuple[int, int]) -> None:
    """`configure()` again attaches before it lets the old runtime go."""
    given = stock()
    before = state_of(given)
    registry = OpenSpans()
    both = [Attachment(given.provider, registry), Attachment(given.provider, registry)]
    across = given.tracer.start_span("across")

    both[order[0]].detach()
    across.end()
    given.tracer.start_span("one left").end()
    both[order[1]].detach()
    both[order[1]].detach()

    assert registry.started_count == 2
    assert [ended_as(span) for span in given.sent()] == [("ok", "return")] * 2
    assert state_of(given) == before


def test_another_registry_takes_over() -> None:
    """A test, or a process that was set up anew, begins with an empty list."""
    given = beside()
    registry = OpenSpans()

    Attachment(given.provider, registry)
    given.tracer.start_span("new").end()

    assert (given.registry.started_count, registry.started_count) == (0, 1)


def test_a_provider_that_wraps_the_sdks_is_looked_through() -> None:
    """Logfire's exchanges what stands behind it and keeps that in `provider`."""
    given = stock()

    class Wrapper(trace.TracerProvider):
        provider = given.provider

        def get_tracer(self, *_args: object, **_options: object) -> trace.Tracer:
            return given.tracer

    Attachment(Wrapper(), OpenSpans())
    given.tracer.start_span("work").end()

    assert ended_as(given.one("work")) == ("ok", "return")


@dataclass
class Story:
    """What happens beside a provider, and what its processors must have been given."""

    given: Stock = field(default_factory=stock)
    registry: OpenSpans = field(default_factory=OpenSpans)
    attached: list[Attachment] = field(default_factory=list[Attachment])
    open: list[trace.Span] = field(default_factory=list[trace.Span])
    ids: set[int] = field(default_factory=set[int])

    def step(self, what: str, which: int) -> None:
        """Do *what*, to the span or attachment number *which* where it needs one."""
        if what == "start":
            span = self.given.tracer.start_span("s")
            self.ids.add(id_of(span))
            self.open.append(span)
        elif what == "attach":
            self.attached.append(Attachment(self.given.provider, self.registry))
        elif what == "detach" and self.attached:
            self.attached.pop(which % len(self.attached)).detach()
        elif what == "end" and self.open:
            self.open.pop(which % len(self.open)).end()
        elif what == "drop" and self.open:
            self.open.pop(which % len(self.open))
            self.registry.sweep(lambda _span: RETURNED)
        elif what == "judge":
            for record in self.registry:
                self.registry.judge(record, STUCK)

    def close(self) -> None:
        """Let everything come to its end."""
        for span in self.open:
            span.end()
        self.open.clear()
        for attachment in self.attached:
            attachment.detach()
        collect_garbage()
        self.given.tracer.start_span("last").end()


STEPS = st.tuples(
    st.sampled_from(["start", "attach", "detach", "end", "drop", "judge"]),
    st.integers(0, 3),
)


@examples(st.lists(STEPS, max_size=25))
def test_whatever_the_order_a_span_id_has_one_final_form(
    steps: list[tuple[str, int]],
) -> None:
    """No order of attaching, ending, judging and dropping may tell a span twice."""
    story = Story()
    before = state_of(story.given)

    for what, which in steps:
        story.step(what, which)
    story.close()

    sent = [id_of(span) for span in story.given.sent()]
    assert len(sent) == len(set(sent))
    assert state_of(story.given) == before
    assert len(story.registry) == 0
