"""The event loop monitor of a runtime, made when the first span opens."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from agenttrace import safety
from agenttrace.runtime.process import PROCESS
from agenttrace.settings import DUMP_SUFFIX
from agenttrace.watchdog.loops import LoopMonitor

if TYPE_CHECKING:
    from collections.abc import Callable

    from agenttrace.journal import Journal
    from agenttrace.model import SpanData
    from agenttrace.registry import OpenSpans
    from agenttrace.settings import Settings
    from agenttrace.watchdog.backstop import Backstop


def loop_monitor(
    settings: Settings,
    registry: OpenSpans,
    emit: Callable[[SpanData], None],
    journal: Journal | None,
) -> LoopMonitor:
    """Return the monitor that tells *emit* of blocked loops."""
    return LoopMonitor(
        registry,
        emit,
        after=settings.loop_blocked_after,
        backstop=_backstop(settings, journal),
        occupied=lambda: PROCESS.ticker.occupied,
        later=_later,
    )


def _later(site: str, call: Callable[[], object]) -> None:
    PROCESS.errands.ask(site, call)  # which are imported when there is one


def _backstop(settings: Settings, journal: Journal | None) -> Backstop | None:
    if math.isinf(settings.gil_dump_after):
        return None
    if journal is None:
        safety.log_once(
            "gil_dump_after",
            logging.WARNING,
            "gil_dump_after has no effect: without a journal (settings: state_dir, "
            "durable) there is nowhere to write to",
        )
        return None
    from agenttrace.watchdog.backstop import (  # noqa: PLC0415 - only where it is asked for
        Backstop,
    )

    try:
        return Backstop(journal.path.with_suffix(DUMP_SUFFIX), settings.gil_dump_after)
    except OSError as error:
        safety.log_once(
            "gil_dump_after",
            logging.WARNING,
            "gil_dump_after has no effect: no file can be made (%s)",
            error,
        )
        return None
