"""Processes that die, and commands that look after them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from textwrap import dedent
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
