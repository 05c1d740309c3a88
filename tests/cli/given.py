"""Processes that die, and commands that look after them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

TIME_LIMIT = 60
COMMAND = (sys.executable, "-m", "agenttrace.cli")
NOBODY = "http://127.0.0.1:9"
"""An endpoint where nobody listens."""
DIES = """
    import glob, os, signal, sys, time
    import agenttrace

    runtime = agenttrace.configure(service_name="worker", state_dir=sys.argv[1])
    with agenttrace.span("run"):
        with agenttrace.span("done"):
            pass
        with agenttrace.span("step"):
            # What is sent is noted on disk a moment after whoever flushes hears of it.
            while not runtime.flush() or glob.glob(sys.argv[1] + "/*/*.spool"):
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGKILL)
"""
"""Two spans are open when it is killed, and one has been delivered."""
DIES_UNSENT = DIES.replace(
    'not runtime.flush() or glob.glob(sys.argv[1] + "/*/*.spool")',
    "not runtime.status().spool_bytes",
)
"""The same, but the one that has ended could not be sent, and is on disk."""


def environment(**more: str) -> dict[str, str]:
    """Return what a process of these tests finds in its environment."""
    return {**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1", **more}


def die(state_dir: Path, source: str = DIES, **more: str) -> int:
    """Run a process that is killed, and return which it was."""
    with subprocess.Popen(
        [sys.executable, "-c", dedent(source), str(state_dir)], env=environment(**more)
    ) as process:
        assert process.wait(TIME_LIMIT) == -signal.SIGKILL
    return process.pid


def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment(**more),
        capture_output=True,
        encoding="utf-8",
        timeout=TIME_LIMIT,
        check=False,
    )


class Terminal:
    """A command that draws, in a pseudo-terminal."""

    def __init__(
        self, state_dir: Path, lines: int, columns: int, command: tuple[str, ...]
    ) -> None:
        pty = pytest.importorskip("pty")
        termios = pytest.importorskip("termios")
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (lines, columns))
        self._theirs = theirs
        self._modes_of: Callable[[int], object] = termios.tcgetattr
        self.before = self.modes()
        self.shown = ""
        more = {"TERM": "xterm", "COLUMNS": "", "LINES": ""}
        self.process = subprocess.Popen(
            [*COMMAND, *command, "--state-dir", str(state_dir)],
            env=environment(**more),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )

    def modes(self) -> object:
        """Return how the terminal is set."""
        return self._modes_of(self._theirs)

    def read_until(self, text: str) -> None:
        """Read until *text* is shown."""
        give_up_at = time.monotonic() + TIME_LIMIT
        while text not in self.shown:
            left = max(0.0, give_up_at - time.monotonic())
            assert select.select([self._ours], [], [], left)[0], self.shown
            self.shown += os.read(self._ours, 4096).decode(errors="replace")

    def press(self, key: str) -> None:
        """Press *key*."""
        os.write(self._ours, key.encode())

    def end(self) -> int:
        """Wait for its end and return the exit code."""
        # It may have more to show than a terminal takes that nobody reads.
        os.set_blocking(self._ours, False)
        give_up_at = time.monotonic() + TIME_LIMIT
        while self.process.poll() is None and time.monotonic() < give_up_at:
            self._drain()
            time.sleep(0.01)
        self._drain()
        return self.process.wait(TIME_LIMIT)

    def _drain(self) -> None:
        try:
            while read := os.read(self._ours, 4096):
                self.shown += read.decode(errors="replace")
        except BlockingIOError:
            return

    def close(self) -> None:
        """Close it, and kill what still runs in it."""
        self.process.kill()
        self.process.wait(TIME_LIMIT)
        os.close(self._ours)
        os.close(self._theirs)


@contextmanager
def terminal(
    state_dir: Path,
    lines: int = 24,
    columns: int = 80,
    command: tuple[str, ...] = ("top",),
) -> Generator[Terminal]:
    """Run it in a terminal of that size."""
    there = Terminal(state_dir, lines, columns, command)
    try:
        yield there
    finally:
        there.close()
