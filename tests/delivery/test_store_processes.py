"""Processes that write at once, fork, or are killed do each other no harm."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing
from typing import IO, TYPE_CHECKING

import pytest

from agenttrace.delivery.store import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MEBIBYTE = 1 << 20
DEADLINE = 60

PRELUDE = """
import os, sys, threading
from agenttrace.delivery.otlp import frame_of
from agenttrace.delivery.senders import Delivered, Later
from agenttrace.delivery.senders.store import StoreSender
from agenttrace.delivery.store.forks import GATE
from agenttrace.model import ResourceData, ScopeData, SpanData

path, max_bytes = sys.argv[1], int(sys.argv[2])
store = StoreSender(path, max_bytes)

def span(trace, filling):
    return SpanData(
        trace, os.urandom(8), "step", 1, 2,
        attributes={"filling": "x" * filling},
        resource=ResourceData({"service.name": "support"}),
        scope=ScopeData("agenttrace"),
    )

def send(spans=3, filling=100, timeout=30.0):
    trace = os.urandom(16)
    frame = frame_of([span(trace, filling) for _ in range(spans)])
    return store.send(frame, timeout), trace.hex()

def acknowledged(**sizes):
    answer, trace = send(**sizes)
    assert answer == Delivered(), answer
    # One write: lines of two threads, and of a child, must not run together.
    os.write(1, (trace + chr(10)).encode())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the store shall be."""
    return tmp_path / "traces.db"


class Processes:
    """Processes that have the prelude's names, and are gone when the test is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._started: list[subprocess.Popen[str]] = []

    def start(
        self, body: str, max_bytes: int = 256 * MEBIBYTE
    ) -> subprocess.Popen[str]:
        """Run *body* after the prelude."""
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                PRELUDE + textwrap.dedent(body),
                str(self._path),
                str(max_bytes),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def kill(self) -> None:
        """End what still runs."""
        for process in self._started:
            process.kill()
            process.wait(DEADLINE)
            output_of(process).close()


