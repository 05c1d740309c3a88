"""The account: what the store has of the runs, compared with what has started.

The store is read like any other reader would, from its file, after the tracing has
been shut down.  What was started comes from the `tally` alone.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from agenttrace.delivery.store import Node, Reader, Run, build_forest
from agenttrace.delivery.store.reader import StoreUnreadableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from agenttrace.demo.backend import Backend
    from agenttrace.demo.scenarios import Scenario
    from agenttrace.demo.tally import Started

SERVICE: Final = "agenttrace-demo"
"""`service.name` of every span of the demo."""
_MOST_RUNS: Final = 1000
"""Of the store, that are counted: more than that nobody looks through."""


@dataclass(frozen=True, slots=True)
class Act:
    """One scenario that was played.

    Args:
        scenario: Which.
        started: The spans that started in it, by the tally.
        trouble: What kept it from being played to its end.
    """

    scenario: Scenario
    started: Sequence[Started]
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """What an OTLP endpoint has acknowledged.

    Args:
        to: Where.
        acknowledged: How many spans.
        error: What went wrong there last.
    """

    to: str
    acknowledged: int
    error: str | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One run, as the store has it.

    Args:
        act: What was played.
        run: The store's line on it; None if it has none.
        forest: Its trees.
        missing: Spans that have started and are not in the store.
        scripted: Whether the model followed its script.
    """

    act: Act
    run: Run | None
    forest: Sequence[Node]
    missing: Sequence[Started]
    scripted: bool

    @property
    def found(self) -> int:
        """How many of the spans that started are in the store."""
        return len(self.act.started) - len(self.missing)

    @property
    def root(self) -> Node | None:
        """The first span of the run, if it is there."""
        return next((top for top in self.forest if not top.parent_elsewhere), None)

    @property
    def judged(self) -> Node | None:
        """The span that says how the run has ended, if it is there."""
        whose = self.act.scenario.whose
        if not whose:
            return self.root
        every = (node for top in self.forest for node in top.walk())
        return next((node for node in every if node.span.name == whose), None)

    def problems(self) -> list[str]:
        """Return what is not as it must be, in phrases; of a run that is, nothing."""
        found = [self.act.trouble] if self.act.trouble else []
        if not self.act.started:
            return [*found, "no span has started"]
        found += [
            f"span {span.span_id} ({span.name}) is not in the store"
            for span in self.missing
        ]
        judged = self.judged
        expected = self.act.scenario.expected
        if judged is not None and judged.outcome is not expected:
            found.append(f"ended as {judged.outcome or 'nothing'}, not {expected}")
        traces = {span.trace_id for span in self.act.started}
        if len(traces) > 1:
            found.append(f"is spread over {len(traces)} traces")
        calls = sum(span.name.startswith("chat ") for span in self.act.started)
        if self.scripted and calls != self.act.scenario.model_calls:
            wanted = self.act.scenario.model_calls
            found.append(f"has {calls} model calls, not {wanted}")
        return found


