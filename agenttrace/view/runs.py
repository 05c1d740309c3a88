"""What the page is told: runs that have ended and runs that are open, as JSON.

Times are milliseconds since the epoch, which is what browsers count in; durations are
seconds.  What has ended is read from the store only when that has changed, and is told
once: who has a version of it is told what is open alone.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from agenttrace import semconv
from agenttrace.delivery.store import FILE_NAME, Reader
from agenttrace.delivery.store.as_json import run_as_json, span_as_json
from agenttrace.live import Live, dead_as_json, step_as_json
from agenttrace.model import Outcome
from agenttrace.view.ended import Ended

if TYPE_CHECKING:
    from pathlib import Path

    from agenttrace.delivery.store import Node, Run
    from agenttrace.live import Picture, Process, Step

Told = dict[str, Any]
"""What JSON can say."""

MOST: Final = 500
"""Runs that are listed; of those that have ended, the latest."""
RUNNING: Final = "running"
"""What is asked for, beside outcomes: runs that are open."""
_KEPT: Final = 4
"""Runs whose spans are kept: who looks at one looks at it again in a second."""
_FRESH: Final = 0.2
"""Seconds for which what is open is not read again: so long is a tick."""
_MILLISECOND: Final = 1e6


class Runs:
    """The runs of one state directory.  Any thread may ask.

    Args:
        state_dir: The state directory; it need not be there.
    """

    def __init__(self, state_dir: Path) -> None:
        self._reader = Reader(state_dir / FILE_NAME)
        self._live = Live(state_dir)
        self._asking = threading.Lock()
        self._picture: Picture | None = None
        self._looked_at = 0.0
        self._listed: tuple[object, list[Run]] | None = None
        self._summed: tuple[object, Run | None] | None = None
        self._kept: OrderedDict[str, tuple[object, Ended]] = OrderedDict()
        self._lives = itertools.count(1)

    def listed(self, outcome: str | None = None, service: str | None = None) -> Told:
        """Return all runs that are like that: those that are open, then the latest.

        Args:
            outcome: An outcome, as `agenttrace tree` has them, or `running`.
            service: Only runs in which this service took part.

        Raises:
            StoreUnreadableError: The store is damaged, out of reach or not one.
            ValueError: There is no such outcome.
        """
        wanted = None if outcome in {None, RUNNING} else Outcome(outcome)
        with self._asking:
            picture = self._look()
            is_open = _open_runs(picture)
            ended = self._ended(wanted, service)
            if outcome == RUNNING:
                ended = [run for run in ended if run.trace_id in is_open]
            told = [
                _summary(run, is_open.get(run.trace_id), picture.now) for run in ended
            ]
            known = {run.trace_id for run in ended}
            told += [
                _summary(None, found, picture.now)
                for trace_id, found in is_open.items()
                if trace_id not in known
                and service in {None, found.process.service}
                and (wanted is None or wanted in found.verdicts)
            ]
        told.sort(key=_order, reverse=True)
        return {
            "now": picture.now / _MILLISECOND,
            "runs": told[:MOST],
            "more": len(told) > MOST or len(ended) == MOST,
            "services": sorted({each["service"] for each in told} - {None}),
            "dead": [dead_as_json(each) for each in picture.dead],
            "unreadable": [each._asdict() for each in picture.unreadable],
            "frozen": [
                {"pid": each.pid, "service": each.service, "silence": each.silence}
                for each in picture.processes
                if each.is_frozen
            ],
        }

    def run(self, trace_id: str, have: str | None = None) -> Told | None:
        """Return a run with its spans, None where there is none.

        Of those that have ended only those are told that are new, or another thing than
        in the version that is there already, unless `whole` says that they are all.

        Args:
            trace_id: Its id, all of it; of a run of which something has ended, as much
                as tells it from others.
            have: The version of its ended spans that need not be told again.

        Raises:
            StoreUnreadableError: The store is damaged, out of reach or not one.
        """
        with self._asking:
            picture = self._look()
            run = self._run(trace_id)
            trace_id = run.trace_id if run else trace_id
            found = _open_runs(picture).get(trace_id)
            if run is None and found is None:
                return None
            version, is_whole, nodes = self._ended_of(trace_id).since(have)
            spans = [_line(node) for node in nodes]
        return {
            "now": picture.now / _MILLISECOND,
            "run": _summary(run, found, picture.now),
            "version": version,
            "whole": is_whole,
            "spans": spans,
            "open": [] if found is None else [_open_line(*each) for each in found.all],
        }

    def span(self, trace_id: str, span_id: str) -> Told | None:
        """Return all that is known of a span; None where there is no such.

        Args:
            trace_id: The id of its run, as `run` takes it.
            span_id: Its id, all of it.

        Raises:
            StoreUnreadableError: The store is damaged, out of reach or not one.
        """
        with self._asking:
            picture = self._look()
            run = self._run(trace_id)
            trace_id = run.trace_id if run else trace_id
            node = self._ended_of(trace_id).nodes.get(span_id) if run else None
            ended: Told | None = None
            if node is not None:
                ended = span_as_json(node)
                ended["resource"] = {
                    key: str(value)
                    for key, value in node.span.resource.attributes.items()
                }
            found = _open_runs(picture).get(trace_id)
            still: Told | None = None
            for step, process in () if found is None else found.all:
                if step.slot.span_id.hex() == span_id:
                    still = {**step_as_json(step), **_where(process)}
        return None if ended is still is None else {"ended": ended, "open": still}

    def _look(self) -> Picture:
        now = time.monotonic()
        if self._picture is None or now - self._looked_at > _FRESH:
            self._picture = self._live.look()
            self._looked_at = now
        return self._picture

    def _ended(self, outcome: Outcome | None, service: str | None) -> list[Run]:
        asked = (self._stamp(), outcome, service)
        if self._listed is None or self._listed[0] != asked:
            found = self._reader.runs(
                MOST, outcome=outcome, service=service, tokens=False
            )
            self._listed = asked, found
        return self._listed[1]

    def _run(self, trace_id: str) -> Run | None:
        """Return what has ended of a run, summed up; None where nothing has."""
        asked = (self._stamp(), trace_id)
        if self._summed is None or self._summed[0] != asked:
            self._summed = asked, self._reader.run(trace_id, tokens=False)
        return self._summed[1]

    def _ended_of(self, trace_id: str) -> Ended:
        """Return what has ended of a run, span by span."""
        stamp = self._stamp()
        read_at, ended = self._kept.get(trace_id) or (None, None)
        if ended is None:
            ended = Ended(trace_id, self._lives)
        if read_at != stamp:
            ended.read(self._reader)
        self._kept[trace_id] = stamp, ended
        self._kept.move_to_end(trace_id)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return ended

    def _stamp(self) -> object:
        """Return what is another thing when the store has changed."""
        path = self._reader.path
        found: list[object] = []
        for each in (path, path.with_name(f"{path.name}-wal")):
            try:
                facts = each.stat()
            except OSError:
                found.append(None)
            else:
                found.append((facts.st_ino, facts.st_size, facts.st_mtime_ns))
        return tuple(found)


class _Open:
    """What is open of one run, in however many processes."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.all: list[tuple[Step, Process]] = []

    @property
    def verdicts(self) -> set[Outcome]:
        return {step.verdict for step, _ in self.all if step.verdict is not None}

    def urgent(self) -> tuple[Step, Process] | None:
        """Return the step that is to be looked at first, of those not judged."""
        steps = [each for each in self.all if not each[0].is_judged]
        return min(steps, key=_urgency, default=None)


