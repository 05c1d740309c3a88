"""The stacks that `faulthandler` writes while the GIL is kept, where that is asked for.

In processes of their own: under pytest the timer is pytest's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from agenttrace.settings import INSTANCES
from agenttrace.watchdog.backstop import Backstop
from tests.cli.given import die
from tests.cli.given import run as run_command

if TYPE_CHECKING:
    from pathlib import Path

TIME_LIMIT = 60
BEGIN = """
    import asyncio, ctypes, faulthandler, glob, os, sys, tempfile, time
    import agenttrace
    from agenttrace.runtime.process import PROCESS
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
        InMemorySpanExporter,
    )

    exporter = InMemorySpanExporter()
    runtime = agenttrace.configure(
        span_exporter=exporter, loop_blocked_after=0.25, gil_dump_after=2
    )
    state = os.environ["AGENTTRACE_STATE_DIR"]

    def dumps():
        return glob.glob(state + "/instances/*.dump")

    def ticks(number):
        enough = PROCESS.ticker.ticks + number
        while PROCESS.ticker.ticks < enough:
            time.sleep(0.05)
"""

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="there is no journal, and so no file"
)


def run(source: str) -> str:
    """Run a program that begins with `BEGIN`, and return what it printed."""
    ran = subprocess.run(
        [sys.executable, "-c", dedent(BEGIN) + dedent(source)],
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    return ran.stdout


def test_the_stack_of_what_kept_the_gil_is_on_the_span_of_the_block() -> None:
    """C code that waits with the GIL takes no CPU time: nothing else proves it."""
    said = run("""
        keeps_the_gil = ctypes.PyDLL(None)

        def holds():
            keeps_the_gil.usleep(4_000_000)

        def dumped():
            runtime.flush()
            return [
                span
                for span in exporter.get_finished_spans()
                if "agenttrace.event_loop.dump" in span.attributes
            ]

        async def main():
            with agenttrace.span("tool"):
                ticks(2)
                await asyncio.sleep(0)
                # Until it is seen: others may be let go on before whoever looks.
                for _ in range(8):
                    holds()
                    await asyncio.sleep(0.5)
                    # One that a busy machine holds up is blocked as well, undumped.
                    if dumped():
                        break

        asyncio.run(main())
        print([oct(os.stat(path).st_mode & 0o777) for path in dumps()])
        runtime.shutdown()
        print(dumps())
        told = dumped()
        print(len(told), told[0].end_time - told[0].start_time > 3_000_000_000)
        print("in holds" in told[0].attributes["agenttrace.event_loop.dump"])
        print("in holds" in told[0].attributes["code.stacktrace"])
    """)

    assert said.splitlines() == ["['0o600']", "[]", "1 True", "True", "True"]


def test_a_timer_of_the_application_is_left_alone() -> None:
    """There is one in a process; who asks for it means it."""
    said = run("""
        own = tempfile.TemporaryFile()
        with agenttrace.span("run"):
            ticks(2)
            faulthandler.dump_traceback_later(2, file=own)
            give_up_at = time.monotonic() + 30
            while not os.fstat(own.fileno()).st_size:
                assert time.monotonic() < give_up_at
                time.sleep(0.1)
        print("it ran out")
    """)

    assert said == "it ran out\n"


def test_one_that_is_set_while_no_span_is_open_is_left_alone_too() -> None:
    """Between two runs the timer is still ours: else nobody would see it taken."""
    said = run("""
        own = tempfile.TemporaryFile()
        with agenttrace.span("run"):
            ticks(2)
        while PROCESS.spans.awake:
            time.sleep(0.05)
        faulthandler.dump_traceback_later(2, file=own)
        with agenttrace.span("run"):
            give_up_at = time.monotonic() + 30
            while not os.fstat(own.fileno()).st_size:
                assert time.monotonic() < give_up_at
                time.sleep(0.1)
        print("it ran out")
    """)

    assert said == "it ran out\n"


def test_a_forked_child_comes_to_its_end() -> None:
    """With the timer running it would hang at exit, waiting for the timer's thread."""
    said = run("""
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        with agenttrace.span("run"):
            ticks(2)
            pid = os.fork()
            if not pid:
                faulthandler.cancel_dump_traceback_later()
                sys.exit(0)
            print(os.waitpid(pid, 0)[1])
            ticks(2)
        runtime.shutdown()
        print(dumps())
    """)

    assert said == "0\n[]\n"


def test_it_is_off_unless_it_is_asked_for() -> None:
    """A timer that runs out at the wrong moment can crash the process."""
    source = BEGIN.replace(", gil_dump_after=2", "")
    source += """
    with agenttrace.span("run"):
        ticks(2)
        print(dumps())
    """
    ran = subprocess.run(
        [sys.executable, "-c", dedent(source)],
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
        check=True,
    )

    assert ran.stdout == "[]\n"


def test_under_pytest_the_timer_is_left_to_pytest(tmp_path: Path) -> None:
    """It sets it for every test, and would lose it without a word."""
    path = tmp_path / "of-a-test.dump"
    backstop = Backstop(path, 0.05)

    backstop.tick()
    threading.Event().wait(0.5)

    assert backstop.tick() is None
    assert path.stat().st_size == 0
    backstop.stop()
    assert not path.exists()


def test_the_file_of_a_dead_process_goes_with_its_journal(tmp_path: Path) -> None:
    """Nobody else would ever remove it."""
    pid = die(tmp_path)
    instances = tmp_path / INSTANCES
    [lock] = instances.glob("*.lock")
    lock.with_suffix(".dump").write_text("Thread 0x1 (most recent call first):\n")

    ran = run_command("recover", "--state-dir", os.fspath(tmp_path))

    assert ran.returncode == 0, ran.stderr
    assert str(pid) not in " ".join(path.name for path in instances.iterdir())
