"""What a runtime says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agenttrace import safety
from agenttrace.records import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agenttrace.delivery.spooler import SpoolerStatus
    from agenttrace.recovery import Recovered
    from agenttrace.registry import OpenSpans
    from agenttrace.runtime.ways import Pipeline

_NOTHING: Final[Mapping[str, int]] = {}


class Status(NamedTuple):
    """What a runtime is and has done; for health endpoints, tests and benchmarks.

    Attributes:
        mode: `own`, `attached` or `disabled`.
        destinations: Where spans go: `otlp`, `console`, `store`, `exporter`; of an
            attached runtime none, its provider has them.
        safe_context: Whether OTel's context tokens are safe to detach anywhere.
        journal: Whether open spans survive the process.
        journal_bytes: Size of the journal's file.
        journal_slots: Open spans that fit into it before it grows.
        spool_bytes: Bytes on disk of what has ended and is not settled.
        open: Spans that are open now.
        started: Spans that have started, unsampled ones included.
        delivery: Queue and destinations; None when attached or disabled.
        counts: agenttrace's own counters (`safety.Count`), of this process: what was
            taken over from dead ones is in `spans_recovered` and `spans_redelivered`,
            what was left to the next one in `spans_left`.
        guard_hits: What the guard swallowed, by site.
    """

    mode: str
    destinations: tuple[str, ...] = ()
    safe_context: bool = False
    journal: bool = False
    journal_bytes: int = 0
    journal_slots: int = 0
    spool_bytes: int = 0
    open: int = 0
    started: int = 0
    delivery: SpoolerStatus | None = None
    counts: Mapping[str, int] = _NOTHING
    guard_hits: Mapping[str, int] = _NOTHING


def status_of(pipeline: Pipeline, registry: OpenSpans, *, safe_context: bool) -> Status:
    """Return the status of a runtime that traces by *pipeline*."""
    journal, delivery = pipeline.journal, pipeline.status()
    return Status(
        mode=pipeline.mode,
        destinations=pipeline.destinations,
        safe_context=safe_context,
        journal=journal is not None,
        journal_bytes=0 if journal is None else journal.size,
        journal_slots=0 if journal is None else journal.slots,
        spool_bytes=0 if delivery is None else delivery.spooled_bytes,
        open=len(registry),
        started=registry.started_count,
        delivery=delivery,
        counts=safety.counts(),
        guard_hits=safety.guard_hits(),
    )


def nothing_recovered() -> Recovered:
    """Return what a recovery comes to where there is nothing to recover."""
    from agenttrace.recovery import (  # noqa: PLC0415 - most processes never recover anything
        Recovered,
    )

    return Recovered()
