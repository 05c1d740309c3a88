"""What a busy worker knows of its spans, and whether a collector was told the same.

The worker writes a line after each event, so the truth is never ahead of what was
promised: a span whose start is written has started, one whose end is written has ended.
What happened in the instant between event and line is known to nobody, and either form
of it is right.

Pure: lines and forms in, findings out.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LOST: Final = "lost"
NO_PARENT: Final = "-"


@dataclass(slots=True)
class Told:
    """What a collector was told of one span.

    Args:
        digests: How often each form came, by a digest of all its bytes.
        outcome: Of the form that came last.
        parent: Id of its parent, `NO_PARENT` for a root.
        service: `service.name` of its resource.
        unanswered: How often it came in a request that was taken and never answered.
    """

    digests: Counter[str] = field(default_factory=Counter[str])
    outcome: str = ""
    parent: str = NO_PARENT
    service: str = ""
    unanswered: int = 0

    @property
    def times(self) -> int:
        """How often it came."""
        return self.digests.total()


@dataclass(slots=True)
class Known:
    """What the worker wrote of one span.

    Args:
        parent: Id of its parent.
        plan: The outcome that it was going to have.
        has_ended: Whether it had it.
        verdict: The outcome that was told of it before its end, if one was.
    """

    parent: str
    plan: str
    has_ended: bool = False
    verdict: str | None = None

    @property
    def outcomes(self) -> set[str]:
        """What may be told of it."""
        if self.verdict is not None:
            # Until its frame is written, a verdict is known to its process alone.
            return {self.verdict, LOST}
        return {self.plan} if self.has_ended else {self.plan, LOST}


@dataclass(slots=True)
class Findings:
    """What comes of the comparison.

    Args:
        known: Spans whose start was written.
        told: Spans that the collector has.
        lost: Started, and never told.
        wrong: Told with another outcome, parent or service than the true one.
        split: Told in two different forms.
        redelivered: How often a span came that had come before, byte for byte.
        unexplained: Spans that came more often than kills and cut answers explain.
        outcomes: How many spans were told with each outcome.
    """

    known: int = 0
    told: int = 0
    lost: list[str] = field(default_factory=list[str])
    wrong: list[str] = field(default_factory=list[str])
    split: list[str] = field(default_factory=list[str])
    redelivered: int = 0
    unexplained: list[str] = field(default_factory=list[str])
    outcomes: Counter[str] = field(default_factory=Counter[str])

    @property
    def is_good(self) -> bool:
        """Whether every promise was kept."""
        return not (self.lost or self.wrong or self.split or self.unexplained)


def started(ids: str, parent: str, plan: str) -> bytes:
    """Return the line that says that the span *ids* has started."""
    return f"S {ids} {parent} {plan}\n".encode()


def ended(ids: str) -> bytes:
    """Return the line that says that the span *ids* has ended, as was planned."""
    return f"E {ids}\n".encode()


def judged(ids: str, verdict: str) -> bytes:
    """Return the line that says that *verdict* is about to be told of *ids*."""
    return f"J {ids} {verdict}\n".encode()


def read(lines: Iterable[str]) -> dict[str, Known]:
    """Return what *lines* say, by trace id and span id in one.

    >>> read(["S a1 - ok", "E a1"])
    {'a1': Known(parent='-', plan='ok', has_ended=True, verdict=None)}
    """
    spans: dict[str, Known] = {}
    for line in lines:
        match line.split():
            case ["S", ids, parent, plan]:
                spans[ids] = Known(parent, plan)
            case ["E", ids]:
                spans[ids].has_ended = True
            case ["J", ids, verdict]:
                spans[ids].verdict = verdict
            case _:
                message = f"the truth has a line that says nothing: {line!r}"
                raise ValueError(message)
    return spans


def compare(
    known: Mapping[str, Known],
    told: Mapping[str, Told],
    in_flight: Mapping[str, int],
    service: str,
) -> Findings:
    """Return what is different between *known* and *told*.

    Args:
        known: What the workers wrote.
        told: What the collector has.
        in_flight: By span, how many kills found it in a frame without an answer:
            so often it may come once more.
        service: The name that all of them are told under.
    """
    found = Findings(known=len(known), told=len(told))
    found.lost = [ids for ids in known if ids not in told]
    for ids, form in told.items():
        found.outcomes[form.outcome] += 1
        if len(form.digests) > 1:
            found.split.append(f"{ids} {dict(form.digests)}")
        found.redelivered += form.times - 1
        if form.times - 1 > in_flight.get(ids, 0) + form.unanswered:
            found.unexplained.append(f"{ids} came {form.times} times")
        truth = known.get(ids)
        if truth is None:
            # It started in the instant before its process died, or tells a late end.
            continue
        if form.outcome not in truth.outcomes:
            found.wrong.append(f"{ids} is told as {form.outcome}: {truth}")
        elif form.parent != truth.parent:
            found.wrong.append(f"{ids} is told under {form.parent}: {truth}")
        elif form.service != service:
            found.wrong.append(f"{ids} is told of {form.service!r}: {truth}")
    return found
