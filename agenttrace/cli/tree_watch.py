"""What `agenttrace tree --watch` looks at, and how it is drawn.

The latest runs, as they are, and those that are open with their open steps.  Spans of a
run are read again only when there are more of them.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from agenttrace.delivery.store import FILE_NAME, Reader, Run
from agenttrace.delivery.store.as_json import run_as_json, span_as_json
from agenttrace.live import Live, step_as_json, trees_of
from agenttrace.records import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from rich.console import Console, RenderableType

    from agenttrace.live import Process, Step
    from agenttrace.model import Outcome, SpanData

READ: Final = 2_000
"""Spans that are read of one run: more than that does not fit on any screen."""


class Seen(NamedTuple):
    """A run as it is.

    Args:
        run: What it came to so far.
        ended: Its spans that have ended.
        steps: Its steps that are open, or were judged and are still their owner's.
        now: The instant, nanoseconds since the epoch.
    """

    run: Run
    ended: Sequence[SpanData]
    steps: Sequence[Step]
    now: int

    @property
    def is_open(self) -> bool:
        """Whether a step of it is still open."""
        return any(not step.is_judged for step in self.steps)


class Watch:
    """Looks at the runs of one state directory.

    Args:
        state_dir: The state directory.
        last: How many of the latest runs.
        trace: The beginning of the one trace id that is asked for, None = any.
        service: Only runs in which it took part, None = any.
        outcome: Only runs in which a step ended so, None = any.
    """

    def __init__(
        self,
        state_dir: Path,
        last: int,
        *,
        trace: str | None,
        service: str | None,
        outcome: Outcome | None,
    ) -> None:
        self.state_dir = state_dir
        self._reader = Reader(state_dir / FILE_NAME)
        self._live = Live(state_dir)
        self._last = last
        self._trace = trace
        self._service = service
        self._outcome = outcome
        self._spans: dict[str, tuple[int, list[SpanData]]] = {}
        self._told: dict[str, object] = {}

    def look(self) -> list[Seen]:
        """Return the runs: those that are open first, then the latest first.

        Raises:
            AmbiguousTraceError: The beginning of a trace id fits several runs.
            StoreUnreadableError: The store is damaged, out of reach or not one.
        """
        picture = self._live.look()
        now = picture.now
        steps: defaultdict[str, list[Step]] = defaultdict(list)
        service: dict[str, str | None] = {}
        for process in picture.processes:
            for step in process.forest.steps:
                trace_id = step.slot.trace_id.hex()
                if self._is_wanted(trace_id, process):
                    steps[trace_id].append(step)
                    service.setdefault(trace_id, process.service)
        runs = {run.trace_id: run for run in self._runs()}
        spans = {key: self._ended(run) for key, run in runs.items()}
        self._spans = spans
        seen = [
            Seen(_named(run, steps.get(key)), spans[key][1], steps.get(key, ()), now)
            for key, run in runs.items()
        ]
        if self._outcome is None:
            seen += [
                Seen(_begun(key, found, service[key], now), (), found, now)
                for key, found in steps.items()
                if key not in runs
            ]
        seen.sort(key=lambda each: (each.is_open, each.run.started), reverse=True)
        return seen

    def changed(self) -> Iterator[dict[str, object]]:
        """Yield as JSON each run of which something has begun or ended since."""
        seen = self.look()
        before, self._told = self._told, {}
        for each in reversed(seen):
            facts = (
                each.run.spans,
                tuple((step.slot.span_id, step.is_judged) for step in each.steps),
            )
            key = each.run.trace_id
            self._told[key] = facts
            if before.get(key) != facts:
                yield _as_json(each)

    def _is_wanted(self, trace_id: str, process: Process) -> bool:
        if self._trace is not None:
            return trace_id.startswith(self._trace.strip().lower())
        return self._service in {None, process.service}

    def _runs(self) -> list[Run]:
        if self._trace is None:
            return self._reader.runs(
                self._last, service=self._service, outcome=self._outcome
            )
        run = self._reader.run(self._trace)
        return [] if run is None else [run]

    def _ended(self, run: Run) -> tuple[int, list[SpanData]]:
        known = self._spans.get(run.trace_id)
        if known is not None and known[0] == run.spans:
            return known
        return run.spans, self._reader.spans(run.trace_id, limit=READ)


def screen(state_dir: Path) -> AbstractContextManager[Callable[[list[Seen]], None]]:
    """Return what fills the terminal with runs, over what was there."""
    from rich.console import Group  # noqa: PLC0415 - not needed for JSON
    from rich.text import Text  # noqa: PLC0415 - the same

    from agenttrace import render  # noqa: PLC0415 - the same
    from agenttrace.cli import drawn  # noqa: PLC0415 - the same

    def of(seen: list[Seen], on: Console) -> RenderableType:
        going = sum(each.is_open for each in seen)
        runs = "1 run" if len(seen) == 1 else f"{len(seen)} runs"
        parts: list[RenderableType] = [
            Text(f"{runs}, {going} open    q ends it", "dim")
        ]
        if not seen:
            parts.append(Text(f"No run to show in {state_dir}.", "dim"))
        room = on.size.height
        for each in seen:
            if room <= 0:
                break  # the rest is beneath the screen
            trees = trees_of(each.ended, each.steps, each.now)
            tree = render.render(
                trees, run=each.run, limit=room, ascii_only=on.options.ascii_only
            )
            parts += [Text(), tree]
            room -= 2 + sum(1 for top in trees for _ in top.walk())
        return Group(*parts)

    return drawn.screen(of)


def _top_of(steps: Sequence[Step]) -> Step:
    """Return the root of a run, or what stands in its place where that is elsewhere."""
    return min(steps, key=lambda step: (bool(step.slot.parent_id), -step.age))


def _named(run: Run, steps: Sequence[Step] | None) -> Run:
    """Return *run* with the name of its root, which may still be open."""
    if run.name is not None or not steps:
        return run
    return replace(run, name=_top_of(steps).slot.name)


def _begun(key: str, steps: Sequence[Step], service: str | None, now: int) -> Run:
    """Return what is known of a run of which nothing has ended yet."""
    started = min(step.slot.started_at for step in steps)
    return Run(
        trace_id=key,
        name=_top_of(steps).slot.name,
        service=service,
        started=started,
        duration=max(0, now - started) / 1e9,
        outcome=None,
        spans=0,
        errors=0,
        tokens=(None, None),
    )


def _as_json(seen: Seen) -> dict[str, object]:
    trees = trees_of(seen.ended, (), seen.now)
    return {
        **run_as_json(seen.run),
        "is_open": seen.is_open,
        "spans": [span_as_json(node) for top in trees for node in top.walk()],
        "open": [step_as_json(step) for step in seen.steps],
    }
