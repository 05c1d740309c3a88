"""A child forked on a thread ends when that thread's function does, with status 0.

No exit handler runs there: the process ends with the last of its threads, and none of
ours may be that one.  Each child has an alarm, so that one that stays is seen to.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.core.programs import Ran, run
from tests.crash.given import collector_of_programs, endings, recover

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.delivery.collector import Collector

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")

OK = ("ok", "return")
AT_EXIT = ("lost", "exit")
BY_RECOVERY = ("lost", "recovery")

_FORKING = """
import _thread, os, signal, threading, time
import agenttrace

def on_a_thread(child):
    def fork():
        pid = os.fork()
        if pid:
            ended.append(os.waitpid(pid, 0)[1])
            over.set()
        else:
            signal.alarm(40)
            child()
    ended, over = [], threading.Event()
    begin(fork)
    over.wait()
    os.write(1, b"%d\\n" % ended[0])  # the child has no exit that writes what it prints

def begin(call):
    threading.Thread(target=call).start()

kept = []

def leave_open(name):
    kept.append(agenttrace.span(name))
    kept[0].__enter__()
"""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collector_of_programs() as collector:
        yield collector


def run_forking(program: str, metrics: str = "none") -> Ran:
    """Run *program*, which has `on_a_thread`."""
    ran = run(_FORKING + program, OTEL_METRICS_EXPORTER=metrics)
    assert (ran.code, ran.err) == (0, "")
    return ran


_BY_A_THREAD = ""
_BY_ONE_WITHOUT_AN_OBJECT = "begin = lambda call: _thread.start_new_thread(call, ())"


@pytest.mark.parametrize("begin", [_BY_A_THREAD, _BY_ONE_WITHOUT_AN_OBJECT])
@pytest.mark.parametrize("metrics", ["none", "otlp"])
def test_it_ends_by_itself_and_tells_what_it_did(
    collector: Collector, begin: str, metrics: str
) -> None:
    """Who waits for it would wait for ever, if a thread of ours were its last."""
    ran = run_forking(
        begin
        + """
agenttrace.configure(service_name="family")
def child():
    with agenttrace.span("done"):
        pass
    leave_open("open")
    time.sleep(0.3)  # for a tick, with which figures are asked for
on_a_thread(child)
""",
        metrics,
    )

    assert ran.out == "0\n"
    assert endings(collector) == {"done": OK, "open": AT_EXIT}


def test_one_that_only_returns_is_not_kept(collector: Collector) -> None:
    """Most such children have nothing to tell, and so have theirs."""
    ran = run_forking(
        """
agenttrace.configure(service_name="family")
on_a_thread(lambda: on_a_thread(lambda: None))
"""
    )

    assert ran.out == "0\n0\n"
    assert endings(collector) == {}


def test_one_that_configures_for_itself_ends_too(collector: Collector) -> None:
    """Nothing was there at the fork that could have noticed on which thread it is."""
    ran = run_forking(
        """
def child():
    agenttrace.configure(service_name="child")
    leave_open("open")
on_a_thread(child)
"""
    )

    assert ran.out == "0\n"
    assert endings(collector) == {"open": AT_EXIT}


def test_it_tells_what_its_other_threads_do_after_the_first_has_ended(
    collector: Collector,
) -> None:
    """It lives for as long as they do, and they are traced for as long."""
    ran = run_forking(
        """
agenttrace.configure(service_name="family")
def work():
    leave_open("open")
    first.join()
    time.sleep(0.5)  # ours look for others meanwhile
    with agenttrace.span("later"):
        pass
def child():
    global first
    first = threading.current_thread()
    threading.Thread(target=work, daemon=True).start()
on_a_thread(child)
"""
    )

    assert ran.out == "0\n"
    assert endings(collector) == {"later": OK, "open": AT_EXIT}


def test_what_hangs_on_a_thread_of_ours_does_not_keep_it(collector: Collector) -> None:
    """The exit of the interpreter would leave it behind; what it held is recovered."""
    ran = run_forking(
        """
from opentelemetry.sdk.trace.export import SpanExporter
class Hangs(SpanExporter):
    def export(self, spans):
        threading.Event().wait()
agenttrace.configure(service_name="family", span_exporter=Hangs(), flush_timeout=0.5)
def child():
    with agenttrace.span("done"):
        pass
on_a_thread(child)
agenttrace.shutdown()
"""
    )
    assert ran.out == "0\n"
    assert endings(collector) == {}

    recover()
    assert endings(collector) == {"done": OK}


def test_one_that_is_killed_while_ours_wait_for_others_loses_nothing(
    collector: Collector,
) -> None:
    """Until the last of its threads ends, what is open is in the journal."""
    ran = run_forking(
        """
agenttrace.configure(service_name="family")
def work():
    leave_open("open")
    first.join()
    time.sleep(0.3)  # ours look for others meanwhile
    os.kill(os.getpid(), signal.SIGKILL)
def child():
    global first
    first = threading.current_thread()
    threading.Thread(target=work).start()
on_a_thread(child)
"""
    )
    assert ran.out == "9\n"

    recover()
    assert endings(collector) == {"open": BY_RECOVERY}
