"""A process that is killed has lost no span that had left its journal."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, NamedTuple

import pytest

from agenttrace.delivery.segment_files import read
from tests.delivery.collector import Collector, Reply, received

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agenttrace.delivery.segment_files import Found

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")

PRELUDE = """
import json, os, signal, sys, threading
from agenttrace import crashpoints
from agenttrace.delivery.retry import Retry
from agenttrace.delivery.segments import Segments
from agenttrace.delivery.senders.http import HttpSender
from agenttrace.delivery.spooler import Spooler
from agenttrace.model import ResourceData, ScopeData, SpanData

directory, endpoint, *arguments = sys.argv[1:]
RESOURCE, SCOPE = ResourceData({"service.name": "support"}), ScopeData("agenttrace")

class Item:
    queued = False

    def __init__(self, number, told):
        self.number, self.told = number, told

    def data(self):
        return SpanData(
            self.number.to_bytes(16, "big"), self.number.to_bytes(8, "big"),
            f"step {self.number}", 1, 2,
            attributes={"filling": "x" * (self.number % 500)},
            resource=RESOURCE, scope=SCOPE,
        )

    def written(self):  # here a journal frees the slot
        os.write(self.told, f"{self.number}\\n".encode())

def spooler(directory, **settings):
    sender = HttpSender(endpoint)
    return Spooler(
        [sender],
        segments=lambda: Segments(directory, f"{os.getpid()}", segment_bytes=20_000),
        linger=0.001, retry=Retry(0.01, 0.02), **settings,
    )

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def die_at(name, times):
    left = [times]
    def hook(at):
        left[0] -= at == name
        if not left[0]:
            die()
    crashpoints.hook = hook
"""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


class Child:
    """A program that was run to its end.

    Args:
        body: What it does after the prelude.
        directory: Where its segments are.
        collector: Where it sends.
        arguments: Its own.
    """

    def __init__(
        self, body: str, directory: Path, collector: Collector, *arguments: str
    ) -> None:
        done = subprocess.run(
            [
                sys.executable,
                "-W",
                "ignore::DeprecationWarning",  # it forks, and has threads
                "-c",
                PRELUDE + textwrap.dedent(body),
                str(directory),
                collector.endpoint,
                *arguments,
            ],
            stdout=subprocess.PIPE,
            text=True,
            timeout=90,
            check=False,
        )
        self.code = done.returncode
        self.lines = done.stdout.split()


def left_in(directory: Path) -> list[Found]:
    """Return what is found of the one instance in *directory*."""
    names = {path.name.split(".")[0] for path in directory.iterdir()}
    assert len(names) <= 1
    return [found for name in names for found in read(directory, name)]


def numbers_of(left: list[Found]) -> list[int]:
    """Return the spans on disk, in order, after a look at every byte of them."""
    numbers: list[int] = []
    for found in left:
        for _, frame in found.frames:
            spans = received(frame.payload)
            of_frame = [int(span.span_id, 16) for span in spans]
            assert [int.from_bytes(span_id, "big") for _, span_id in frame.ids] == (
                of_frame
            )
            assert [(span.name, len(span.attributes["filling"])) for span in spans] == [
                (f"step {number}", number % 500) for number in of_frame
            ]
            numbers += of_frame
    return numbers


def delivered_to(collector: Collector) -> list[int]:
    """Return the spans that were taken, in order of arrival."""
    return [int(span.span_id, 16) for span in collector.spans()]


ONE_BY_ONE = """
name, times = arguments
die_at(name, int(times))
running = spooler(directory)
for number in range(1, 6):
    running.put(Item(number, 1))
    running.flush(30)
