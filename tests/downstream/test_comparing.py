"""A test that becomes another result under us is found, and nothing else is."""

from __future__ import annotations

import pytest

from tests.downstream.comparing import Ran, difference


def ran(tests: dict[str, str], *warnings: str) -> Ran:
    """Return what a session wrote."""
    return Ran(exit=0, tests=tests, warnings=list(warnings))


@pytest.mark.parametrize(
    ("traced", "changed"),
    [
        ({"a": "passed", "b": "failed"}, {}),
        ({"a": "failed", "b": "failed"}, {"a": ("passed", "failed")}),
        ({"b": "failed"}, {"a": ("passed", "not there")}),
        (
            {"a": "passed", "b": "passed", "c": "passed"},
            {"b": ("failed", "passed"), "c": ("not there", "passed")},
        ),
    ],
)
def test_what_became_another_result_is_told(
    traced: dict[str, str], changed: dict[str, tuple[str, str]]
) -> None:
    """What fails without us may."""
    without = ran({"a": "passed", "b": "failed"})

    assert difference([without], [ran(traced)]).changed == changed


def test_only_what_varies_without_us_is_excused() -> None:
    """A test that fails beside others, and passes by itself, is what is looked for."""
    passed, failed = ran({"a": "passed"}), ran({"a": "failed"})

    once = difference([passed, passed], [failed, passed])
    later = difference([passed, passed], [passed, failed])
    theirs = difference([passed, failed], [failed, passed])

    assert once.changed == later.changed == {"a": ("passed", "failed")}
    assert theirs.is_none


def test_a_warning_that_is_new_is_a_difference() -> None:
    """Suites that make them errors are not the only ones that are read."""
    found = difference([ran({}, "old", "gone")], [ran({}, "old", "new")])

    assert found.warnings == ["new"]
    assert not found.is_none
    assert difference([ran({"a": "passed"})], [ran({"a": "passed"})]).is_none
