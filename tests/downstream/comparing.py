"""What a suite came to without agenttrace and with it, and how that differs.  Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping


class Ran(TypedDict):
    """What the plugin wrote of one session.

    Keys:
        exit: Its exit status.
        tests: By node id, passed, failed or skipped.
        warnings: Each warning, without numbers.
    """

    exit: int
    tests: dict[str, str]
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class Difference:
    """How two sessions of one suite differ.

    Attributes:
        counts: How many tests became what, without agenttrace.
        changed: Tests with another result: what they became without and with.
        warnings: Warnings that are there with agenttrace only.
    """

    counts: dict[str, int]
    changed: dict[str, tuple[str, str]] = field(
        default_factory=dict[str, tuple[str, str]]
    )
    warnings: list[str] = field(default_factory=list[str])

    @property
    def is_none(self) -> bool:
        """Whether nothing changed."""
        return not self.changed and not self.warnings

    def as_json(self) -> dict[str, Any]:
        """Return it as values that JSON has."""
        return {
            "tests": self.counts,
            "changed": {name: list(pair) for name, pair in self.changed.items()},
            "warnings": self.warnings,
        }


def difference(without: Ran, traced: Ran, alone: Mapping[str, str]) -> Difference:
    """Compare two sessions.

    Args:
        without: The one without agenttrace.
        traced: The one with it.
        alone: What tests that differed became when they were run again, traced and by
            themselves: a test of theirs may be unsteady, too.
    """
    absent = "not there"
    names = without["tests"].keys() | traced["tests"].keys()
    changed: dict[str, tuple[str, str]] = {}
    for name in sorted(names):
        before = without["tests"].get(name, absent)
        after = alone.get(name, traced["tests"].get(name, absent))
        if before != after:
            changed[name] = before, after
    return Difference(
        dict(Counter(without["tests"].values())),
        changed,
        sorted(set(traced["warnings"]) - set(without["warnings"])),
    )
