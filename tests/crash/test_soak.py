"""The soak, in small: fifty kills with a collector that is far away.

Tens of kills, not hundreds: a kill takes a quarter of a second on two slow cores, most
of it the life before it.  The hundreds are a stage of `.ci/run`, with a collector at
hand as well, and thousands are for `python -m tests.crash --kills 2000`.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")
def test_whenever_a_worker_is_killed_the_collector_is_told_the_truth() -> None:
    """The promise itself, at fifty instants of which none was chosen to be easy."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash", "--kills", "50", "--delay", "0.3"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("nothing was lost\n")
    assert "Traceback" not in done.stderr
