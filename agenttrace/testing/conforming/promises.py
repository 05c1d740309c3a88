"""What is promised of spans, what is said when a promise is broken, and the report.

Values and words.  What breaks a promise is found by `stage`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

_UNSAID: Final = (
    "end() says so unless an exception is on its way: a decorated generator hears how "
    "it is left"
)
_MOST_CASES: Final = 4
"""Further cases that are named beside the first one that broke a promise alike."""


class Promise(Enum):
    """What holds of the spans of a run, whatever becomes of the run."""

    TRACED = "the run is traced"
    CLOSED = "every span ends"
    ONCE = "a span ends once"
    TRUTH = "a span says how it ended"
    TREE = "every span has its place in the run"
    CURRENT = "no span of the run is current outside of it"
    THROUGH = "the run behaves as it would without spans"
    QUIET = "nothing goes wrong unseen"


@dataclass(frozen=True, slots=True)
class Broken:
    """One promise that was broken, in one case.

    Attributes:
        promise: Which.
        case: When, as words that follow "when": "it is left after item 1 and closed".
        where: Where the run was just then; empty where that says nothing.
        what: What was found, without an end of line.
    """

    promise: Promise
    case: str
    where: str
    what: str


@dataclass(slots=True)
class Report:
    """What `examine` has found.

    Attributes:
        name: Of what.
        cases: The cases that were played, each as words that follow "when".
        broken: The promises that were broken, in the order of the cases.
        skipped: Cases that could not be played, with the reason.
    """

    name: str
    cases: list[str] = field(default_factory=list[str])
    broken: list[Broken] = field(default_factory=list[Broken])
    skipped: list[str] = field(default_factory=list[str])

    @property
    def promises(self) -> list[Promise]:
        """The promises that were broken, in the order of `Promise`."""
        broken = {each.promise for each in self.broken}
        return [promise for promise in Promise if promise in broken]

    def assert_kept(self) -> None:
        """Assert that no promise was broken.

        Raises:
            AssertionError: One was; the message is the report.
        """
        __tracebackhide__ = True
        if self.broken:
            raise AssertionError(str(self))

    def __str__(self) -> str:
        """Return the report: what broke, when, where, and what was found."""
        played = f"{len(self.cases):,} cases"
        if not self.broken:
            lines = [f"{self.name} keeps its promises in {played}"]
        else:
            failed = len({each.case for each in self.broken})
            number = len(self.promises)
            promises = "1 promise" if number == 1 else f"{number} promises"
            lines = [f"{self.name} breaks {promises}, in {failed:,} of {played}"]
        for promise in self.promises:
            lines += ["", promise.value]
            for alike in _alike(self.broken, promise):
                lines += _told(alike)
        lines += ["", *(f"not tried: {each}" for each in self.skipped)]
        return "\n".join(lines).rstrip("\n")


def untrue(name: str, outcome: str, may: Collection[str], *, is_unsaid: bool) -> str:
    """Return what is said of a span that says something else than what happened.

    Args:
        name: Its name.
        outcome: What it says.
        may: What it may say.
        is_unsaid: Whether its owner has ended it without a word.
    """
    was = " or ".join(sorted(may))
    text = f"{name!r} says that it was {outcome}: it was {was}"
    return f"{text}\n{_UNSAID}" if is_unsaid else text


def ageless(text: str, *, beneath: str) -> str:
    """Return *text* without ages and the span *beneath*, so that it is told once."""
    lines = (line.partition(" (open for ")[0] for line in text.splitlines())
    return "\n".join(line.replace(f"{beneath} / ", "", 1) for line in lines)


def _alike(broken: list[Broken], promise: Promise) -> list[list[Broken]]:
    groups: dict[str, list[Broken]] = {}
    for each in broken:
        if each.promise is promise:
            groups.setdefault(each.what, []).append(each)
    return list(groups.values())


def _told(alike: list[Broken]) -> list[str]:
    first, *others = alike
    lines = [f"  when {first.case}"]
    if first.where:
        lines += [f"      {line}" for line in first.where.splitlines()]
    lines += [f"    {line}".rstrip() for line in first.what.splitlines()]
    further = [*dict.fromkeys(each.case for each in others if each.case != first.case)]
    named = [f"when {case}" for case in further[:_MOST_CASES]]
    if len(further) > _MOST_CASES:
        named.append(f"in {len(further) - _MOST_CASES:,} further cases")
    return [*lines, *(f"  and {each}" for each in named)]
