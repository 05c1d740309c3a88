"""What an investigation finds: a cause, in a word and in words, and who waits for whom.

It owns what is said, and which of several findings says most.  How it is found is
`investigation`'s business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from agenttrace.watchdog.causes import Cause
from agenttrace.watchdog.frames import told

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agenttrace.watchdog.causes import Wait
    from agenttrace.watchdog.frames import Frame, Line
    from agenttrace.watchdog.upstream import Upstream

_MAX_NAME: Final = 120


class Link:
    """One task or one thread in a chain of waiting.

    Attributes:
        kind: `task`, `thread`, or `callback` of a loop.
        name: Its name, on one line.
        frames: Its stack, outermost first.
    """

    __slots__ = ("frames", "kind", "name")

    def __init__(self, kind: str, name: str, lines: list[Line]) -> None:
        self.kind = kind
        # Of the application's making, so on one line, and not of any length.
        self.name = " ".join(name[:_MAX_NAME].split())
        self.frames: list[Frame] = told(lines)

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class Finding:
    """What was found.

    Attributes:
        cause: Its class.
        why: In words.
        links: Who waits for whom, from the span's own to the last.
    """

    __slots__ = ("cause", "links", "why")

    def __init__(self, cause: Cause, why: str, *links: Link) -> None:
        self.cause = cause
        self.why = why
        self.links: list[Link] = list(links)


# Which of several is told, where a task waits for more than one.
_WORTH: Final = (
    Cause.EVENT_LOOP_BLOCKED,
    Cause.LOCK,
    Cause.NETWORK_WAIT,
    Cause.THREAD,
    Cause.AWAITING_NOTHING,
    Cause.SUBTASK,
    Cause.SLEEP,
    Cause.UNKNOWN,
)
WEAK: Final = (Cause.AWAITING_NOTHING, Cause.SLEEP, Cause.UNKNOWN)
"""Causes that say so little that others are looked at as well."""


def most_telling(found: Iterable[Finding]) -> Finding:
    """Return the one of *found* that says most; of equals the first."""
    return min(found, key=lambda each: _WORTH.index(each.cause))


def is_enough(wait: Wait) -> bool:
    """Return whether *wait* says more than whoever resolves it could."""
    return wait.weight > 1 and wait.cause is not Cause.THREAD


def concluded(
    wait: Wait | None, upstream: Upstream, own: Link, *, is_circular: bool
) -> Finding:
    """Return what is to be said where a chain of waiting ends.

    Args:
        wait: What the stack of *own* tells.
        upstream: Who is to resolve it, of whom no more was found.
        own: The last of the chain.
        is_circular: Whether one of these stands above it in the same chain.
    """
    if is_circular and (wait is None or not is_enough(wait)):
        cause = Cause.SUBTASK if upstream.tasks else Cause.THREAD
        who = "a task" if upstream.tasks else "a thread"
        why = f"it waits for {who} that waits for it"
        return Finding(cause, why, own)
    if upstream.queued and (wait is None or wait.cause is not Cause.NETWORK_WAIT):
        why = "no thread of its pool is free for it, or its loop does not run"
        return Finding(Cause.THREAD, why, own)
    is_of_a_pool = upstream.futures and (wait is None or wait.cause is Cause.THREAD)
    if wait is not None and not is_of_a_pool:
        return Finding(wait.cause, f"it waits for {wait.what}", own)
    if upstream.tasks:
        return Finding(Cause.SUBTASK, "it waits for a task further up", own)
    if upstream.futures:
        why = "it waits for work of another process, or of a thread of no pool"
        return Finding(Cause.UNKNOWN, why, own)
    return Finding(
        Cause.AWAITING_NOTHING, "it waits for a future that nobody is at work on", own
    )


def doing(wait: Wait | None, call: str | None) -> str:
    """Return what a thread does that waits for time to pass, or for nothing known.

    Args:
        wait: What its stack tells.
        call: The function without a frame that it is calling, if that is known.
    """
    if wait is not None:
        return "sleeps"
    if call is None:
        return "is at work, or in a call without a frame"
    return f"is at work, or in a call of {call[:_MAX_NAME]}, which has no frame"


def name_of(task: Any) -> str:  # noqa: ANN401 - of any make
    """Return the name of *task* and of its coroutine, where that says more."""
    name = str(task.get_name())
    coroutine = getattr(task.get_coro(), "__qualname__", "")
    return f"{name} ({coroutine})" if coroutine else name
