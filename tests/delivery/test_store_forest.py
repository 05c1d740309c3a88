"""Trees are made of any spans whatever, and each span stands in them once."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import StatusCode

from agenttrace import semconv
from agenttrace.delivery.store.forest import Node, build_forest, most_telling
from agenttrace.model import (
    Attributes,
    EventData,
    Outcome,
    ScopeData,
    SpanData,
)

TRACE = bytes(range(16))


def span(
    number: int,
    parent: int = 0,
    *,
    start: int = 0,
    trace: bytes = TRACE,
    attributes: Attributes | None = None,
) -> SpanData:
    """Make span *number* beneath span *parent*; 0 is no parent."""
    return SpanData(
        trace_id=trace,
        span_id=number.to_bytes(8, "big"),
        parent_id=parent.to_bytes(8, "big") if parent else b"",
        name=f"step {number}",
        start_time=start,
        end_time=start + 1,
        attributes=attributes or {},
        scope=ScopeData("agenttrace"),
    )


def failing(number: int, parent: int = 0) -> SpanData:
    return span(number, parent, attributes={semconv.OUTCOME: "error"})


def every(forest: list[Node]) -> list[Node]:
    return [node for top in forest for node in top.walk()]


# Few numbers, so that duplicates, missing parents, and circles are the rule.
numbers = st.integers(1, 8)
spans = st.builds(
    span,
    numbers,
    st.integers(0, 9),
    start=st.integers(0, 5),
    trace=st.sampled_from([TRACE, TRACE[::-1]]),
)


@given(st.lists(spans))
def test_every_span_stands_in_the_forest_exactly_once(
    given_spans: list[SpanData],
) -> None:
    """A span that is lost on the screen was lost for whoever looks."""
    ids = {(each.trace_id, each.span_id) for each in given_spans}

    forest = build_forest(given_spans)

    placed = Counter((n.span.trace_id, n.span.span_id) for n in every(forest))
    assert placed == Counter(ids)


@given(st.lists(spans))
def test_whoever_stands_beneath_another_names_it_as_parent(
    given_spans: list[SpanData],
) -> None:
    """And a top is either a root or says that its parent is elsewhere."""
    forest = build_forest(given_spans)

    for node in every(forest):
        for child in node.children:
            assert child.span.parent_id == node.span.span_id
            assert child.span.trace_id == node.span.trace_id
            assert not child.parent_elsewhere
    for top in forest:
        assert top.parent_elsewhere == bool(top.span.parent_id)


@given(st.lists(spans))
def test_siblings_stand_in_the_order_of_their_start(
    given_spans: list[SpanData],
) -> None:
    """A tree is read from top to bottom as a story."""
    forest = build_forest(given_spans)

    for siblings in [forest, *(node.children for node in every(forest))]:
        starts = [node.span.start_time for node in siblings]
        assert starts == sorted(starts)


@given(st.lists(spans))
def test_of_two_spans_with_one_id_the_first_counts(given_spans: list[SpanData]) -> None:
    """The store, Tempo and Phoenix keep the first form as well."""
    first: dict[tuple[bytes, bytes], SpanData] = {}
    for each in given_spans:
        first.setdefault((each.trace_id, each.span_id), each)

    forest = build_forest(given_spans)

    assert all(
        node.span is first[node.span.trace_id, node.span.span_id]
        for node in every(forest)
    )


def test_a_very_deep_chain_is_no_problem() -> None:
    """An agent that calls itself in a loop is what somebody is looking for."""
    forest = build_forest([span(number, number - 1) for number in range(1, 5000)])

    assert len(every(forest)) == 4999


@given(st.lists(spans), st.integers(0, 10), st.none() | st.integers(0, 3))
def test_what_is_chosen_is_within_the_limit_and_hangs_together(
    given_spans: list[SpanData], limit: int, siblings: int | None
) -> None:
    """A step whose ancestors are not drawn would hang in the air."""
    forest = build_forest(given_spans)

    chosen = most_telling(forest, limit, siblings)

    assert len(chosen) <= limit
    for node in every(forest):
        if any(id(child) in chosen for child in node.children):
            assert id(node) in chosen


def test_what_did_not_end_well_is_chosen_first() -> None:
    """In a run of 300 steps one is looked for: the one that failed."""
    steps = [span(number, 1, start=number) for number in range(2, 300)]
    forest = build_forest([span(1), *steps, failing(300, parent=299)])

    chosen = most_telling(forest, 3)

    names = [node.span.name for node in every(forest) if id(node) in chosen]
    assert names == ["step 1", "step 299", "step 300"]


@pytest.mark.parametrize(
    ("own", "below", "total"),
    [
        ((30, 12), [(10, 5), (20, 7)], (30, 12)),  # an agent reports its calls' sum
        ((None, None), [(10, 5), (20, 7)], (30, 12)),  # only the calls report
        ((10, None), [(10, 5), (20, 7)], (30, 12)),  # it reports less than is known
        ((5, 3), [], (5, 3)),
        ((None, None), [(None, None)], (None, None)),
    ],
)
def test_tokens_are_those_beneath_or_ones_own_and_never_both(
    own: tuple[int | None, int | None],
    below: list[tuple[int | None, int | None]],
    total: tuple[int | None, int | None],
) -> None:
    """Whoever pays by the token compares this number with a bill."""

    def using(
        number: int, parent: int, tokens: tuple[int | None, int | None]
    ) -> SpanData:
        keys = (semconv.GEN_AI_USAGE_INPUT_TOKENS, semconv.GEN_AI_USAGE_OUTPUT_TOKENS)
        said = dict(zip(keys, tokens, strict=True))
        return span(
            number,
            parent,
            attributes={key: value for key, value in said.items() if value is not None},
        )

    (root,) = build_forest(
        [using(1, 0, own), *(using(n, 1, tokens) for n, tokens in enumerate(below, 2))]
    )

    assert root.tokens == total


@pytest.mark.parametrize(
    ("kind", "message", "told"),
    [
        ("ValueError", "ValueError: boom", "ValueError: boom"),
        ("openai.APIError", "APIError: no\nbody", "openai.APIError: no"),
        ("openai.APIError", "APIError: ", "openai.APIError"),
        ("timeout", "TimeoutError: ", "timeout: TimeoutError"),
        (None, "TimeoutError: ", "TimeoutError"),
        ("stuck", "no progress for 30 s", "stuck: no progress for 30 s"),
        ("process_lost", "lost", "process_lost"),
        (None, "said by its owner", "said by its owner"),
        (None, "", None),
    ],
)
def test_an_error_is_told_in_one_line_that_names_nothing_twice(
    kind: str | None, message: str, told: str | None
) -> None:
    """`APIError: APIError: APIError` is what the other viewers show."""
    outcome = "lost" if kind == "process_lost" else "error"
    more = {semconv.ERROR_TYPE: kind} if kind else {}
    bad = span(1, attributes={semconv.OUTCOME: outcome, **more})._replace(
        status=StatusCode.ERROR, status_message=message
    )

    assert Node(bad).error == told


def test_an_exception_that_ended_the_span_is_no_event_beside_it() -> None:
    """One that was recorded and survived is."""
    happened = EventData(
        0, semconv.EXCEPTION_EVENT, {semconv.EXCEPTION_TYPE: "KeyError"}
    )
    bad = failing(1)._replace(events=[happened])
    good = span(2, attributes={semconv.OUTCOME: "ok"})._replace(events=[happened])

    assert (Node(bad).error, Node(bad).events()) == ("KeyError", [])
    assert (Node(good).error, Node(good).events()) == (None, [happened])


def test_a_span_of_another_library_has_the_outcome_that_its_status_says() -> None:
    """It sets no `agenttrace.outcome`; an error is an error all the same."""
    theirs, broken = span(1), span(2)._replace(status=StatusCode.ERROR)

    assert Node(theirs).outcome is None
    assert Node(broken).outcome is Outcome.ERROR