def _urgency(found: tuple[Step, Process]) -> tuple[bool, bool, float]:
    step, process = found
    return not process.is_frozen, step.is_waiting, -step.pressure


def _open_runs(picture: Picture) -> dict[str, _Open]:
    """Return what is open by the trace id."""
    found: dict[str, _Open] = {}
    for process in picture.processes:
        for step in process.forest.steps:
            trace_id = step.slot.trace_id.hex()
            run = found.get(trace_id)
            if run is None:
                run = found[trace_id] = _Open(process)
            run.all.append((step, process))
    return found


def _order(told: Told) -> tuple[bool, float]:
    # What goes on stands above what is over, however long ago it began.
    return bool(told["open"] and told["open"]["steps"]), told["start"]


def _summary(run: Run | None, found: _Open | None, now: int) -> Told:
    """Return the line of a run in the list.  One of the two is there."""
    told: Told = {"outcome": None, "error_count": 0, "stuck_count": 0, "open": None}
    if run is not None:
        told.update(run_as_json(run))
        del told["input_tokens"], told["output_tokens"]  # nobody has summed them
        told["start"], told["end"] = (
            told.pop(key) / _MILLISECOND for key in ("start_ns", "end_ns")
        )
    if found is not None:
        top, process = found.all[0]
        for each in found.all:
            if each[0].above < 0 and not each[0].slot.parent_id:
                top, process = each
        told.setdefault("trace_id", top.slot.trace_id.hex())
        told["name"] = told.get("name") or top.slot.name
        told["service"] = told.get("service") or process.service
        start = min(step.slot.started_at for step, _ in found.all) / _MILLISECOND
        told["start"] = min(start, told.get("start", start))
        told["end"] = now / _MILLISECOND
        told["open"] = _open_summary(found)
        told["span_count"] = told.get("span_count", 0) + told["open"]["steps"]
    return told


def _open_summary(found: _Open) -> Told:
    urgent = found.urgent()
    return {
        # What was judged has its final form in the store.
        "steps": sum(not step.is_judged for step, _ in found.all),
        "judged": sum(step.is_judged for step, _ in found.all),
        "frozen": any(process.is_frozen for _, process in found.all),
        "urgent": None if urgent is None else _open_line(*urgent),
    }


def _line(node: Node) -> Told:
    """Return what the waterfall shows of a span that has ended."""
    span = node.span
    return {
        "id": span.span_id.hex(),
        "parent": span.parent_id.hex() or None,
        "name": span.name,
        "start": span.start_time / _MILLISECOND,
        "duration": node.duration,
        "outcome": node.outcome,
        "ended_by": node.ended_by,
        "error": node.error,
        "tokens": node.tokens,
        "service": span.resource.attributes.get(semconv.SERVICE_NAME),
    }


def _open_line(step: Step, process: Process) -> Told:
    """Return what is shown of a step that is open, or that was judged."""
    slot = step.slot
    pressure = step.pressure
    return {
        "id": slot.span_id.hex(),
        "parent": slot.parent_id.hex() or None,
        "name": slot.name,
        "start": slot.started_at / _MILLISECOND,
        "idle": step.idle,
        "limit": step.limit,
        "max_duration": step.max_duration,
        "waiting": step.is_waiting,
        "judged": step.is_judged,
        "verdict": step.verdict,
        "pressure": pressure if math.isfinite(pressure) else None,
        **_where(process),
    }


def _where(process: Process) -> Told:
    return {
        "pid": process.pid,
        "service": process.service,
        "frozen": process.is_frozen,
    }
