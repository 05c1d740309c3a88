"""A tree that is written down is compared line by line."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenttrace.model import Outcome
from agenttrace.testing.trees import Branch, difference, draw, fits, parse

NAMES = st.sampled_from(
    ["plan", "chat gpt-4o", "GET /a: b", "late: ok then", "a [b] c?", "x: items", "*"]
)
OUTCOMES = st.sampled_from([*(outcome.value for outcome in Outcome), "open"])
ITEMS = st.none() | st.integers(min_value=1, max_value=99)


def branches(depth: int = 3) -> st.SearchStrategy[Branch]:
    """Return trees as high as *depth*."""
    below = (
        st.just(list[Branch]())
        if depth == 0
        else st.lists(branches(depth - 1), max_size=3)
    )
    return st.builds(
        Branch,
        NAMES,
        OUTCOMES,
        st.sampled_from([None, "ValueError", "timeout"]),
        ITEMS.map(_items),
        below,
    ).map(_plausible)


def _items(number: int | None) -> dict[str, object]:
    return {"items": number}


def _plausible(branch: Branch) -> Branch:
    if branch.outcome in ("ok", "open", "cancelled", "abandoned"):
        branch.error_type = None
    return branch


FORESTS = st.lists(branches(), max_size=3)


@given(FORESTS)
def test_what_is_drawn_is_what_is_expected(forest: list[Branch]) -> None:
    """The output of `tree()` is copied into `assert_tree`, and has to hold there."""
    assert difference(parse(draw(forest)), forest) is None


@given(FORESTS, st.data())
def test_a_line_that_is_missing_is_found(
    forest: list[Branch], data: st.DataObject
) -> None:
    """A span too many is as wrong as one too few."""
    forest = [*forest, Branch("last", "ok")]
    lines = draw(forest).splitlines()
    kept = data.draw(st.integers(0, len(lines) - 1))

    found = difference(parse("\n".join(lines[:kept])), forest)

    assert found is not None
    assert found.count("\n+ ") + found.startswith("+ ") == len(lines) - kept


@given(FORESTS, FORESTS, FORESTS)
def test_three_dots_stand_for_any_spans(
    before: list[Branch], between: list[Branch], after: list[Branch]
) -> None:
    """Tests name what they are about, and leave the rest to change."""
    text = "\n".join([draw(before), "...", draw(after)])

    assert difference(parse(text), [*before, *between, *after]) is None


@given(FORESTS)
def test_three_dots_beneath_a_span_stand_for_its_children(
    children: list[Branch],
) -> None:
    """`...` takes up whole subtrees of its own level, and nothing above it."""
    forest = [Branch("plan", "ok", children=children)]

    assert difference(parse("plan\n  ..."), forest) is None
    assert (difference(parse("plan\n..."), forest) is None) == (not children)


def without_facts(forest: list[Branch]) -> list[Branch]:
    return [
        replace(each, facts={}, children=without_facts(each.children))
        for each in forest
    ]


@given(FORESTS, FORESTS)
def test_there_is_a_difference_exactly_where_the_drawings_differ(
    one: list[Branch], other: list[Branch]
) -> None:
    """The alignment is cheap only where there is nothing to align."""
    patterns = [line for line in parse(draw(one)) if line.name and "*" not in line.name]
    if len(patterns) < len(parse(draw(one))):
        return

    found = difference(patterns, other)

    # Facts that a line does not tell of are not compared.
    if draw(one) == draw(other):
        assert found is None
    if found is None:
        assert draw(without_facts(one)) == draw(without_facts(other))


def test_a_difference_of_one_fact_stands_beneath_its_line() -> None:
    """What was asked for is shown of what there is, and nothing else."""
    chat = Branch("chat", "ok", facts={"items": 2, "ended_by": "return"})

    assert difference(parse("chat: items=3 ended_by=close"), [chat]) == (
        "- chat: items=3 ended_by=close\n+ chat: ok items=2 ended_by=return"
    )
    assert difference(parse("chat: items=3"), [chat]) == (
        "- chat: items=3\n+ chat: ok items=2"
    )


def test_spans_that_are_in_another_place_are_missing_there_and_too_many_here() -> None:
    """A wrong parent is a wrong tree, though the spans are the same."""
    forest = [Branch("plan", "ok"), Branch("search", "ok")]

    assert difference(parse("plan\n  search"), forest) == (
        "  plan\n-   search\n+ search: ok"
    )


def test_an_outcome_that_nobody_has_said_is_not_ok() -> None:
    """Only spans that agenttrace does not see end lack one."""
    forest = [Branch("foreign", "")]

    assert draw(forest) == "foreign"
    assert difference(parse("foreign"), forest) == "- foreign\n+ foreign"
    assert difference(parse("foreign: *"), forest) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n    b\n  c", "line 3 is indented like no line above it: 'c'"),
        ("  a\nb", "line 2 is indented like no line above it: 'b'"),
        ("a\n...\n  b", "line 3: nothing can stand beneath `...`: 'b'"),
        (
            "a: ok item=3",
            "line 1: item is no fact of a span: it may be items, ended_by, input_",
        ),
    ],
)
def test_a_tree_that_cannot_be_meant_is_refused(text: str, message: str) -> None:
    """The author is told the line; a tree that is misread may hold by chance."""
    with pytest.raises(ValueError, match=re.escape(message)):
        parse(text)


def test_tabs_and_any_depth_of_indentation_will_do() -> None:
    """Editors differ, and a test is indented with its function."""
    forest = [Branch("a", "ok", children=[Branch("b", "ok")]), Branch("c", "ok")]

    assert difference(parse("\n\t\ta\n\t\t     b\n\n\t\tc\n"), forest) is None


@given(st.text(), st.text())
def test_only_the_star_is_special_in_a_name(name: str, other: str) -> None:
    """Names hold brackets, question marks and backslashes of their own."""
    plain = name.replace("*", "")

    assert fits(plain, plain)
    assert fits(plain, other) == (plain == other)
    assert fits(f"{plain}*", plain + other)
    assert fits("*", other)
