"""Real processes that are killed, and what the next one delivers of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from agenttrace.journal import take_over
from agenttrace.recovery import Recovery, locks_in
from tests.delivery.collector import Collector, Reply
from tests.recovery.given import FIRST, Backend, bury, names_in, slot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agenttrace.recovery import Recovered
    from tests.delivery.collector import Received

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")

DEADLINE = 60.0
DOWN = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9/v1/traces"}
"""What a process is given whose collector cannot be reached."""
PRELUDE = """
import json, os, signal, sys, threading, time
import agenttrace
from agenttrace import crashpoints
from agenttrace.model import EndedBy, Ending, Outcome
from agenttrace.runtime.process import PROCESS

def say(word):
    os.write(1, (str(word) + chr(10)).encode())

def wait():
    sys.stdin.readline()

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def die_at(point):
    crashpoints.hook = lambda name: die() if name == point else None
"""


class World:
    """A state directory, a collector, and the processes that share them."""

    def __init__(self, state: Path, collector: Collector) -> None:
        self.state = state
        self.collector = collector
        self.instances = state / "instances"
        self._started: list[subprocess.Popen[str]] = []

    def start(self, body: str, **variables: str) -> subprocess.Popen[str]:
        """Run *body* after the prelude."""
        process = subprocess.Popen(
            [
                sys.executable,
                "-W",
                "ignore::DeprecationWarning",  # it forks, and has threads
                "-c",
                PRELUDE + textwrap.dedent(body),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "AGENTTRACE_STATE_DIR": str(self.state),
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": self.collector.endpoint,
                **variables,
            },
        )
        self._started.append(process)
        return process

    def run(self, body: str, **variables: str) -> list[str]:
        """Run *body* to its end; return what it said."""
        out, _ = self.start(body, **variables).communicate(timeout=DEADLINE)
        return out.split()

    def recover(self, **variables: str) -> list[str]:
        """Have another process recover, and end."""
        return self.run(
            """
            with agenttrace.configure(service_name="recoverer"):
                found = agenttrace.recover()
                say(found.lost), say(found.ended), say(found.resent)
                say(found.unsampled), say(found.failed)
            """,
            **variables,
        )

    def spans(self) -> dict[str, Received]:
        """Return what has arrived, by name; what came twice is the same both times."""
        arrived = self.collector.spans()
        by_name = {span.name: span for span in arrived}
        assert all(span == by_name[span.name] for span in arrived)
        return by_name

    def end(self) -> None:
        """End what still runs."""
        for process in self._started:
            process.kill()
            process.communicate(timeout=DEADLINE)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture
def world(tmp_path: Path, collector: Collector) -> Iterator[World]:
    world = World(tmp_path, collector)
    yield world
    world.end()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def outcomes(spans: dict[str, Received]) -> dict[str, str]:
    return {name: span.attributes["agenttrace.outcome"] for name, span in spans.items()}


def test_what_was_open_is_lost_under_its_true_parents_and_its_own_service(
    world: World,
) -> None:
    """The trace of a crash is read by those who look for its cause."""
    carried = world.run(
        """
        agenttrace.configure(service_name="gateway")
        with agenttrace.span("request"):
            say(json.dumps(agenttrace.carrier()).replace(" ", ""))
        """
    )
    world.run(
        f"""
        agenttrace.configure(
            service_name="worker", resource_attributes={{"deployment": "blue"}}
        )
        with agenttrace.continue_trace(json.loads('{carried[0]}')):
            with agenttrace.span("run"):
                with agenttrace.span("done"):
                    pass
                with agenttrace.span("step"):
                    die()
        """
    )

    world.recover()

    spans = world.spans()
    assert outcomes(spans) == {
        "request": "ok",
        "run": "lost",
        "done": "ok",
        "step": "lost",
    }
    assert spans["run"].parent_id == spans["request"].span_id
    assert spans["done"].parent_id == spans["run"].span_id
    assert spans["step"].parent_id == spans["run"].span_id
    assert len({span.trace_id for span in spans.values()}) == 1
    for name in ("run", "done", "step"):
        assert spans[name].resource["service.name"] == "worker"
        assert spans[name].resource["deployment"] == "blue"
    assert names_in(world.instances) == []


def test_what_was_open_when_it_was_configured_again_is_lost_once(world: World) -> None:
    """Two journals, one process: the spans of the first are open in it still."""
    world.run(
        """
        agenttrace.configure(service_name="first")
        with agenttrace.span("before"):
            agenttrace.configure(service_name="second")
            with agenttrace.span("after"):
                die()
        """
    )
    left = len(locks_in(world.instances))

    world.recover()

    spans = world.spans()
    assert left == 2
    assert outcomes(spans) == {"before": "lost", "after": "lost"}
    assert names_in(world.instances) == []


def test_a_span_of_the_first_journal_that_ends_in_the_second_is_told_once(
    world: World,
) -> None:
    """Its frame is on disk, its slot is in another file and not free yet."""
    world.run(
        """
        agenttrace.configure()
        span = agenttrace.span("run")
        with span:
            agenttrace.configure()
            die_at("frame appended")
        time.sleep(60)
        """
    )

    said_of = world.recover()

    spans = world.spans()
    assert said_of[:3] == ["0", "0", "1"]
    assert outcomes(spans) == {"run": "ok"}
    assert "agenttrace.attributes_lost" not in spans["run"].attributes
    assert names_in(world.instances) == []


def test_what_is_not_sampled_is_not_told(world: World) -> None:
    """Who pays for one trace in a hundred does not want a hundred after a crash."""
    world.run(
        """
        agenttrace.configure()
        with agenttrace.span("run"):
            die()
        """,
        OTEL_TRACES_SAMPLER="always_off",
    )

    said_of = world.recover()

    assert said_of == ["0"] * 5
    assert world.spans() == {}
    assert names_in(world.instances) == []


def test_what_was_judged_keeps_its_verdict_and_its_late_finish(world: World) -> None:
    """The owner comes back after the verdict, and the process dies after that."""
    world.run(
        """
        runtime = agenttrace.configure()
        first, second = agenttrace.span("late"), agenttrace.span("never")
        first.__enter__()
        second.__enter__()
        for span in agenttrace.open_spans():
            PROCESS.spans.judge(span, Ending(Outcome.STUCK, EndedBy.WATCHDOG))
        runtime.flush()
        second.__exit__(None, None, None)
        runtime.flush()
        die()
        """
    )
    before = outcomes(world.spans())

    world.recover()

    assert outcomes(world.spans()) == before
    assert before["late"] == before["never"] == "stuck"
    assert len(before) == 3
    assert names_in(world.instances) == []


def test_recovering_in_a_living_process_keeps_its_lock(world: World) -> None:
    """Closing any descriptor of a lock's file frees it, for the whole process."""
    living = world.start(
        """
        agenttrace.configure()
        with agenttrace.span("run"):
            for _ in range(3):
                agenttrace.recover()
            say("recovered")
            wait()
        """
    )
    assert said(living) == "recovered"
    (lock,) = locks_in(world.instances)

    found = take_over(lock)
    of_others = world.recover()
    go_on(living)
    living.wait(DEADLINE)

    assert found is None
    assert of_others == ["0"] * 5
    assert outcomes(world.spans()) == {"run": "ok"}
    assert names_in(world.instances) == []


