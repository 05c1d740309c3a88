"""Looking into the store finds what was asked for and changes nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from opentelemetry.trace import StatusCode

from agenttrace import safety, semconv
from agenttrace.delivery.otlp import frame_of
from agenttrace.delivery.senders import Delivered
from agenttrace.delivery.senders.store import StoreSender
from agenttrace.delivery.store import Reader
from agenttrace.delivery.store.reader import AmbiguousTraceError, StoreUnreadableError
from agenttrace.model import Outcome, ResourceData, ScopeData, SpanData

if TYPE_CHECKING:
    from collections.abc import Iterator

SECOND = 1_000_000_000
WAIT = 10.0
FIRST, SECOND_ONE, THIRD = (bytes([0xAB, number]) * 8 for number in (1, 2, 0x31))
_ids = count(1)


def span(  # noqa: PLR0913 - one argument per thing that a run is chosen by
    trace: bytes,
    name: str = "step",
    *,
    parent: bytes = b"",
    start: int = 0,
    outcome: str = "ok",
    service: str = "support",
    tokens: tuple[int, int] | None = None,
) -> SpanData:
    """Make a span of one second that starts *start* seconds after the epoch."""
    attributes: dict[str, object] = {semconv.OUTCOME: outcome}
    if tokens is not None:
        attributes[semconv.GEN_AI_USAGE_INPUT_TOKENS] = tokens[0]
        attributes[semconv.GEN_AI_USAGE_OUTPUT_TOKENS] = tokens[1]
    return SpanData(
        trace_id=trace,
        span_id=next(_ids).to_bytes(8, "big"),
        parent_id=parent,
        name=name,
        start_time=start * SECOND,
        end_time=(start + 1) * SECOND,
        attributes=attributes,
        status=StatusCode.UNSET if outcome == "ok" else StatusCode.ERROR,
        resource=ResourceData({semconv.SERVICE_NAME: service}),
        scope=ScopeData("agenttrace", "1.0"),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the store shall be."""
    return tmp_path / "traces.db"


@pytest.fixture
def store(path: Path) -> Iterator[StoreSender]:
    """Yield a sender to that store."""
    sender = StoreSender(path)
    yield sender
    sender.close()


