"""Runs small programs in processes of their own, as users run theirs."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agenttrace.delivery.store.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agenttrace.model import SpanData


@dataclass(frozen=True)
class Ran:
    """What came of a program."""

    code: int
    out: str
    err: str
    seconds: float
    state_dir: Path

    def spans(self) -> dict[str, SpanData]:
        """Return what the embedded store holds, by name."""
        reader = Reader(self.state_dir / "traces.db")
        return {
            span.name: span
            for each in reader.runs(1_000)
            for span in reader.spans(each.trace_id)
        }


def run(
    program: str,
    *,
    timeout: float = 60,
    environment: Mapping[str, str] | None = None,
    **variables: str,
) -> Ran:
    """Run *program* with *environment* and *variables* on top of the test's own."""
    env = {**os.environ, **(environment or {}), **variables}
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=env,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Ran(
        done.returncode,
        done.stdout,
        done.stderr,
        time.monotonic() - started,
        Path(env["AGENTTRACE_STATE_DIR"]),
    )
