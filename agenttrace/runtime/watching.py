"""Makes the watchdog of a runtime, when there is something to watch.

Imported by the ticker at its first tick: before, and in a process whose spans are all
over by then, nothing of it is needed.  And what investigates is imported when there is
something to investigate.
"""

# ruff: noqa: PLC0415 - see above

from __future__ import annotations

import math
import time
import weakref
from typing import TYPE_CHECKING, Final

from agenttrace.lazy import no_fork_at_first
from agenttrace.watchdog.limits import Limits
from agenttrace.watchdog.markers import Markers
from agenttrace.watchdog.watch import Watchdog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from agenttrace.model import SpanData
    from agenttrace.registry import OpenSpan, OpenSpans
    from agenttrace.settings import Settings
    from agenttrace.watchdog.errands import Errands
    from agenttrace.watchdog.report import HangReport
    from agenttrace.watchdog.verdict import Verdict
    from agenttrace.watchdog.watch import Note

_BUDGET: Final = 0.3
"""Seconds of one tick that may go into reports.  What is judged then is told without
one: late is worse for most of what hangs at the same time, for the same reason.
"""


def watchdog_of(
    settings: Settings,
    spans: OpenSpans,
    errands: Errands,
    emit: Callable[[SpanData], object],
    note: Note | None,
) -> Watchdog:
    """Return what judges *spans* as *settings* say.

    Args:
        settings: They.
        spans: Those that are open.
        errands: Where the application is called.
        emit: Sends a marker.
        note: Told of each verdict.
    """
    after = settings.visible_after
    return Watchdog(
        spans,
        Limits(settings.heartbeat_timeout, settings.max_duration),
        on_stuck=settings.on_stuck,
        hooks=settings.stuck_hooks,
        describe=_Reports(),
        cancel=_cancel,
        errands=errands,
        markers=None if math.isinf(after) else Markers(after, _weakly(emit)),
        note=note,
    )


def _weakly(emit: Callable[[SpanData], object]) -> Callable[[SpanData], None]:
    """Return what calls the method *emit* while the object that it is of is there.

    An open span keeps its watchdog until another one watches it; the pipeline of a
    runtime that was replaced is not to stay for that, and neither is its journal.
    """
    method = weakref.WeakMethod(emit)

    def call(form: SpanData) -> None:
        live = method()
        if live is not None:
            live(form)

    return call


class _Reports:
    """Describes hangs, in the time that one tick has for it."""

    def __init__(self) -> None:
        self._tick = 0
        self._spent = 0.0

    def __call__(self, span: OpenSpan, verdict: Verdict) -> HangReport | None:
        """Return where *span* hangs; None where there is no more time for it."""
        if verdict.at != self._tick:
            self._tick, self._spent = verdict.at, 0.0
        if self._spent > _BUDGET:
            return None
        began = time.monotonic()
        with no_fork_at_first("report"):
            from agenttrace.watchdog.report import describe
        report = describe(
            span,
            idle=verdict.idle,
            limit=verdict.limit,
            rule=verdict.rule,
            now=verdict.at,
        )
        self._spent += time.monotonic() - began
        return report


def _cancel(asked: Iterable[tuple[OpenSpan, str]]) -> int:
    """Cancel the tasks that spans belong to; return how many there were."""
    with no_fork_at_first("cancelling"):
        from agenttrace.watchdog.cancelling import cancel_all
    return cancel_all(asked)
