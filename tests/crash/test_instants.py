"""A process is killed at each instant that has a name, and recovered by the next."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.core.programs import run
from tests.delivery.collector import Collector, Received

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")

DIE = """
    import os, signal, threading
    import agenttrace
    from agenttrace import crashpoints

    def die_at(name, times=1):
        left = [times]
        def hook(at):
            left[0] -= at == name
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
        crashpoints.hook = hook
"""
WORK = (
    DIE
    + """
    die_at(os.environ["AT"], int(os.environ.get("TIMES", "1")))
    runtime = agenttrace.configure(service_name="dead")
    with agenttrace.span("run"):
        try:
            with agenttrace.span("step", attributes={"size": 3}):
                raise ValueError
        except ValueError:
            pass
        runtime.flush(30)
        threading.Event().wait(30)
"""
)
RECOVER = (
    DIE
    + """
    if "AT" in os.environ:
        die_at(os.environ["AT"], int(os.environ.get("TIMES", "1")))
    runtime = agenttrace.configure(service_name="recoverer")
    found = agenttrace.recover(timeout=30)
    print(found.lost, found.ended, found.resent)
    print(len(os.listdir(os.environ["AGENTTRACE_STATE_DIR"] + "/instances")))
"""
)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.base)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        yield collector


def forms(collector: Collector) -> Mapping[str, set[str]]:
    """Return the different forms that came, by name of the span."""
    found: dict[str, set[str]] = {}
    for span in collector.spans():
        found.setdefault(span.name, set()).add(repr(span))
    return found


def last(collector: Collector) -> Mapping[str, Received]:
    """Return what came, by name."""
    return {span.name: span for span in collector.spans()}


@pytest.mark.parametrize(
    ("at", "times"),
    [
        ("mid append", "2"),  # the first time it is the header of the file
        ("frame appended", "1"),
        ("sent", "1"),
        ("acknowledged", "1"),
    ],
)
def test_a_process_killed_at_any_instant_is_told_by_the_next(
    collector: Collector, at: str, times: str
) -> None:
    """Each span has arrived, in one form, with its own outcome or as lost."""
    killed = run(WORK, AT=at, TIMES=times)

    recovered = run(RECOVER)

    assert killed.code == -signal.SIGKILL
    assert recovered.code == 0, recovered.err
    assert recovered.out.split()[-1] == "2", "only its own files are left"
    assert {name: len(found) for name, found in forms(collector).items()} == {
        "run": 1,
        "step": 1,
    }
    told = last(collector)
    assert told["run"].attributes["agenttrace.outcome"] == "lost"
    assert told["run"].attributes["agenttrace.ended_by"] == "recovery"
    assert told["step"].attributes["agenttrace.outcome"] == "error"
    assert told["step"].parent_id == told["run"].span_id
    assert {span.resource["service.name"] for span in told.values()} == {"dead"}


@pytest.mark.parametrize(
    "at", ["recovered", "recovered and appended", "sent", "recovered and settled"]
)
@pytest.mark.parametrize("died_at", ["frame appended", "sent"])
def test_a_recoverer_killed_at_any_instant_is_recovered_too(
    collector: Collector, at: str, died_at: str
) -> None:
    """What the first recoverer has told, the second does not tell otherwise."""
    run(WORK, AT=died_at)
    first = run(RECOVER, AT=at)

    second = run(RECOVER)

    assert first.code == -signal.SIGKILL
    assert second.code == 0, second.err
    assert second.out.split()[-1] == "2", "only its own files are left"
    assert {name: len(found) for name, found in forms(collector).items()} == {
        "run": 1,
        "step": 1,
    }
    assert last(collector)["step"].attributes["size"] == 3


def test_a_verdict_that_was_told_stands_though_its_process_is_killed(
    collector: Collector,
) -> None:
    """A span that hangs is judged, and often killed for it."""
    killed = run(
        DIE
        + """
    from agenttrace.model import EndedBy, Ending, Outcome
    runtime = agenttrace.configure()
    with agenttrace.span("hung"):
        for record in runtime.open_spans():
            runtime.spans.judge(record, Ending(Outcome.STUCK, EndedBy.WATCHDOG))
        runtime.flush(30)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    )

    recovered = run(RECOVER)

    assert killed.code == -signal.SIGKILL
    # It may be sent once more, if the answer was not on disk yet; never otherwise.
    assert recovered.out.split()[:2] == ["0", "0"], recovered.err
    assert [len(found) for found in forms(collector).values()] == [1]
    assert last(collector)["hung"].attributes["agenttrace.outcome"] == "stuck"
