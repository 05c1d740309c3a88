"""Cancels the tasks that spans hang in: `on_stuck="cancel"`.

A task is cancelled by its own loop, and only if it is still in the span by then.  It
has to be known to be the span's own: of what belongs to a thread, or to one of several
tasks, nothing is cancelled.

Many may hang at the same time, for the same reason.  So the tasks of all of them are
found at one look, as far as they have entered their spans; whose work any other is, is
found as for a report (`owners`), one after the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenttrace import safety
from agenttrace.watchdog import tasks, threads
from agenttrace.watchdog.owners import Owners

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agenttrace.registry import OpenSpan
    from agenttrace.watchdog.tasks import Entrants, Task


def cancel_all(asked: Iterable[tuple[OpenSpan, str]]) -> int:
    """Cancel the tasks that spans belong to; return how many there were.

    Args:
        asked: The records of spans that were judged, each with what its task's
            `CancelledError` is to say.  It is gone through once, and may end early.
    """
    entrants: Entrants | None = None
    number = 0
    for span, message in asked:
        if entrants is None:
            entrants = tasks.Entrants(tasks.all_tasks())
        number += bool(safety.guarded("hang cancel", _cancel, span, message, entrants))
    return number


def _cancel(span: OpenSpan, message: str, entrants: Entrants) -> bool:
    task = _task_of(span, entrants)
    if task is None or task.done():
        return False

    def cancel_it() -> None:
        if not task.done() and tasks.is_in(task, span.span_id):
            task.cancel(message)

    try:
        task.get_loop().call_soon_threadsafe(cancel_it)
    except RuntimeError:  # its loop has been closed
        return False
    return True


def _task_of(span: OpenSpan, entrants: Entrants) -> Task | None:
    """Return the task that is known to be the one of *span*."""
    entered = entrants.of(span.span_id)
    if entered:
        return entered[0] if len(entered) == 1 else None
    owner = Owners(threads.stacks(), tasks.all_tasks()).owner_of(span)
    return owner.task if owner.certain else None
