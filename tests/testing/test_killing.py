"""A test can have a process die with spans open, and look at what is recovered."""

from __future__ import annotations

import mmap
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, NoReturn

import pytest

import agenttrace
from agenttrace.errors import AgenttraceError
from agenttrace.testing import capture_spans, kill_and_recover
from agenttrace.testing.killing import run_in_fork

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    Die = Callable[[], NoReturn]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")


def test_what_was_open_is_lost_and_what_had_ended_is_told_as_it_ended() -> None:
    """Property D, in a line of a test suite."""

    def work(die: Die) -> None:
        with agenttrace.span("search"):
            pass
        with agenttrace.span("plan"), agenttrace.span("look up"):
            die()

    recovered = kill_and_recover(work)

    recovered.assert_tree("""
        search
        plan: lost ended_by=recovery
          look up: lost
    """)
    assert recovered.span("plan").error_type == "process_lost"


def test_a_test_that_captures_does_not_see_what_another_process_did() -> None:
    """They are two traces of two processes, and only one of them is the test's."""

    def work(die: Die) -> None:
        with agenttrace.span("theirs"):
            die()

    with capture_spans() as spans, agenttrace.span("mine"):
        recovered = kill_and_recover(work)

    assert spans.names == ["mine"]
    assert recovered.names == ["theirs"]


def break_off(_: Die) -> None:
    raise KeyError("nothing")  # noqa: EM101 - a key


def leave(_: Die) -> None:
    sys.exit(3)


def finish(_: Die) -> None:
    pass


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (break_off, "KeyError: 'nothing'"),
        (leave, "SystemExit: 3"),
        (finish, "it came to its end"),
    ],
)
def test_work_that_is_not_killed_says_how_it_ended(
    work: Callable[[Die], object], message: str
) -> None:
    """Otherwise nothing would be lost, and the test would be about nothing."""
    with pytest.raises(AgenttraceError, match=message):
        kill_and_recover(work)


def test_work_that_hangs_is_not_waited_for() -> None:
    """A test suite has to come to its end."""

    def work(_: Die) -> None:
        threading.Event().wait()

    with pytest.raises(AgenttraceError, match="it took too long"):
        kill_and_recover(work, timeout=0.5)


def test_it_recovers_though_the_machine_keeps_no_journals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That is how suites are set up; a test of recovery asks for its own."""
    monkeypatch.setenv("AGENTTRACE_DURABLE", "0")

    def work(die: Die) -> None:
        with agenttrace.span("plan"):
            die()

    assert kill_and_recover(work).span("plan").outcome == "lost"


def test_it_says_so_where_agenttrace_is_switched_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An empty answer would look like spans that are never lost."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")

    with pytest.raises(AgenttraceError, match="keeps no journal"):
        kill_and_recover(lambda die: die())


def test_a_child_is_not_left_behind_by_whoever_is_interrupted() -> None:
    """It would go on after the suite, and hold its terminal."""

    class Interrupted(BaseException):
        pass

    def interrupt(_: int, frame: FrameType | None) -> None:
        # While it is waited for: between two lines of the fork nobody knows the child.
        if frame is not None and "deadline" in frame.f_locals:
            raise Interrupted

    def hang() -> None:
        said.write(b"%d" % os.getpid())
        for _ in range(1_000):
            os.kill(os.getppid(), signal.SIGURG)
            threading.Event().wait(0.01)

    said = mmap.mmap(-1, 20)  # shared
    before = signal.signal(signal.SIGURG, interrupt)
    try:
        with pytest.raises(Interrupted):
            run_in_fork(hang, 30)
    finally:
        signal.signal(signal.SIGURG, before)
    pid = int(said[:].rstrip(b"\0"))

    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
