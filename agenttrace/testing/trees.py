"""Draws trees of spans as text, and compares them with text that somebody wrote.

    invoke_agent triage
      chat *: ok items=5
      execute_tool search: error ValueError
      ...

A line is a span, its indentation says under which one.  After the name may follow the
outcome, the error type and facts (`items=5`, `duration<2`).  What is not said is not
compared, but for the outcome: a span of which none is said has to be `ok`, since a step
that went wrong must not pass unseen; `: *` allows any.  A `*` in a name or value stands
for any text, a line `...` for any further spans at its place, with all beneath them.

Pure: no span, no clock.  The comparison is one alignment of lines at least cost: where
that costs nothing the trees are the same, and elsewhere it is the difference to show.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from agenttrace.model import (
    LOST_ERROR_TYPE,
    STUCK_ERROR_TYPE,
    TIMEOUT_ERROR_TYPE,
    Outcome,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

OPEN: Final = "open"
"""The word for a span that has not ended, where the others have their outcome."""
FACTS: Final = (
    "items",
    "ended_by",
    "input_tokens",
    "output_tokens",
    "links",
    "duration",
)
"""What a line may say of a span besides outcome and error type."""
_COMPARISONS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_SAID: Final = re.compile(r"(\w*)(=|<=?|>=?)(.*)", re.DOTALL)
"""A fact: its name, how it is compared, and with what."""
_ANY: Final = "*"
_FURTHER: Final = "..."
_OUTCOMES: Final = frozenset({OPEN, _ANY, *(outcome.value for outcome in Outcome)})
_WITH_ERROR_TYPE: Final = frozenset({"error", "timed_out", "stuck", "lost", _ANY})
_SAID_BY_OUTCOME: Final = frozenset(
    {TIMEOUT_ERROR_TYPE, STUCK_ERROR_TYPE, LOST_ERROR_TYPE}
)
_STEP: Final = 2
"""Columns that a level is indented by."""

_MISSING_COST: Final = 2
_ALTERED_COST: Final = 3  # less than one missing and one too many
_Move = tuple[int, str, int, int]  # cost, marks that are shown, pattern, line
_Line = tuple[int, "Branch"]  # depth, span


@dataclass(slots=True)
class Branch:
    """One span as a line, with the lines beneath it.

    Args:
        name: The span's name.
        outcome: Its outcome, `open`, or "" where nobody has said.
        error_type: `error.type`, or None.
        facts: Values by the words in `FACTS`; those that are None are unknown.
        children: In order.
    """

    name: str
    outcome: str
    error_type: str | None = None
    facts: Mapping[str, object] = field(default_factory=dict[str, object])
    children: list[Branch] = field(default_factory=list["Branch"])

    def line(self, facts: Iterable[str] = ("items",)) -> str:
        """Return the line without indentation, with those of *facts* that are known."""
        words = [self.outcome] if self.outcome else []
        if self.error_type is not None and self.error_type not in _SAID_BY_OUTCOME:
            words.append(self.error_type)
        words += [
            f"{fact}={self.facts[fact]}"
            for fact in facts
            if self.facts.get(fact) is not None
        ]
        title = _one_line(self.name)
        return f"{title}: {' '.join(words)}" if words else title


@dataclass(frozen=True, slots=True)
class Pattern:
    """One line of an expected tree.

    Args:
        depth: Its level, 0 at the top.
        text: The line as it was written, without indentation.
        name: With wildcards; None stands for any further spans (`...`).
        outcome: With wildcards.
        error_type: With wildcards; None is not compared.
        facts: By fact, how it is compared (`=` with wildcards, `<`, ...) and with what.
    """

    depth: int
    text: str
    name: str | None
    outcome: str = Outcome.OK.value
    error_type: str | None = None
    facts: Mapping[str, tuple[str, str]] = field(
        default_factory=dict[str, tuple[str, str]]
    )

    def is_named(self, branch: Branch) -> bool:
        """Return whether *branch* goes by this name."""
        return self.name is not None and fits(self.name, _one_line(branch.name))

    def matches(self, branch: Branch) -> bool:
        """Return whether *branch* is all that this line says."""
        return (
            self.is_named(branch)
            and fits(self.outcome, branch.outcome)
            and (
                self.error_type is None
                or fits(self.error_type, branch.error_type or "")
            )
            and all(
                _holds(branch.facts.get(fact), comparison, expected)
                for fact, (comparison, expected) in self.facts.items()
            )
        )


def fits(pattern: str, text: str) -> bool:
    """Return whether *text* is *pattern*, where `*` stands for any text.

    >>> fits("chat *", "chat gpt-4o"), fits("chat [a]", "chat a")
    (True, False)
    """
    expression = re.escape(pattern).replace(r"\*", ".*")
    return re.fullmatch(expression, text, re.DOTALL) is not None


def draw(branches: Sequence[Branch]) -> str:
    """Return *branches* as text, one line a span.

    >>> search = Branch("search", "error", "KeyError")
    >>> print(draw([Branch("plan", "ok", children=[search])]))
    plan: ok
      search: error KeyError
    """
    return "\n".join(
        f"{' ' * _STEP * depth}{branch.line()}" for depth, branch in _flat(branches)
    )


def parse(text: str) -> list[Pattern]:
    """Return the lines of an expected tree.

    Raises:
        ValueError: A line cannot be meant; the message says which, and why.

    >>> [(line.depth, line.name, line.outcome) for line in parse('''
    ...     plan
    ...       search: error KeyError
    ... ''')]
    [(0, 'plan', 'ok'), (1, 'search', 'error')]
    """
    patterns: list[Pattern] = []
    columns: list[int] = []
    for number, line in enumerate(text.expandtabs().splitlines(), start=1):
        said = line.strip()
        if not said:
            continue
        column = len(line) - len(line.lstrip())
        while columns and column < columns[-1]:
            columns.pop()
        if not columns or column > columns[-1]:
            first = not patterns
            deeper = bool(columns) and patterns[-1].depth == len(columns) - 1
            if not (first or deeper):
                message = f"line {number} is indented like no line above it: {said!r}"
                raise ValueError(message)
            if not first and patterns[-1].name is None:
                message = f"line {number}: nothing can stand beneath `...`: {said!r}"
                raise ValueError(message)
            columns.append(column)
        patterns.append(_pattern(len(columns) - 1, said, number))
    return patterns


def _pattern(depth: int, said: str, number: int) -> Pattern:
    if said == _FURTHER:
        return Pattern(depth, said, None)
    name, separator, tail = said.rpartition(": ")
    read = _read(tail.split(" ")) if separator else None
    if read is None:  # names may hold colons as well
        return Pattern(depth, said, said)
    outcome, error_type, facts = read
    unknown = facts.keys() - set(FACTS)
    if unknown:
        message = (
            f"line {number}: {', '.join(sorted(unknown))} is no fact of a span: it "
            f"may be {', '.join(FACTS)}: {said!r}"
        )
        raise ValueError(message)
    for fact, (comparison, expected) in facts.items():
        if comparison != "=" and _number(expected) is None:
            message = (
                f"line {number}: {fact}{comparison}{expected}: {expected!r} is no "
                f"number: {said!r}"
            )
            raise ValueError(message)
    return Pattern(depth, said, name, outcome, error_type, facts)


def _read(
    words: list[str],
) -> tuple[str, str | None, dict[str, tuple[str, str]]] | None:
    """Return what stands after the name, None where these words are part of it."""
    rest = list(words)
    said = rest.pop(0) if rest[0] in _OUTCOMES else None
    error_type = None
    if said in _WITH_ERROR_TYPE and rest and not _SAID.fullmatch(rest[0]):
        error_type = rest.pop(0)
    found = [each for word in rest if (each := _SAID.fullmatch(word))]
    facts = {each[1]: (each[2], each[3]) for each in found}
    if len(facts) < len(rest) or (said is None and facts.keys() - set(FACTS)):
        return None
    return said or Outcome.OK.value, error_type, facts


def difference(patterns: Sequence[Pattern], branches: Sequence[Branch]) -> str | None:
    """Return how *branches* differ from *patterns*, None where they do not.

    >>> print(difference(parse('''
    ...     plan
    ...       search
    ... '''), [Branch("plan", "ok", children=[Branch("search", "cancelled")])]))
      plan
    -   search
    +   search: cancelled
    """
    lines = list(_flat(branches))
    moves = _alignment(patterns, lines)
    if moves[0, 0, False][0] == 0:
        return None
    shown: list[str] = []
    at, on, within = 0, 0, False
    while at < len(patterns) or on < len(lines):
        _, marks, next_at, next_on = moves[at, on, within]
        asked: set[str] = {"items"}
        for mark in marks:
            if mark == "+":
                depth, branch = lines[on]
                text = branch.line([fact for fact in FACTS if fact in asked])
            else:
                depth, text = patterns[at].depth, patterns[at].text
                asked.update(patterns[at].facts)
            shown.append(f"{mark} {' ' * _STEP * depth}{text}")
        # Taken up by a `...`, which stays where it is.
        within = next_at == at and not marks
        at, on = next_at, next_on
    return "\n".join(shown)


def _alignment(
    patterns: Sequence[Pattern], lines: Sequence[_Line]
) -> dict[tuple[int, int, bool], _Move]:
    """Return the cheapest way on from each place: pattern, line, within a `...` or not.

    In preorder depths alone say what stands beneath what, so trees are compared as
    lists.
    """
    moves: dict[tuple[int, int, bool], _Move] = {}
    for at in range(len(patterns), -1, -1):
        pattern = patterns[at] if at < len(patterns) else None
        for on in range(len(lines), -1, -1):
            line = lines[on] if on < len(lines) else None
            for within in (True, False):
                ways = [
                    (
                        cost + moves[at + read, on + seen, not (read or marks)][0],
                        marks,
                        at + read,
                        on + seen,
                    )
                    for cost, marks, read, seen in _ways(pattern, line, within=within)
                ]
                moves[at, on, within] = min(ways, default=(0, "", at, on), key=_cost)
    return moves


def _ways(
    pattern: Pattern | None, line: _Line | None, *, within: bool
) -> Iterator[_Move]:
    """Yield the ways on from *pattern* and *line*: cost, marks, and how many of each.

    A `...` takes up spans of its own depth with all that is beneath them.
    """
    if pattern is not None and line is not None:
        depth, branch = line
        deeper = depth - pattern.depth
        if pattern.name is None:
            if deeper == 0 or (within and deeper > 0):
                yield 0, "", 0, 1
        elif deeper == 0 and pattern.matches(branch):
            yield 0, " ", 1, 1
        elif deeper == 0 and pattern.is_named(branch):
            yield _ALTERED_COST, "-+", 1, 1
    if pattern is not None:
        free = pattern.name is None
        yield (0, " ", 1, 0) if free else (_MISSING_COST, "-", 1, 0)
    if line is not None:
        yield _MISSING_COST, "+", 0, 1


def _cost(move: _Move) -> int:
    return move[0]


def _flat(branches: Sequence[Branch]) -> Iterator[tuple[int, Branch]]:
    waiting = [(0, branch) for branch in reversed(branches)]
    while waiting:
        depth, branch = waiting.pop()
        yield depth, branch
        waiting.extend((depth + 1, child) for child in reversed(branch.children))


def _one_line(name: str) -> str:
    return " ".join(name.split("\n")).strip()


def _holds(value: object, comparison: str, expected: str) -> bool:
    if comparison == "=":
        return fits(expected, _text(value))
    limit = _number(expected)
    return (
        isinstance(value, int | float)
        and limit is not None
        and _COMPARISONS[comparison](value, limit)
    )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _text(value: object) -> str:
    return "" if value is None else str(value)