def test_a_process_that_is_paused_is_alive(world: World) -> None:
    """A container that is frozen goes on where it was, and tells its own end."""
    paused = world.start(
        """
        agenttrace.configure()
        with agenttrace.span("run"):
            say("running")
            wait()
        """
    )
    assert said(paused) == "running"
    os.kill(paused.pid, signal.SIGSTOP)
    os.waitpid(paused.pid, os.WUNTRACED)

    found = world.recover()
    os.kill(paused.pid, signal.SIGCONT)
    go_on(paused)
    paused.wait(DEADLINE)

    assert found == ["0"] * 5
    assert outcomes(world.spans()) == {"run": "ok"}
    assert names_in(world.instances) == []


def test_what_a_shutdown_had_no_time_for_is_delivered_by_the_next_one(
    world: World,
) -> None:
    """Deploys happen while the collector is restarted, too."""
    world.run(
        """
        runtime = agenttrace.configure(flush_timeout=0.3)
        with agenttrace.span("ok"):
            pass
        span = agenttrace.span("open")
        span.__enter__()
        sys.exit(3)
        """,
        **DOWN,
    )
    left = names_in(world.instances)

    world.recover()

    assert left != []
    assert outcomes(world.spans()) == {"ok": "ok", "open": "lost"}
    assert world.spans()["open"].attributes["agenttrace.ended_by"] == "exit"
    assert names_in(world.instances) == []