"""


class Instant(NamedTuple):
    """Where a process is killed, and where its spans are then, by their numbers."""

    name: str
    freed: list[int]
    sent: list[int]
    on_disk: list[int]
    times: int = 2
    is_torn: bool = False


@pytest.mark.parametrize(
    "instant",
    [
        # Each span has a file of its own here, and the file's header is a write too.
        Instant("mid append", [1], [1], [], times=4, is_torn=True),
        Instant("frame appended", [1], [1], [2]),
        Instant("sent", [1, 2], [1, 2], [2]),
        Instant("acknowledged", [1, 2], [1, 2], []),
    ],
    ids=lambda instant: instant.name,
)
def test_a_process_that_is_killed_leaves_what_it_had_not_settled(
    tmp_path: Path, collector: Collector, instant: Instant
) -> None:
    """Every instant between two steps: in the journal, on disk, or delivered."""
    child = Child(ONE_BY_ONE, tmp_path, collector, instant.name, str(instant.times))

    left = left_in(tmp_path)
    assert child.code == -9
    assert [int(line) for line in child.lines] == instant.freed
    assert delivered_to(collector) == instant.sent
    assert numbers_of(left) == instant.on_disk
    assert any(found.problem for found in left) == instant.is_torn


def test_what_was_on_disk_is_there_byte_for_byte_after_an_outage(
    tmp_path: Path,
) -> None:
    """Many frames in many segments, nothing delivered, and then the end."""
    with Collector(usual=Reply(503)) as collector:
        child = Child(
            """
            running = spooler(directory, batch=10)
            for number in range(1, 1001):
                running.put(Item(number, 1))
            while running.status().buffered_spans < 1000:
                threading.Event().wait(0.001)
            die()
            """,
            tmp_path,
            collector,
        )

    left = left_in(tmp_path)
    freed = [int(line) for line in child.lines]
    assert child.code == -9
    # It may be killed between appending the last frame and freeing the slots of that.
    assert freed == list(range(1, 1001))[: len(freed)]
    assert len(freed) >= 1000 - 10
    assert numbers_of(left) == list(range(1, 1001))
    assert len(left) > 10
    assert not any(found.problem for found in left)


def test_wherever_a_process_is_killed_nothing_that_left_its_journal_is_lost(
    tmp_path: Path, collector: Collector
) -> None:
    """Thirty instants, and whatever the threads were at."""
    rounds = [random.randrange(1, 2_000) for _ in range(30)]  # noqa: S311 - nothing secret

    child = Child(
        """
        # Forked here, so that thirty lives cost one import.
        for index, after in enumerate(json.loads(arguments[0])):
            reader, writer = os.pipe()
            pid = os.fork()
            if pid == 0:
                running = spooler(f"{directory}/{index}", batch=16)
                pause = threading.Event()
                number = index * 1_000_000
                while True:
                    for _ in range(40):
                        number += 1
                        running.put(Item(number, writer))
                    pause.wait(0.001)
            os.close(writer)
            told = b""
            while told.count(b"\\n") < after:
                told += os.read(reader, 4096)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            while more := os.read(reader, 65536):
                told += more
            os.close(reader)
            print(json.dumps([int(line) for line in told.split()]).replace(" ", ""))
        """,
        tmp_path,
        collector,
        json.dumps(rounds),
    )

    assert child.code == 0
    assert len(child.lines) == len(rounds)
    taken = set(delivered_to(collector))
    bodies = b"\0".join(request.body for request in collector.requests)
    for index, line in enumerate(child.lines):
        freed = json.loads(line)
        left = left_in(tmp_path / str(index))
        on_disk = numbers_of(left)
        assert set(freed) <= taken | set(on_disk)
        assert on_disk == sorted(set(on_disk))
        assert [found.number for found in left] == sorted(
            {found.number for found in left}
        )
        for found in left:
            for _, frame in found.frames:
                ids = {int.from_bytes(span_id, "big") for _, span_id in frame.ids}
                assert not ids & taken or frame.payload in bodies


def test_a_forked_child_has_files_of_its_own(
    tmp_path: Path, collector: Collector
) -> None:
    """Two processes that write to one file make garbage of both."""
    child = Child(
        """
        gate = threading.Event()
        crashpoints.hook = lambda at: at == "sent" and gate.wait(30)
        running = spooler(directory)
        for number in range(1, 4):  # at work: sent, and not acknowledged yet
            running.put(Item(number, 1))
        while running.status().buffered_spans < 3:
            gate.wait(0.001)
        before = {name: open(f"{directory}/{name}", "rb").read()
                  for name in os.listdir(directory)}
        pid = os.fork()
        if pid == 0:
            crashpoints.hook = None
            running.reset_after_fork()
            running.put(Item(4, 1))
            os._exit(not running.shutdown(30))
        assert os.waitpid(pid, 0)[1] == 0
        after = {name: open(f"{directory}/{name}", "rb").read()
                 for name in os.listdir(directory)}
        assert after == before and before
        gate.set()
        os._exit(not running.shutdown(30))
        """,
        tmp_path,
        collector,
    )

    assert child.code == 0
    assert sorted(int(line) for line in child.lines) == [1, 2, 3, 4]
    assert sorted(delivered_to(collector)) == [1, 2, 3, 4]
    assert list(tmp_path.iterdir()) == []
