"""What encodes is imported by the first span that ends, and that may fail."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from agenttrace import lazy, safety
from agenttrace.delivery.otlp import frame_of
from tests.core.programs import run
from tests.delivery.given import Script, ids_of, put, span_data, spooling

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _fresh_counters(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # The failures are what this is about.
    monkeypatch.delenv(safety.STRICT_VARIABLE, raising=False)
    safety.reset_for_tests()
    yield
    safety.reset_for_tests()


class Missing:
    """An import that fails until it is mended."""

    def __init__(self) -> None:
        self.is_mended = False
        self.tried = threading.Semaphore(0)

    def __call__(self) -> None:
        """Import nothing."""
        self.tried.release()
        if not self.is_mended:
            raise OSError(24, "Too many open files")


def test_spans_wait_for_what_encodes_them() -> None:
    """A process without a descriptor may have one in a moment."""
    missing, script = Missing(), Script()

    with spooling(script, prepare=missing) as running:
        items = put(running, 300)
        assert missing.tried.acquire(timeout=30)
        too_early = running.flush(0.01)
        missing.is_mended = True
        settled = running.flush(30)

    assert (too_early, settled) == (False, True)
    assert script.ids == ids_of(items)
    assert all(item.is_written for item in items)
    assert safety.counts()["spans_dropped"] == 0


def test_no_more_wait_for_it_than_for_a_disk_that_stalls() -> None:
    """They are kept in memory, which is the application's."""
    missing, script = Missing(), Script()

    with spooling(script, prepare=missing, max_queued=50) as running:
        put(running)
        assert missing.tried.acquire(timeout=30)
        assert missing.tried.acquire(timeout=30)
        put(running, 300)
        missing.is_mended = True
        assert running.flush(30)

    dropped = safety.counts()["spans_dropped"]
    assert len(script.ids) + dropped == 301
    assert dropped >= 200


def test_what_still_waits_at_the_end_is_counted() -> None:
    """Nothing is lost in silence, and nobody waits for a miracle."""
    missing = Missing()

    with spooling(Script(), prepare=missing) as running:
        items = put(running, 3)
        settled = running.shutdown(5)

    assert not settled
    assert not any(item.is_written for item in items)
    assert safety.counts()["spans_dropped"] == 3


def test_only_the_first_import_keeps_forks_away() -> None:
    """A fork that takes its time must not keep spans, or reports, from being made."""
    frame_of([span_data()])
    lock, held, over = vars(lazy)["_importing"], threading.Event(), threading.Event()

    def fork() -> None:
        with lock:
            held.set()
            over.wait(60)

    forking = threading.Thread(target=fork)
    done = threading.Thread(target=lambda: frame_of([span_data()]))
    forking.start()
    try:
        assert held.wait(30)
        done.start()
        done.join(30)
        was_kept = done.is_alive()
    finally:
        over.set()
        forking.join(30)
        done.join(30)

    assert not was_kept


@pytest.mark.skipif(os.name != "posix", reason="limits of descriptors are POSIX")
def test_spans_survive_a_moment_in_which_no_file_can_be_opened() -> None:
    """A server at its limit of descriptors is just when traces are wanted."""
    ran = run(
        """
        import os, resource, time, agenttrace
        runtime = agenttrace.configure(durable=False)
        with agenttrace.bind():  # the verbs are imported by now
            pass
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, most))
        taken = []
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            pass
        with agenttrace.span("plan"):
            pass
        deadline = time.monotonic() + 40
        while "delivery.prepare" not in runtime.status().guard_hits:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for each in taken:
            os.close(each)
        runtime.flush(40)
        status = runtime.status()
        failed = "delivery.prepare" in status.guard_hits
        print(failed, status.counts["spans_dropped"])
        """,
        AGENTTRACE_STRICT="",
    )

    assert ran.out == "True 0\n", ran.err
    assert "plan" in ran.spans()
