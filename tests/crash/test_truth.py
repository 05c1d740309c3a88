"""A soak that cannot fail would hold no line."""

from __future__ import annotations

from collections import Counter

from tests.crash.truth import Findings, Told, compare, ended, judged, read, started

KNOWN = read(
    line.decode()
    for line in (
        started("a", "-", "ok"),
        ended("a"),
        started("b", "a", "error"),
        started("c", "a", "ok"),
        judged("c", "stuck"),
    )
)


def told(outcome: str, parent: str = "a", **digests: int) -> Told:
    return Told(Counter(digests or {"x": 1}), outcome, parent, "support")


GOOD = {"a": told("ok", "-"), "b": told("lost"), "c": told("stuck")}


def found(in_flight: int = 0, **changed: Told) -> Findings:
    return compare(KNOWN, {**GOOD, **changed}, {"b": in_flight}, "support")


def test_either_form_of_what_nobody_knows_is_right() -> None:
    """Between an event and its line a process may be killed."""
    assert found().is_good
    assert found(b=told("error")).is_good
    assert found(c=told("lost")).is_good
    assert found(unheard_of=told("lost")).is_good


def test_a_span_that_never_came_is_lost() -> None:
    """It had started, which is all it takes."""
    assert compare(KNOWN, {"a": GOOD["a"]}, {}, "support").lost == ["b", "c"]


def test_another_ending_than_the_true_one_is_wrong() -> None:
    """So is a true ending that is told under another parent or of another service."""
    assert len(found(a=told("lost", "-")).wrong) == 1
    assert len(found(b=told("ok")).wrong) == 1
    assert len(found(c=told("ok")).wrong) == 1
    assert len(found(b=told("lost", "-")).wrong) == 1
    assert len(compare(KNOWN, GOOD, {}, "sales").wrong) == 3


def test_two_forms_of_one_span_are_found() -> None:
    """A backend would show either, or both."""
    split = found(in_flight=1, b=told("lost", x=1, y=1))

    assert len(split.split) == 1
    assert not split.is_good


def test_what_comes_again_has_to_have_been_in_flight() -> None:
    """A span may come once more for each kill that found it without an answer."""
    assert found(in_flight=1, b=told("lost", x=2)).is_good
    assert len(found(in_flight=1, b=told("lost", x=3)).unexplained) == 1
    assert found(in_flight=1, b=told("lost", x=2)).redelivered == 1