def files_of(path: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of change of every file beside *path*."""
    return {
        file.name: (file.stat().st_size, file.stat().st_mtime_ns)
        for file in path.parent.iterdir()
    }


def test_a_store_that_is_not_there_has_no_runs(path: Path) -> None:
    """The first thing that a new user types must not fail, nor create anything."""
    reader = Reader(path)

    assert reader.runs(5) == []
    assert reader.spans("ab") == []
    assert list(path.parent.iterdir()) == []


def test_an_empty_file_has_no_runs(path: Path) -> None:
    """A writer may just have created it."""
    path.touch()

    assert Reader(path).runs(5) == []


def test_runs_are_told_newest_first_with_what_their_root_came_to(
    store: StoreSender, path: Path
) -> None:
    """The list answers most questions before any tree is read."""
    old = span(FIRST, "invoke_agent old", start=100)
    new = span(SECOND_ONE, "invoke_agent new", start=200, outcome="stuck")
    step = span(SECOND_ONE, parent=new.span_id, start=205)
    store.send(frame_of([step, new, old]), WAIT)

    runs = Reader(path).runs(5)

    assert [(run.name, run.outcome, run.spans, run.errors) for run in runs] == [
        ("invoke_agent new", Outcome.STUCK, 2, 1),
        ("invoke_agent old", Outcome.OK, 1, 0),
    ]
    assert [(run.started, run.duration) for run in runs] == [
        (200 * SECOND, 6.0),
        (100 * SECOND, 1.0),
    ]
    assert Reader(path).runs(1) == runs[:1]
    assert Reader(path).runs(5, since=200 * SECOND) == runs[:1]


def test_a_run_whose_root_is_not_here_yet_says_so(
    store: StoreSender, path: Path
) -> None:
    """While it goes on, its steps are all there is to see."""
    store.send(frame_of([span(FIRST, parent=b"not here")]), WAIT)

    (run,) = Reader(path).runs(5)

    assert (run.name, run.title, run.outcome, run.service) == (
        None,
        "(root not here yet)",
        None,
        "support",
    )


def test_tokens_that_an_agent_reports_for_its_calls_count_once(
    store: StoreSender, path: Path
) -> None:
    """The sum over all spans would be twice what was paid for."""
    agent = span(FIRST, "invoke_agent triage", tokens=(30, 12))
    calls = [
        span(FIRST, "chat", parent=agent.span_id, tokens=tokens)
        for tokens in ((10, 5), (20, 7))
    ]
    store.send(frame_of([*calls, agent]), WAIT)

    (run,) = Reader(path).runs(5)
    (unsummed,) = Reader(path).runs(5, tokens=False)

    assert run.tokens == (30, 12)
    assert unsummed.tokens == (None, None)


def test_runs_are_chosen_by_service_and_by_how_any_step_ended(
    store: StoreSender, path: Path
) -> None:
    """A run that came out well may still hold the step that got stuck."""
    good = span(FIRST, service="sales")
    mixed = span(SECOND_ONE)
    stuck = span(SECOND_ONE, parent=mixed.span_id, outcome="stuck")
    store.send(frame_of([good, stuck, mixed]), WAIT)
    reader = Reader(path)

    assert [run.trace_id for run in reader.runs(5, service="sales")] == [FIRST.hex()]
    assert [run.trace_id for run in reader.runs(5, outcome=Outcome.OK)] == [FIRST.hex()]
    assert [run.trace_id for run in reader.runs(5, outcome=Outcome.STUCK)] == [
        SECOND_ONE.hex()
    ]
    assert reader.runs(5, service="sales", outcome=Outcome.STUCK) == []


def test_a_run_is_found_by_the_beginning_of_its_id(
    store: StoreSender, path: Path
) -> None:
    """Nobody types 32 digits; what could mean two runs is asked back."""
    store.send(frame_of([span(FIRST), span(SECOND_ONE), span(THIRD)]), WAIT)
    reader = Reader(path)

    with pytest.raises(AmbiguousTraceError, match=FIRST.hex()):
        reader.run("AB0")

    assert [found.trace_id for found in reader.spans("ab01")] == [FIRST]
    assert [found.trace_id for found in reader.spans("ab3")] == [THIRD]
    assert [found.trace_id for found in reader.spans(SECOND_ONE.hex())] == [SECOND_ONE]
    for nothing in ("abc", "xyz", "a" * 33):
        assert reader.spans(nothing) == []


def test_the_first_spans_of_a_large_run_can_be_read_alone(
    store: StoreSender, path: Path
) -> None:
    """By start, so that what was read is the top of the tree."""
    spans = [span(FIRST, start=number) for number in range(5)]
    store.send(frame_of(spans[::-1]), WAIT)

    assert Reader(path).spans("ab", limit=2) == spans[:2]


@pytest.mark.parametrize("closed", [True, False])
def test_looking_creates_and_changes_no_file(
    store: StoreSender, path: Path, *, closed: bool
) -> None:
    """SQLite's read-only mode alone leaves two files behind that nobody cleans up."""
    store.send(frame_of([span(FIRST)]), WAIT)
    if closed:
        store.close()
    before = files_of(path)

    runs = Reader(path).runs(5)
    spans = Reader(path).spans("ab")

    assert len(runs) == len(spans) == 1
    assert files_of(path) == before


def test_somebody_who_looks_keeps_no_writer_waiting(
    store: StoreSender, path: Path
) -> None:
    """A terminal left open must not hold back an application's telemetry."""
    store.send(frame_of([span(FIRST)]), WAIT)

    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as looking:
        rows = looking.execute("SELECT id FROM spans UNION ALL SELECT id FROM spans")
        rows.fetchone()
        answer = store.send(frame_of([span(SECOND_ONE)]), 0.0)

    assert answer == Delivered()


def test_a_damaged_store_is_an_error_that_says_what_happens_next(path: Path) -> None:
    """A traceback of SQLite would tell the user nothing to do."""
    path.write_bytes(b"garbage" * 500)

    with pytest.raises(StoreUnreadableError, match="sets a damaged file aside"):
        Reader(path).runs(5)


def test_what_is_no_file_is_an_error_that_promises_nothing(path: Path) -> None:
    """No writer sets a directory aside: somebody has to do something about it."""
    path.mkdir()

    with pytest.raises(StoreUnreadableError) as directory:
        Reader(path).runs(5)
    with pytest.raises(StoreUnreadableError) as beneath_a_file:
        Reader(Path(__file__) / "traces.db").runs(5)

    assert str(directory.value) == f"{path} cannot be read (not a file)."
    assert str(beneath_a_file.value).endswith(" cannot be read (Not a directory).")


def test_a_span_whose_bytes_are_damaged_is_left_out(
    store: StoreSender, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bad sector must not hide the rest of the run."""
    monkeypatch.delenv(safety.STRICT_VARIABLE, raising=False)
    good, bad = span(FIRST, start=1), span(FIRST, start=2)
    store.send(frame_of([good, bad]), WAIT)
    store.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "UPDATE spans SET otlp = x'ffff' WHERE span_id = ?", (bad.span_id,)
        )
        connection.commit()

    assert Reader(path).spans("ab") == [good]
