"""Recovery beside a living application: it neither waits for it nor gets in its way."""

from __future__ import annotations

import os
import signal

import pytest

from tests.core.programs import run

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")

NOBODY = "http://127.0.0.1:9"  # discard: nobody listens there

LARGE = """
    import os, signal, time
    import agenttrace
    runtime = agenttrace.configure()
    for _ in range(100):
        with agenttrace.span("large", attributes={"text": "x" * 150_000}):
            pass
    while runtime.status().delivery.buffered_spans < 100:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_recover_returns_in_time_while_the_collector_is_down() -> None:
    """More than may be on its way at once has been left, and none of it can go."""
    killed = run(LARGE, OTEL_EXPORTER_OTLP_ENDPOINT=NOBODY)

    ran = run(
        """
        import time
        import agenttrace
        agenttrace.configure(flush_timeout=0.1)
        began = time.monotonic()
        agenttrace.recover(timeout=0.5)
        agenttrace.recover(timeout=0.5)
        print(time.monotonic() - began < 5)
        """,
        OTEL_EXPORTER_OTLP_ENDPOINT=NOBODY,
        timeout=30,
    )

    assert killed.code == -signal.SIGKILL
    assert (ran.code, ran.out) == (0, "True\n"), ran.err


OPEN = """
    import os, signal
    import agenttrace
    agenttrace.configure()
    with agenttrace.span("open"):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_who_shuts_down_while_it_recovers_lets_go_of_nothing_it_still_writes() -> None:
    """Two that write to the files of one dead process lose what either has written.

    Whoever is held up by a disk in the middle of writing keeps the lock until it dies.
    """
    killed = run(OPEN)

    ran = run(
        """
        import fcntl, os, pathlib, threading
        import agenttrace
        from agenttrace import crashpoints

        is_there, go_on = threading.Event(), threading.Event()

        def hold(at):
            if at == "recovered and appended":
                is_there.set()
                go_on.wait(30)

        def is_free(path):
            pid = os.fork()
            if pid == 0:
                with open(path, "r+b") as file:
                    try:
                        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except OSError:
                        os._exit(1)
                    os._exit(0)
            return os.waitpid(pid, 0)[1] == 0

        crashpoints.hook = hold
        directory = pathlib.Path(os.environ["AGENTTRACE_STATE_DIR"], "instances")
        lock, = directory.glob("*.lock")
        runtime = agenttrace.configure()
        is_there.wait(30)
        runtime.shutdown()
        print(is_free(lock))
        go_on.set()
        """,
        PYTHONWARNINGS="ignore::DeprecationWarning",
    )
    last = run("import agenttrace; agenttrace.configure(); agenttrace.recover()")

    assert killed.code == -signal.SIGKILL
    assert (ran.out.split(), ran.err) == (["False"], "")
    assert last.spans()["open"].attributes["agenttrace.outcome"] == "lost"


def test_what_is_recovered_at_exit_leaves_no_files_once_it_is_delivered() -> None:
    """A short program that comes after a crash finishes what it has begun."""
    killed = run(OPEN)

    ran = run(
        """
        import threading
        import agenttrace
        from agenttrace import crashpoints
        is_appended = threading.Event()
        at_last = "recovered and appended"
        crashpoints.hook = lambda at: at == at_last and is_appended.set()
        agenttrace.configure()
        is_appended.wait(30)
        for thread in threading.enumerate():
            if thread.name == "agenttrace-recovery":
                thread.join()
        """
    )

    assert killed.code == -signal.SIGKILL
    assert ran.err == ""
    assert ran.spans()["open"].attributes["agenttrace.outcome"] == "lost"
    assert list((ran.state_dir / "instances").iterdir()) == []
