"""Runs an agent, a stream or a wrapper through all that can become of it.

| module | owns |
|---|---|
| `subjects` | what a run is, and how it is begun and closed |
| `reading` | how it is read, and left |
| `steps` | one suspension of a coroutine, at which something is done |
| `coroutines`, `plain`, `processes` | the cases |
| `stage` | how a case is watched and judged |
| `hearing` | what nobody would hear otherwise |
| `playing` | which cases there are for whom, and their order |
| `promises` | what is promised, and the report |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agenttrace.testing.conforming.playing import Playing
from agenttrace.testing.conforming.promises import Broken, Promise, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = ["Broken", "Promise", "Report", "conformance", "examine"]


def examine(  # noqa: PLR0913 - all but one optional, by keyword
    factory: Callable[[], Any],
    *,
    name: str | None = None,
    tree: str | None = None,
    most_points: int = 40,
    patience: float = 5.0,
    leave_out: Collection[str] = (),
) -> Report:
    """Run what *factory* makes through all that can become of it, and report.

    Args:
        factory: Called for every run.  Returns a coroutine, a generator of either
            kind, a stream (anything that is iterated and closed), or a context manager
            of one; or it is the run itself and returns its result.
        name: What the report calls it; None takes the factory's own name.
        tree: What the spans of an undisturbed run have to be, as `assert_tree` takes
            it: nothing else can know a parent that is wrong every time.
        most_points: Suspensions that are tried at most, evenly spread.
        patience: Seconds that tasks and threads which go on after a run are given to
            come to their end.
        leave_out: Words of cases to leave out, such as "forked" or "killed"; or one
            such word.

    Returns:
        What was tried, and which promises were broken.
    """
    playing = Playing(
        factory,
        name=name,
        tree=tree,
        most_points=most_points,
        patience=patience,
        leave_out=leave_out,
    )
    return playing.play_all()


def conformance(  # noqa: PLR0913 - those of `examine`
    factory: Callable[[], Any],
    *,
    name: str | None = None,
    tree: str | None = None,
    most_points: int = 40,
    patience: float = 5.0,
    leave_out: Collection[str] = (),
) -> Report:
    """`examine`, and fail if a promise was broken.

    Raises:
        AssertionError: One was; the message is the report.

    >>> import agenttrace
    >>> @agenttrace.agent
    ... def count():
    ...     yield from range(3)
    >>> print(conformance(count, name="count", leave_out=["forked", "killed"]))
    count keeps its promises in 17 cases
    """
    __tracebackhide__ = True
    report = examine(
        factory,
        name=name,
        tree=tree,
        most_points=most_points,
        patience=patience,
        leave_out=leave_out,
    )
    report.assert_kept()
    return report