def test_recovering_keeps_to_its_timeout_while_the_collector_is_down(
    world: World,
) -> None:
    """It is called by health checks and by impatient people."""
    world.run(
        """
        agenttrace.configure()
        with agenttrace.span("run"):
            die()
        """
    )
    took = world.run(
        """
        agenttrace.configure(flush_timeout=0.1)
        for _ in range(3):
            begun = time.monotonic()
            agenttrace.recover(timeout=0.2)
            say(time.monotonic() - begun)
        os._exit(0)
        """,
        **DOWN,
    )

    assert len(took) == 3
    assert all(float(each) < 10 for each in took)  # the default is 30


def test_a_child_that_is_forked_while_its_parent_recovers_has_nothing_of_it(
    world: World, collector: Collector
) -> None:
    """The parent sends it; the child has copies of its descriptors and its memory."""
    world.run(
        """
        agenttrace.configure(service_name="dead")
        spans = [agenttrace.span(f"step {number}") for number in range(300)]
        for span in spans:
            span.__enter__()
        die()
        """
    )
    collector.answer(*[Reply(503)] * 3)

    codes = world.run(
        """
        agenttrace.configure(service_name="parent")
        looking = threading.Event()
        crashpoints.hook = lambda name: looking.set()
        thread = threading.Thread(target=agenttrace.recover)
        thread.start()
        looking.wait()
        pid = os.fork()
        if not pid:
            with agenttrace.span("of the child"):
                found = agenttrace.recover(timeout=1)
            agenttrace.shutdown()
            os._exit(found.lost != 0)
        say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        thread.join()
        """
    )
    # Either may be refused, the child for longer than it waits at its end: what it had
    # to leave is the next one's.
    world.recover()

    spans = world.spans()
    assert codes == ["0"]
    assert len(spans) == 301
    assert names_in(world.instances) == []


def test_a_process_that_ends_while_it_recovers_leaves_the_rest_to_the_next_one(
    world: World, collector: Collector
) -> None:
    """Commands live for a second; what they found must not die with them."""
    world.run(
        """
        agenttrace.configure()
        spans = [agenttrace.span(f"step {number}") for number in range(2000)]
        for span in spans:
            span.__enter__()
        die()
        """
    )
    world.run("agenttrace.configure(flush_timeout=0.05)", **DOWN)
    world.run("agenttrace.configure(flush_timeout=0.05)")
    world.recover()

    arrived = collector.spans()
    assert {span.name for span in arrived} == {f"step {n}" for n in range(2000)}
    assert len({(span.name, str(span)) for span in arrived}) == 2000
    assert names_in(world.instances) == []


def test_what_shows_progress_may_fail(tmp_path: Path) -> None:
    """A terminal that is gone is no reason to lose spans."""
    directory = tmp_path / "instances"
    bury(directory, FIRST, [slot(1)])
    backend = Backend(tmp_path / "log")

    def tell(_found: Recovered) -> None:
        raise BrokenPipeError

    recovery = Recovery(directory, backend.send)
    recovery.run(tell)

    assert recovery.wait(10)
    assert len(backend.arrived()) == 1
    assert names_in(directory) == []
