"""Rules that decide when a span that is still open has become a problem.

A rule judges one span at one instant, from facts alone: it starts nothing, ends
nothing and reads no clock, so it can be tested with a few numbers.  The watchdog owns
the queue, the clock and the consequences.

A healthy answer carries the instant at which asking again can change it, which is
always later than now: the watchdog looks then, and never polls.

Instants are nanoseconds on the watchdog's own time line (`timeline`), on which a
suspended host and a starved machine take no time.
"""

from __future__ import annotations

from typing import Final

from agenttrace.watchdog.verdict import OVERDUE, SILENCE, Verdict

SECOND: Final = 1_000_000_000
HELD: Final = SECOND
"""How soon to ask again where a hold is all that keeps a span from being overdue."""


class Healthy:
    """Nothing is wrong, and nothing can be before *until*.

    Args:
        until: When to ask again; None = only other facts could change the answer.
    """

    __slots__ = ("until",)

    def __init__(self, until: int | None) -> None:
        self.until = until

    def __repr__(self) -> str:
        return f"Healthy(until={self.until})"


class Facts:
    """What is known of a span that is open.

    Args:
        started: When it started.
        beat: When it last showed progress; its start counts.
        silence: The longest healthy silence in nanoseconds; None = no limit.
        duration: The longest total time in nanoseconds; None = no limit.
        held: Nanoseconds it has spent in holds, the present one included.
        is_held: Whether it is in one now.
        is_shielded: Whether a child of it is open, which is the one to be judged.
    """

    __slots__ = (
        "beat",
        "duration",
        "held",
        "is_held",
        "is_shielded",
        "silence",
        "started",
    )

    def __init__(  # noqa: PLR0913 - what there is to know
        self,
        started: int,
        beat: int,
        *,
        silence: int | None = None,
        duration: int | None = None,
        held: int = 0,
        is_held: bool = False,
        is_shielded: bool = False,
    ) -> None:
        self.started = started
        self.beat = beat
        self.silence = silence
        self.duration = duration
        self.held = held
        self.is_held = is_held
        self.is_shielded = is_shielded


def judge(facts: Facts, now: int, at: int = 0) -> Healthy | Verdict:
    """Say whether a limit has passed; where both have, the one that passed first.

    In a hold neither passes, and silence does not count beneath an open child: its end
    is a sign of progress, and so is its being judged.

    Args:
        facts: What is known of the span.
        now: The instant at which it is judged.
        at: The same instant, nanoseconds since the epoch: goes on the verdict.

    >>> judge(Facts(0, 100 * SECOND, silence=30 * SECOND), 110 * SECOND)
    Healthy(until=130000000000)
    >>> judge(Facts(0, 100 * SECOND, silence=30 * SECOND), 131 * SECOND)
    <Verdict no progress for 31 s (limit 30 s)>
    """
    silent = overdue = None
    if facts.silence is not None:
        silent = facts.beat + facts.silence
        if silent <= now and (facts.is_held or facts.is_shielded):
            # Whatever ends that is progress, so this is the soonest it can be silent.
            silent = now + facts.silence
    if facts.duration is not None:
        overdue = facts.started + facts.held + facts.duration
        if facts.is_held:
            overdue = max(overdue, now + HELD)
    limits = [limit for limit in (silent, overdue) if limit is not None]
    until = min(limits, default=None)
    # Instants are compared, not durations: what is said to come true at an instant
    # does so then, and the watchdog is not told to look again at once, for ever.
    if until is None or until > now:
        return Healthy(until)
    idle = (now - facts.beat) / SECOND
    if until == silent and facts.silence is not None:
        return Verdict(SILENCE, idle, facts.silence / SECOND, at)
    return Verdict(OVERDUE, idle, (facts.duration or 0) / SECOND, at)
