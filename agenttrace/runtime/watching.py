"""Makes the watchdog of a runtime, when there is something to watch.

Imported by the ticker at its first tick: before, and in a process whose spans are all
over by then, nothing of it is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenttrace.watchdog.cancelling import cancel_task
from agenttrace.watchdog.limits import Limits
from agenttrace.watchdog.watch import Watchdog

if TYPE_CHECKING:
    from agenttrace.registry import OpenSpans
    from agenttrace.settings import Settings


def watchdog_of(settings: Settings, spans: OpenSpans) -> Watchdog:
    """Return what judges *spans* as *settings* say."""
    return Watchdog(
        spans,
        Limits(settings.heartbeat_timeout, settings.max_duration),
        on_stuck=settings.on_stuck,
        hooks=settings.stuck_hooks,
        cancel=cancel_task,
    )