def output_of(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout is not None
    return process.stdout


def finish(process: subprocess.Popen[str]) -> list[str]:
    """Wait for the end of *process*, which must be a good one; return its output."""
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    return output.split()


def check_integrity(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        accounts = connection.execute(
            "SELECT (SELECT count(*) FROM spans), (SELECT sum(spans) FROM traces)"
        )
        spans, accounted = accounts.fetchone()
    assert spans == accounted


@pytest.fixture
def processes(path: Path) -> Iterator[Processes]:
    """Yield what starts processes that write to the store."""
    started = Processes(path)
    yield started
    started.kill()


def test_processes_that_begin_at_once_lose_nothing(
    processes: Processes, path: Path
) -> None:
    """A server starts its workers together, and none of them finds a store."""
    workers = [processes.start("for _ in range(30): acknowledged()") for _ in range(4)]

    sent = [trace for worker in workers for trace in finish(worker)]

    runs = {run.trace_id: run.spans for run in Reader(path).runs(1000)}
    assert runs == dict.fromkeys(sent, 3)
    assert len(runs) == 120
    assert not list(path.parent.glob("*damaged*"))
    check_integrity(path)


def test_the_size_holds_with_several_processes_at_once(
    processes: Processes, path: Path
) -> None:
    """Each of them sees only its own writes, and the disk sees all of them."""
    body = """
    for _ in range(60):
        acknowledged(spans=4, filling=10_000)
        sizes = [os.stat(path + end).st_size for end in ("", "-wal")]
        assert sum(sizes) <= 1.25 * max_bytes, sizes
    """
    workers = [processes.start(body, 2 * MEBIBYTE) for _ in range(3)]

    for worker in workers:
        finish(worker)

    runs = Reader(path).runs(1000)
    assert {run.spans for run in runs} == {4}
    assert len(runs) > 20
    check_integrity(path)


def test_what_was_acknowledged_survives_a_kill_in_the_middle_of_writing(
    processes: Processes, path: Path
) -> None:
    """COMMIT is the acknowledgement: the spool deletes its copy because of it."""
    sent: list[str] = []
    for _ in range(3):
        writer = processes.start("while True: acknowledged()")
        lines = output_of(writer)
        sent += [lines.readline().strip() for _ in range(20)]
        writer.kill()
        # The last line may be cut short by the kill.
        sent += [line.strip() for line in lines if line.endswith("\n")]
        writer.wait(DEADLINE)

        found = {run.trace_id: run.spans for run in Reader(path).runs(100_000)}
        assert found.keys() >= set(sent)
        assert set(found.values()) == {3}

    finish(processes.start("acknowledged()"))
    check_integrity(path)


def test_processes_that_find_one_damaged_store_set_it_aside_once(
    processes: Processes, path: Path
) -> None:
    """The second one to find out must not set aside what the first has begun."""
    path.write_bytes(b"garbage" * 1000)
    workers = [processes.start("for _ in range(20): acknowledged()") for _ in range(4)]

    sent = {trace for worker in workers for trace in finish(worker)}

    assert {run.trace_id for run in Reader(path).runs(1000)} == sent
    assert [file.name for file in path.parent.glob("*damaged*")] == [
        "traces.db.damaged-1"
    ]
    check_integrity(path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_writes_beside_its_parent(
    processes: Processes, path: Path
) -> None:
    """SQLite's locks are not inherited, but its belief to hold them is."""
    body = """
    acknowledged()
    for _ in range(5):
        child = os.fork()
        if not child:
            acknowledged()
            os._exit(0)
        acknowledged()
        assert os.waitpid(child, 0)[1] == 0
    """

    sent = finish(processes.start(body))

    assert {run.trace_id for run in Reader(path).runs(1000)} == set(sent)
    assert len(sent) == 11
    check_integrity(path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_in_the_middle_of_writing_harms_neither_side(
    processes: Processes, path: Path
) -> None:
    """The spooler writes on a thread of its own while the application forks."""
    body = """
    import warnings
    warnings.simplefilter("ignore")  # forking beside a thread is what this is about
    stop = threading.Event()
    def write():
        while not stop.is_set():
            acknowledged()
    writer = threading.Thread(target=write)
    writer.start()
    while not os.path.exists(path):
        pass
    for _ in range(8):
        child = os.fork()
        if not child:
            acknowledged()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    stop.set()
    writer.join()
    """

    sent = finish(processes.start(body))

    assert {run.trace_id for run in Reader(path).runs(100_000)} == set(sent)
    check_integrity(path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("how", ["waited too long", "was not told of the fork"])
def test_a_child_forked_inside_sqlite_asks_for_patience(
    processes: Processes, how: str
) -> None:
    """It inherited locked mutexes: touching SQLite would hang it for ever."""
    body = f"""
    from agenttrace.delivery.store import forks
    forks.PATIENCE = 0.05
    inside, leave = threading.Event(), threading.Event()
    def stay():
        with GATE:
            inside.set()
            leave.wait()
    acknowledged()
    thread = threading.Thread(target=stay)
    thread.start()
    inside.wait()
    if {how!r} == "waited too long":
        import warnings
        warnings.simplefilter("ignore")  # forking beside a thread is what this is about
        child = os.fork()
    else:
        # What a server written in C does: only the child is told.
        child = 0
        GATE.after_fork_in_child()
    if not child:
        answer, _ = send()
        store.close()
        print(type(answer).__name__, "forked" in answer.reason, flush=True)
        leave.set()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    leave.set()
    thread.join()
    acknowledged()
    """

    _, answer, forked, *_ = finish(processes.start(body))

    assert (answer, forked) == ("Later", "True")


def test_a_full_disk_asks_for_patience_and_loses_nothing(
    processes: Processes, path: Path
) -> None:
    """It is emptied one day; what was acknowledged before must still be there."""
    pytest.importorskip("resource", reason="there are no limits on file sizes here")
    body = """
    import resource
    acknowledged()
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    answers = [send(filling=50_000)[0] for _ in range(8)]
    assert isinstance(answers[-1], Later), answers
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    acknowledged()
    """

    sent = finish(processes.start(body))

    assert {run.trace_id for run in Reader(path).runs(100)} >= set(sent)
    check_integrity(path)


def test_a_writer_that_is_stopped_keeps_nobody_from_looking(
    processes: Processes, path: Path
) -> None:
    """A process in a debugger is when somebody looks."""
    writer = processes.start("while True: acknowledged()")
    first = output_of(writer).readline().strip()

    writer.send_signal(signal.SIGSTOP)

    assert first in {run.trace_id for run in Reader(path).runs(100_000)}