@dataclass(frozen=True, slots=True)
class Account:
    """All runs, and whether every span is accounted for.

    Args:
        store: The file that was read.
        entries: One for each run, in order.
        latest: How many of the store's latest runs take all of these in: others write
            there as well, and an event loop that is held up between two runs is told in
            a trace of its own.
        sent: What an OTLP endpoint acknowledged; None where none is set.
        store_error: What went wrong last on the way to the store.
        swallowed: What agenttrace's guard swallowed, by site.
        backend: Where the traces can be looked at; None where that is not known.
    """

    store: Path
    entries: Sequence[Entry]
    latest: int
    sent: Sent | None
    store_error: str | None
    swallowed: Mapping[str, int]
    backend: Backend | None = None

    @property
    def started(self) -> int:
        """How many spans have started."""
        return sum(len(entry.act.started) for entry in self.entries)

    @property
    def found(self) -> int:
        """How many of them are in the store."""
        return sum(entry.found for entry in self.entries)

    def link(self, entry: Entry) -> str | None:
        """Return the address of the trace of *entry*; None where that is not known."""
        if self.backend is None or not entry.act.started:
            return None
        return self.backend.url(entry.act.started[0].trace_id)

    def in_jaeger(self, entry: Entry) -> int | None:
        """Return how many of its spans a Jaeger has; None where none has said."""
        if self.backend is None or not self.backend.found:
            return None
        found = self.backend.found
        traces = {span.trace_id for span in entry.act.started}
        if not traces <= found.keys():
            return None
        return sum(found[trace_id] for trace_id in traces)

    def problems(self) -> list[str]:
        """Return all that is not as it must be, in sentences without a full stop."""
        found = [
            f"{entry.act.scenario.title}: {problem}"
            for entry in self.entries
            for problem in entry.problems()
        ]
        if self.found < self.started and self.store_error:
            found.append(f"the store said: {self.store_error}")
        if self.sent is not None and self.sent.acknowledged < self.started:
            why = f" ({self.sent.error})" if self.sent.error else ""
            found.append(
                f"{self.sent.to} acknowledged {self.sent.acknowledged} of "
                f"{self.started} spans{why}"
            )
        found += [
            f"agenttrace itself failed at {site}, {times} times"
            for site, times in self.swallowed.items()
        ]
        return found

    @property
    def closes(self) -> bool:
        """Whether every span is where it must be, and every run as it must be."""
        return not self.problems()

    def as_json(self) -> dict[str, object]:
        """Return it in values that JSON knows."""
        return {
            "runs": [
                {
                    **_entry_as_json(entry),
                    "in_jaeger": self.in_jaeger(entry),
                    "url": self.link(entry),
                }
                for entry in self.entries
            ],
            "account": {
                "closes": self.closes,
                "started": self.started,
                "in_store": self.found,
                "problems": self.problems(),
                "store": str(self.store),
                "otlp": None
                if self.sent is None
                else {
                    "to": self.sent.to,
                    "acknowledged": self.sent.acknowledged,
                },
            },
        }


def read_back(act: Act, reader: Reader, *, scripted: bool) -> Entry:
    """Return what the store has of *act*.

    Raises:
        StoreUnreadableError: The file is damaged.
    """
    traces = list(dict.fromkeys(span.trace_id for span in act.started))
    spans = [span for trace in traces for span in reader.spans(trace)]
    there = {span.span_id.hex() for span in spans}
    return Entry(
        act=act,
        run=reader.run(traces[0]) if traces else None,
        forest=build_forest(spans),
        missing=[span for span in act.started if span.span_id not in there],
        scripted=scripted,
    )


def latest_with(entries: Sequence[Entry], reader: Reader) -> int:
    """Return how many of the store's latest runs it takes to have all *entries*.

    At most `_MOST_RUNS`, and where that cannot be told, as many as there are entries.
    """
    started = [entry.run.started for entry in entries if entry.run]
    since: list[Run] = []
    if started:
        with suppress(StoreUnreadableError):
            since = reader.runs(_MOST_RUNS, since=min(started), tokens=False)
    return max(len(since), len(entries))


def _entry_as_json(entry: Entry) -> dict[str, Any]:
    judged, run, act = entry.judged, entry.run, entry.act
    return {
        "name": act.scenario.name,
        "title": act.scenario.title,
        "trace_id": act.started[0].trace_id if act.started else None,
        "expected": act.scenario.expected,
        "outcome": judged.outcome if judged else None,
        "ended_by": judged.ended_by if judged else None,
        "started": len(act.started),
        "in_store": entry.found,
        "missing": [
            {"span_id": span.span_id, "name": span.name} for span in entry.missing
        ],
        "duration": run.duration if run else None,
        "input_tokens": run.tokens[0] if run else None,
        "output_tokens": run.tokens[1] if run else None,
        "problems": entry.problems(),
    }
