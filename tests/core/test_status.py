"""The status has what metrics read: sizes of journal and spool, and the counters."""

from __future__ import annotations

import sys

import pytest

from tests.core.programs import run

NOBODY = "http://127.0.0.1:9"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no journal there")


def test_a_runtime_tells_what_its_journal_and_spool_take_on_disk() -> None:
    """An outage that fills a disk is seen before it has."""
    ran = run(
        """
        import glob, os, time
        import agenttrace
        runtime = agenttrace.configure()
        before = runtime.status()
        with agenttrace.span("kept"):
            pass
        give_up_at = time.monotonic() + 30
        while not (after := runtime.status()).spool_bytes:
            assert time.monotonic() < give_up_at
            time.sleep(0.01)
        where = os.environ["AGENTTRACE_STATE_DIR"] + "/instances/*."
        sizes = [sum(map(os.path.getsize, glob.glob(where + kind)))
                 for kind in ("journal", "spool")]
        print(before.journal, before.journal_slots >= 4096, before.spool_bytes)
        print(sizes == [after.journal_bytes, after.spool_bytes])
        """,
        OTEL_EXPORTER_OTLP_ENDPOINT=NOBODY,
        AGENTTRACE_FLUSH_TIMEOUT="0",
    )

    assert ran.out.splitlines() == ["True True 0", "True"], ran.err


def test_without_a_journal_there_are_no_sizes() -> None:
    """Zero, and no error, in whatever asks for them."""
    ran = run(
        """
        import agenttrace
        status = agenttrace.configure().status()
        print(status.journal, status.journal_bytes, status.journal_slots,
              status.spool_bytes)
        """,
        AGENTTRACE_DURABLE="false",
    )

    assert ran.out == "False 0 0 0\n"


def test_what_was_taken_over_is_counted_by_who_took_it() -> None:
    """What one process left and another recovered adds up over both."""
    ran = run(
        """
        import subprocess, sys
        import agenttrace
        source = '''if True:
            import os, signal, agenttrace
            agenttrace.configure()
            with agenttrace.span("lost"):
                os.kill(os.getpid(), signal.SIGKILL)
        '''
        subprocess.run([sys.executable, "-c", source])
        with agenttrace.configure() as runtime:
            agenttrace.recover()
            counts = runtime.status().counts
            print(counts["spans_recovered"], counts["spans_redelivered"],
                  counts["spans_left"])
        """
    )

    assert ran.out == "1 0 0\n", ran.err
