"""How long a thread waits for a processor, against a rival that takes it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agenttrace.watchdog.runqueue import RunQueue
from tests.watchdog.given import until
from tests.watchdog.hangs import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Generator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells it")


def queue_of(thread: threading.Thread) -> RunQueue:
    """Return what is added up for *thread* from now on."""
    return RunQueue(thread.ident or 0, time.monotonic())


def waited(queue: RunQueue) -> float:
    """Return the seconds until now."""
    return queue.waited(time.monotonic())


@pytest.fixture
def starved() -> Generator[threading.Thread]:
    """Return a thread at work that has next to no time: a process has it instead."""
    release = threading.Event()
    much = bytes(30_000_000)

    def works() -> None:  # without the interpreter's lock, which it would keep
        while not release.is_set():
            hashlib.sha256(much)

    thread = threading.Thread(target=works)
    thread.start()
    assert thread.native_id is not None
    processor = min(os.sched_getaffinity(0))
    os.sched_setaffinity(thread.native_id, {processor})
    os.sched_setscheduler(thread.native_id, os.SCHED_IDLE, os.sched_param(0))
    rival = f"import os; os.sched_setaffinity(0, [{processor}])\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", rival]) as process:
        try:
            yield thread
        finally:
            release.set()
            process.kill()
    thread.join(PATIENCE)


def test_only_a_thread_that_could_go_on_waits_for_a_processor(
    starved: threading.Thread,
) -> None:
    """Else a loop at work on a starved machine would pass for one that is blocked."""
    release = threading.Event()
    asleep = threading.Thread(target=release.wait)
    asleep.start()

    def only_one_waits() -> bool:
        one, other = queue_of(asleep), queue_of(starved)
        until(lambda: waited(other) > 0.2)
        return waited(one) == 0

    try:
        until(only_one_waits)  # it may still have been about to fall asleep
    finally:
        release.set()
        asleep.join(PATIENCE)


def test_a_wait_that_goes_on_counts_before_the_kernel_tells_it(
    starved: threading.Thread,
) -> None:
    """It tells a wait when that is over, and a loop was said to be blocked by then."""
    path = Path(f"/proc/self/task/{starved.native_id}/schedstat")

    def knows_more_than_is_told() -> bool:
        told, queue = path.read_bytes(), queue_of(starved)
        while path.read_bytes() == told:
            if waited(queue) > 0.03:
                return path.read_bytes() == told
        return False

    until(knows_more_than_is_told)


def test_a_thread_that_is_gone_waits_for_nothing() -> None:
    """Between two looks it may have come to its end."""
    thread = threading.Thread(target=int)
    thread.start()
    thread.join(PATIENCE)
    before = time.monotonic()

    assert queue_of(thread).waited(before + 60) == 0
