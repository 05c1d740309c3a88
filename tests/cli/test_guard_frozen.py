"""`agenttrace guard` tells of a process that lives and makes no sign."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import SpanKind

from agenttrace.cli.frozen import Notice, Watch
from agenttrace.journal import Slot, State
from tests.cli.given import TIME_LIMIT, environment
from tests.cli.test_guard import first_line, guarding

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

needs_signals = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows cannot stop a process"
)
WORKS = """
    import sys, time
    import agenttrace

    agenttrace.configure(service_name="worker", state_dir=sys.argv[1])
    with agenttrace.span("run"):
        with agenttrace.span("plan"):
            pass
        with agenttrace.span("step"):
            print("at work", flush=True)
            sys.stdin.readline()
"""
SECOND = 1_000_000_000


@contextmanager
def working(state_dir: Path) -> Generator[subprocess.Popen[str]]:
    """Run a process that has a step open until it is told to go on."""
    with subprocess.Popen(
        [sys.executable, "-c", dedent(WORKS), str(state_dir)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "at work\n"
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.communicate("go on\n", TIME_LIMIT)


def stands_still(guard: subprocess.Popen[str], words: str) -> str:
    """Return the line with *words* that tells of the stopped process.

    On a busy machine the worker stands still by itself before it has all of its spans.
    """
    line = first_line(guard)
    while line and words not in line:
        line = first_line(guard)
    return line


@needs_signals
def test_a_stopped_process_is_told_once_and_again_when_it_goes_on(
    tmp_path: Path,
) -> None:
    """Nobody in the process itself can: not even its own watchdog runs."""
    with (
        working(tmp_path) as worker,
        guarding(tmp_path, "--json", "--frozen-after", "3") as guard,
    ):
        worker.send_signal(signal.SIGSTOP)
        frozen = json.loads(stands_still(guard, '["run / step"]'))
        worker.send_signal(signal.SIGCONT)
        goes_on = json.loads(first_line(guard))

    assert (frozen["event"], frozen["pid"]) == ("frozen", worker.pid)
    assert (frozen["open"], frozen["spans"]) == (2, ["run / step"])
    assert (goes_on["event"], goes_on["pid"]) == ("goes_on", worker.pid)
    assert goes_on["since"] == frozen["since"]
    assert goes_on["seconds"] >= 3


@needs_signals
def test_a_process_that_is_killed_while_it_stands_still_is_told_as_dead(
    tmp_path: Path,
) -> None:
    """That it was not recovered twice shows that its lock was not touched."""
    with (
        guarding(tmp_path, "--frozen-after", "2") as guard,
        working(tmp_path) as worker,
    ):
        worker.send_signal(signal.SIGSTOP)
        frozen = stands_still(guard, ", 2 spans open: run / step")
        worker.kill()
        dead = first_line(guard)

    assert f"  process {worker.pid} stands still since " in frozen
    assert f"  process {worker.pid} has died: 2 open (lost)" in dead


@dataclass(frozen=True)
class _Look:
    """What one look at a process finds."""

    sign: int = 100 * SECOND
    slots: tuple[Slot, ...] = ()
    seen_at: float = 0.0
    now: int = 100 * SECOND


def slot(number: int, parent: int = 0, name: str = "step") -> Slot:
    """Return an open span."""
    values: dict[str, Any] = dict.fromkeys(Slot._fields)
    values |= {
        "state": State.OPEN,
        "span_id": number.to_bytes(8, "big"),
        "parent_id": parent.to_bytes(8, "big") if parent else b"",
        "name": name,
        "kind": SpanKind.INTERNAL,
    }
    return Slot(**values)


def told(watch: Watch, look: _Look) -> Notice | None:
    return watch.judge("1-0", look.sign, look.slots, look.seen_at, look.now)


AT_WORK = _Look(slots=(slot(1, name="run"), slot(2, 1), slot(3, 9, "other")))


def test_one_look_proves_nothing(tmp_path: Path) -> None:
    """The whole host may have been suspended until just now, and its clock was not."""
    watch = Watch(tmp_path, 10)

    assert told(watch, replace(AT_WORK, now=9_000 * SECOND)) is None


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_a_process_whose_sign_is_new_stands_never_still(steps: list[int]) -> None:
    """However late the looks are."""
    watch, at = Watch(None, 1), 100  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # it looks nowhere
    for number, step in enumerate(steps):
        at += 1 + step
        look = replace(
            AT_WORK, sign=at * SECOND, seen_at=at * 10, now=(at + number) * SECOND
        )

        assert told(watch, look) is None


def test_it_is_told_once_with_the_deepest_steps(tmp_path: Path) -> None:
    """A line at each look would bury the others."""
    watch = Watch(tmp_path, 10)
    later = replace(AT_WORK, seen_at=20, now=120 * SECOND)

    first = told(watch, AT_WORK)
    second = told(watch, later)
    third = told(watch, replace(later, seen_at=40, now=140 * SECOND))
    back = told(watch, replace(later, sign=150 * SECOND, seen_at=50))

    assert (first, third) == (None, None)
    assert second == Notice("1-0", 100 * SECOND, None, 3, ("run / step", "other"))
    assert back is not None
    assert back == Notice("1-0", 100 * SECOND, goes_on=150 * SECOND)
    assert back.sentence() == "process 1 goes on, after 50 s"


def test_one_that_has_nothing_open_may_be_silent(tmp_path: Path) -> None:
    """It does not even tick then."""
    watch = Watch(tmp_path, 10)

    assert told(watch, _Look()) is None
    assert told(watch, _Look(seen_at=900, now=9_000 * SECOND)) is None


def test_spans_that_are_each_other_s_parents_come_to_an_end(tmp_path: Path) -> None:
    """A damaged disk may say anything."""
    watch = Watch(tmp_path, 10)
    slots = (slot(1, 2), slot(2, 1), slot(3, 1))
    assert told(watch, replace(AT_WORK, slots=slots)) is None

    notice = told(watch, replace(AT_WORK, slots=slots, seen_at=20, now=200 * SECOND))

    assert notice is not None
    assert notice.open == 3
