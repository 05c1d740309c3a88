"""A state directory that is taken away from a process that uses it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.core.programs import run
from tests.crash.given import collector_of_programs, endings, recover

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.delivery.collector import Collector

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collector_of_programs() as collector:
        yield collector


def test_one_that_is_deleted_costs_a_living_process_nothing(
    collector: Collector,
) -> None:
    """Whoever tidies up temporary files does not ask who has them open."""
    ran = run(
        """
        import os, shutil
        import agenttrace
        agenttrace.configure(service_name="worker")
        with agenttrace.span("before"):
            pass
        opened = agenttrace.span("open")
        opened.__enter__()
        shutil.rmtree(os.environ["AGENTTRACE_STATE_DIR"])
        with agenttrace.span("after"):
            pass
        """
    )

    assert (ran.code, ran.err) == (0, "")
    ok = ("ok", "return")
    assert endings(collector) == {"before": ok, "after": ok, "open": ("lost", "exit")}


def test_one_that_is_moved_is_recovered_where_it_is(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The journal is the open file, and not its name."""
    moved = tmp_path / "moved"
    ran = run(
        """
        import os, signal
        import agenttrace
        agenttrace.configure(service_name="worker")
        os.rename(os.environ["AGENTTRACE_STATE_DIR"], os.environ["MOVED"])
        with agenttrace.span("after"):
            pass
        assert agenttrace.flush()
        opened = agenttrace.span("open")
        opened.__enter__()
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        MOVED=str(moved),
        AGENTTRACE_STATE_DIR=str(tmp_path / "first"),
    )
    assert ran.code == -9, ran.err

    monkeypatch.setenv("AGENTTRACE_STATE_DIR", str(moved))
    recover()
    told = endings(collector)
    assert told == {"after": ("ok", "return"), "open": ("lost", "recovery")}
