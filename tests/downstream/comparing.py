"""What a suite came to without agenttrace and with it, and how that differs.  Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypedDict

if TYPE_CHECKING:
    from collections.abc import Sequence

_ABSENT: Final = "not there"


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


def difference(without: Sequence[Ran], traced: Sequence[Ran]) -> Difference:
    """Compare sessions; what varies without agenttrace is not held against it.

    Args:
        without: Those without agenttrace.
        traced: Those with it.
    """
    names = {name for ran in (*without, *traced) for name in ran["tests"]}
    changed: dict[str, tuple[str, str]] = {}
    for name in sorted(names):
        before, *others = (ran["tests"].get(name, _ABSENT) for ran in without)
        if any(other != before for other in others):
            continue
        # Once is enough: it never did that without us.
        for ran in traced:
            after = ran["tests"].get(name, _ABSENT)
            if after != before:
                changed[name] = before, after
    known = {warning for ran in without for warning in ran["warnings"]}
    return Difference(
        dict(Counter(without[0]["tests"].values())),
        changed,
        sorted({it for ran in traced for it in ran["warnings"]} - known),
    )
