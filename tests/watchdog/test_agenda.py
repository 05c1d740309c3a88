"""What is put on the agenda comes up once, in its time, and costs nothing before."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agenttrace.registry import OpenSpan, OpenSpans
from agenttrace.watchdog.agenda import GRAIN, Agenda
from tests.watchdog.given import SECOND, Body, opened


def spans(count: int, body: Body) -> list[OpenSpan]:
    registry = OpenSpans()
    return [opened(registry, body) for _ in range(count)]


@given(
    st.lists(st.integers(0, 100 * SECOND), max_size=40),
    st.lists(st.integers(0, 120 * SECOND), max_size=10),
    st.integers(1, 50),
)
def test_a_span_comes_up_once_not_early_and_at_most_a_grain_late(
    instants: list[int], looks: list[int], most: int
) -> None:
    """Early would be a wrong verdict, and twice a wasted look."""
    agenda, body = Agenda(), Body()
    put = dict(zip(spans(len(instants), body), instants, strict=True))
    for span, instant in put.items():
        agenda.put(span, instant)

    seen: list[OpenSpan] = []
    for now in sorted(looks):
        found = agenda.due(now, most)
        assert len(found) <= most
        assert all(put[span] <= now for span in found)
        seen += found
        if len(found) < most:
            assert all(now < put[span] + GRAIN for span in put.keys() - set(seen)), (
                "something is due and was left"
            )
    seen += agenda.due(200 * SECOND, len(put) + 1)

    assert sorted(map(id, seen)) == sorted(map(id, put))
    assert len(agenda) == 0


def test_what_is_due_earlier_comes_up_earlier() -> None:
    """A child's limit passes before the parent's: it is to be judged first."""
    agenda, body = Agenda(), Body()
    first, second, third = spans(3, body)
    agenda.put(second, 2 * SECOND)
    agenda.put(third, 3 * SECOND)
    agenda.put(first, SECOND)

    assert agenda.due(5 * SECOND, 10) == [first, second, third]


def test_many_spans_that_have_ended_are_let_go_before_they_come_up() -> None:
    """A thousand requests a second would else be kept for five minutes each."""
    agenda, body, registry = Agenda(), Body(), OpenSpans()
    stays = opened(registry, body)
    agenda.put(stays, 300 * SECOND)
    for _ in range(10_000):
        span = opened(registry, body)
        agenda.put(span, 300 * SECOND)
        registry.claim(span)
        agenda.tidy(len(registry))

    assert len(agenda) < 5_000
    assert stays in agenda.due(300 * SECOND, 10_000)
