"""Processes that have no more of an operating system than another platform would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

from tests.cli.given import COMMAND, TIME_LIMIT, environment

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def environment_of(platform: str, state_dir: Path, **more: str) -> dict[str, str]:
    """Return the environment in which each Python runs as on *platform*."""
    path = os.pathsep.join([str(HERE / platform), str(ROOT)])
    return environment(PYTHONPATH=path, AGENTTRACE_STATE_DIR=str(state_dir), **more)


def python(
    platform: str, state_dir: Path, *arguments: str, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run Python with *arguments* as on *platform*, and return what it said."""
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment_of(platform, state_dir, **more),
        cwd=state_dir,
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
        check=False,
    )


def program(platform: str, state_dir: Path, source: str) -> str:
    """Run *source* as on *platform*, and return what it printed."""
    done = python(platform, state_dir, "-c", dedent(source))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def command(
    platform: str, state_dir: Path, *words: str, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run `agenttrace` with *words* as on *platform*; it never ends in a traceback."""
    done = python(platform, state_dir, *COMMAND[1:], *words, **more)
    assert "Traceback" not in done.stderr, done.stderr
    return done
