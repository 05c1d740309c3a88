"""The embedded store keeps what it has acknowledged, within its size, for everybody."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from contextlib import closing
from itertools import count
from typing import TYPE_CHECKING

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)
from opentelemetry.trace import StatusCode

from agenttrace import safety, semconv
from agenttrace.delivery.frames import Frame
from agenttrace.delivery.otlp import frame_of
from agenttrace.delivery.senders import Delivered, Later, Refused
from agenttrace.delivery.senders.store import StoreSender
from agenttrace.delivery.store import Reader, schema
from agenttrace.model import Attributes, ResourceData, ScopeData, SpanData

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MEBIBYTE = 1 << 20
SECOND = 1_000_000_000
WAIT = 10.0
DELIVERED = Delivered()
RESOURCE = ResourceData({semconv.SERVICE_NAME: "support"})
SCOPE = ScopeData("agenttrace", "1.0")
_ids = count(1)


def trace_id() -> bytes:
    return next(_ids).to_bytes(16, "big")


def span(  # noqa: PLR0913 - one argument per thing that a test is about
    trace: bytes,
    name: str = "step",
    *,
    parent: bytes = b"",
    start: int = 0,
    seconds: float = 1.0,
    status: StatusCode = StatusCode.UNSET,
    service: ResourceData = RESOURCE,
    attributes: Attributes | None = None,
) -> SpanData:
    """Make a span that starts *start* seconds after the epoch."""
    return SpanData(
        trace_id=trace,
        span_id=next(_ids).to_bytes(8, "big"),
        parent_id=parent,
        name=name,
        start_time=start * SECOND,
        end_time=start * SECOND + round(seconds * SECOND),
        attributes=attributes or {},
        status=status,
        resource=service,
        scope=SCOPE,
    )


def large(trace: bytes, kilobytes: int) -> SpanData:
    return span(trace, attributes={"filling": "x" * 1024 * kilobytes})


def size_on_disk(path: Path) -> int:
    return sum(
        file.stat().st_size
        for file in path.parent.iterdir()
        if file.name in (path.name, f"{path.name}-wal")
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the store shall be; its directory does not exist yet."""
    return tmp_path / "state" / "traces.db"


@pytest.fixture
def store(path: Path) -> Iterator[StoreSender]:
    """Yield a sender to a store that may grow to 1 MiB."""
    sender = StoreSender(path, MEBIBYTE)
    yield sender
    sender.close()


def test_a_span_comes_back_as_it_was_sent(store: StoreSender, path: Path) -> None:
    """What `tree` shows must be what any other backend would have been given."""
    trace = trace_id()
    root = span(trace, "invoke_agent triage", attributes={"n": 1, "parts": ("a", "b")})
    child = span(trace, "chat gpt-5", parent=root.span_id, start=1)

    answer = store.send(frame_of([child, root]), WAIT)

    assert answer == DELIVERED
    assert Reader(path).spans(trace.hex()) == [root, child]


@pytest.mark.parametrize("most", [20, 999, 32_766])
@pytest.mark.parametrize("number", [1, 23, 512, 1_500])
def test_spans_are_written_many_at_a_time(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int, most: int
) -> None:
    """With each statement the writer waits for all threads that compute."""
    statements: list[str] = []
    opened = schema.open_for_writing

    def listening(path: Path, max_bytes: int, patience: float) -> sqlite3.Connection:
        connection = opened(path, max_bytes, patience)
        connection.set_trace_callback(statements.append)
        connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, most)
        return connection

    monkeypatch.setattr(schema, "open_for_writing", listening)
    trace = trace_id()
    spans = [span(trace, str(at), start=at) for at in range(number)]
    again = spans[0]._replace(name="again")

    with closing(StoreSender(path, 4 * MEBIBYTE)) as store:
        assert store.send(frame_of([*spans, again]), WAIT) == DELIVERED

    # What a trigger does is traced as the statement that has set it off.
    inserts = {one for one in statements if one.startswith("INSERT INTO spans")}
    at_once = min(512, max(most // 14, 1))
    assert len(inserts) <= (number + 1) // (at_once // 2 + 1) + 10
    assert Reader(path).spans(trace.hex()) == spans


def test_every_row_is_a_request_that_any_otlp_tool_can_read(
    store: StoreSender, path: Path
) -> None:
    """A file that only agenttrace can read would hold the traces hostage."""
    sent = [
        span(trace_id(), service=ResourceData({semconv.SERVICE_NAME: name}))
        for name in ("support", "sales")
    ]

    store.send(frame_of(sent), WAIT)

    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT service, otlp FROM spans ORDER BY id")
        for (service, otlp), original in zip(rows.fetchall(), sent, strict=True):
            (group,) = ExportTraceServiceRequest.FromString(otlp).resource_spans
            (scope,) = group.scope_spans
            assert group.resource.attributes[0].value.string_value == service
            assert scope.scope.name == SCOPE.name
            assert [read.span_id for read in scope.spans] == [original.span_id]


def test_the_view_for_people_answers_in_their_words(
    store: StoreSender, path: Path
) -> None:
    """`sqlite3 traces.db 'SELECT * FROM runs'` is documented to work."""
    trace = trace_id()
    root = span(
        trace, "invoke_agent triage", attributes={semconv.OUTCOME: "ok"}, seconds=2.5
    )
    failed = span(trace, parent=root.span_id, status=StatusCode.ERROR)

    store.send(frame_of([failed, root]), WAIT)

    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT * FROM runs").fetchall()
    assert rows == [
        (
            trace.hex(),
            "invoke_agent triage",
            "support",
            "ok",
            "1970-01-01 00:00:00",
            2.5,
            2,
            1,
        )
    ]


def test_sending_a_frame_again_changes_nothing(store: StoreSender, path: Path) -> None:
    """What may have arrived is sent again; the first form of a span id counts."""
    trace = trace_id()
    first = span(trace, "first form")
    second = span(trace, "second form")._replace(span_id=first.span_id)

    answers = [store.send(frame_of([form]), WAIT) for form in (first, first, second)]

    assert answers == [DELIVERED] * 3
    assert Reader(path).spans(trace.hex()) == [first]
    assert [run.spans for run in Reader(path).runs(9)] == [1]


def test_spans_without_an_id_are_told_and_take_nobody_along(
    store: StoreSender, path: Path
) -> None:
    """No tree could place them, and one such span must not cost its batch."""
    good, bad = span(trace_id()), span(trace_id())
    payload = ExportTraceServiceRequest.FromString(frame_of([good, bad]).payload)
    payload.resource_spans[0].scope_spans[0].spans[1].span_id = b"short"

    answer = store.send(Frame((), payload.SerializeToString()), WAIT)

    assert answer == Delivered(rejected=1, reason="spans without a valid id")
    assert Reader(path).spans(good.trace_id.hex()) == [good]


def test_a_payload_that_is_no_request_is_refused_for_good(store: StoreSender) -> None:
    """Sending it again and again would keep everything behind it waiting."""
    assert isinstance(store.send(Frame((), b"\xff\xff"), WAIT), Refused)


def test_times_beyond_what_sqlite_can_count_are_kept(
    store: StoreSender, path: Path
) -> None:
    """OTLP's times are unsigned; a broken clock must not stop the delivery."""
    broken = span(trace_id())._replace(end_time=2**64 - 1)

    answer = store.send(frame_of([broken]), WAIT)

    assert answer == DELIVERED
    assert Reader(path).spans(broken.trace_id.hex()) == [broken]


def test_the_store_is_private_to_the_user(store: StoreSender, path: Path) -> None:
    """Names, errors and, when asked for, prompts stand in it."""
    store.send(frame_of([span(trace_id())]), WAIT)

    modes = {
        file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()
    }

    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {"traces.db", "traces.db-wal", "traces.db-shm"} <= set(modes)
    assert set(modes.values()) == {0o600}


def test_the_oldest_runs_make_room_as_a_whole(store: StoreSender, path: Path) -> None:
    """Half a run is a riddle; what is left must be complete."""
    traces = [trace_id() for _ in range(60)]

    for trace in traces:
        assert store.send(frame_of([large(trace, 20), large(trace, 20)]), WAIT) == (
            DELIVERED
        )
        assert size_on_disk(path) <= 1.25 * MEBIBYTE

    kept = {run.trace_id: run.spans for run in Reader(path).runs(100)}
    assert 10 <= len(kept) < 30
    assert set(kept) == {trace.hex() for trace in traces[-len(kept) :]}
    assert set(kept.values()) == {2}


def test_the_run_that_is_being_written_outlives_older_ones_that_are_silent(
    store: StoreSender, path: Path
) -> None:
    """A long run is old by its start, and the one that somebody is watching."""
    long_one = trace_id()

    for _ in range(20):
        store.send(frame_of([large(long_one, 10)]), WAIT)
        store.send(frame_of([large(trace_id(), 60)]), WAIT)

    run = Reader(path).run(long_one.hex())
    assert run is not None
    assert run.spans == 20


def test_a_run_larger_than_the_store_keeps_its_newest_part(
    store: StoreSender, path: Path
) -> None:
    """Its end says how it ended; refusing that would lose the more telling half."""
    trace = trace_id()

    for _ in range(30):
        assert store.send(frame_of([large(trace, 100)]), WAIT) == DELIVERED
    last = large(trace, 100)
    store.send(frame_of([last]), WAIT)

    assert last in Reader(path).spans(trace.hex())
    assert size_on_disk(path) <= 1.25 * MEBIBYTE


def test_a_frame_larger_than_the_store_is_refused(store: StoreSender) -> None:
    """It can never be kept, and everything else would be evicted in vain."""
    answer = store.send(frame_of([large(trace_id(), 2048)]), WAIT)

    assert isinstance(answer, Refused)


def test_a_lowered_limit_shrinks_the_file(path: Path) -> None:
    """Whoever lowers it wants the disk space back."""
    with closing(StoreSender(path, 8 * MEBIBYTE)) as wide:
        for _ in range(60):
            wide.send(frame_of([large(trace_id(), 100)]), WAIT)
    before = size_on_disk(path)

    with closing(StoreSender(path, MEBIBYTE)) as narrow:
        for _ in range(3):
            narrow.send(frame_of([span(trace_id())]), WAIT)

    assert before > 4 * MEBIBYTE
    assert size_on_disk(path) <= 1.25 * MEBIBYTE


def overwrite(path: Path) -> None:
    path.write_bytes(b"garbage" * 500)


def truncate(path: Path) -> None:
    os.truncate(path, 5000)


def overwrite_all_but_the_header(path: Path) -> None:
    page = 4096
    path.write_bytes(path.read_bytes()[:page] + b"\xee" * (path.stat().st_size - page))


@pytest.mark.parametrize("damage", [overwrite, truncate, overwrite_all_but_the_header])
def test_a_damaged_file_is_set_aside_and_begun_anew(
    path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Disks do that; the runs of today must not be lost to those of yesterday."""
    safety.reset_for_tests()
    with closing(StoreSender(path)) as store:
        store.send(frame_of([large(trace_id(), 100)]), WAIT)
    damage(path)
    today = span(trace_id())

    with closing(StoreSender(path)) as store:
        answers = [store.send(frame_of([today]), WAIT) for _ in range(2)]

    assert answers == [DELIVERED] * 2
    assert [run.trace_id for run in Reader(path).runs(9)] == [today.trace_id.hex()]
    assert path.with_name("traces.db.damaged-1").exists()
    assert safety.counts()["stores_set_aside"] == 1
    assert len([r for r in caplog.records if "renamed" in r.getMessage()]) == 1


@pytest.mark.parametrize(
    "statement",
    [
        f"PRAGMA user_version = {schema.VERSION + 1}",
        "PRAGMA application_id = 7",
        "DROP TABLE traces",
    ],
)
def test_a_store_that_is_not_ours_is_set_aside_whole(
    path: Path, statement: str
) -> None:
    """A newer agenttrace, or another program, may still want it."""
    with closing(StoreSender(path)) as store:
        store.send(frame_of([span(trace_id())]), WAIT)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()

    with closing(StoreSender(path)) as store:
        answer = store.send(frame_of([span(trace_id())]), WAIT)

    assert answer == DELIVERED
    assert len(Reader(path).runs(9)) == 1
    with closing(sqlite3.connect(path.with_name("traces.db.damaged-1"))) as connection:
        assert connection.execute("SELECT count(*) FROM spans").fetchone() == (1,)


def test_damaged_files_do_not_pile_up(path: Path) -> None:
    """A disk that goes on damaging files would be filled by their copies."""
    for _ in range(schema.KEPT_DAMAGED + 2):
        path.parent.mkdir(exist_ok=True)
        overwrite(path)
        with closing(StoreSender(path)) as store:
            assert store.send(frame_of([span(trace_id())]), WAIT) == DELIVERED
        path.unlink()

    aside = sorted(file.name for file in path.parent.glob("*.damaged-*"))
    assert aside == [f"traces.db.damaged-{number}" for number in (3, 4, 5)]


def test_a_store_that_is_deleted_under_a_writer_is_begun_anew(
    store: StoreSender, path: Path
) -> None:
    """SQLite would go on writing, for ever, into a file that nobody can find."""
    store.send(frame_of([span(trace_id())]), WAIT)
    shutil.rmtree(path.parent)
    after = span(trace_id())

    answer = store.send(frame_of([after]), WAIT)

    assert answer == DELIVERED
    assert [run.trace_id for run in Reader(path).runs(9)] == [after.trace_id.hex()]


def test_a_directory_that_cannot_be_made_asks_for_patience(tmp_path: Path) -> None:
    """It may be mounted later; until then the spool keeps what has ended."""
    (tmp_path / "file").write_text("not a directory")

    with closing(StoreSender(tmp_path / "file" / "traces.db")) as store:
        answer = store.send(frame_of([span(trace_id())]), WAIT)

    assert isinstance(answer, Later)
    assert str(tmp_path) in answer.reason


def test_a_store_that_others_keep_locked_asks_for_patience(
    store: StoreSender, path: Path
) -> None:
    """Sending has a time limit, or shutting down would not have one."""
    store.send(frame_of([span(trace_id())]), WAIT)
    waiting = frame_of([span(trace_id())])

    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        during = store.send(waiting, 0.2)
        other.execute("ROLLBACK")
    after = store.send(waiting, WAIT)

    assert isinstance(during, Later)
    assert "locked" in during.reason
    assert after == DELIVERED


def test_a_reader_that_never_ends_cannot_make_the_log_grow_for_ever(
    store: StoreSender, path: Path
) -> None:
    """SQLite keeps all that was written since for it; the disk is not ours to fill."""
    store.send(frame_of([span(trace_id())]), WAIT)
    frames = [frame_of([large(trace_id(), 200)]) for _ in range(12)]

    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM spans").fetchone()
        during = [store.send(frame, 0.0) for frame in frames]
        largest = size_on_disk(path)
    after = store.send(frames[-1], WAIT)

    assert during[0] == DELIVERED
    assert isinstance(during[-1], Later)
    assert largest <= 2.5 * MEBIBYTE
    assert after == DELIVERED
    assert size_on_disk(path) <= 1.25 * MEBIBYTE
