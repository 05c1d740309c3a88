"""Code of the application's that hangs stops neither clock nor verdicts."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.trace import SpanProcessor

from agenttrace import safety
from agenttrace.model import EndedBy, Ending, Outcome
from agenttrace.runtime.process import Process
from agenttrace.watchdog.errands import Errands
from tests.core.programs import run
from tests.watchdog.given import until, world

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.trace import ReadableSpan

LONG = 60


class Bench:
    """Errands on a clock that the test drives, and calls that hang until let go."""

    def __init__(self, threads: int = 1) -> None:
        self.now = 0.0
        self.go = threading.Event()
        self.called: list[int] = []
        self.errands = Errands("bench", threads=threads, clock=lambda: self.now)

    def ask(self, number: int, *, hangs: bool = False) -> None:
        """Ask for a call, which notes its number."""
        self.errands.ask("bench", self._call(number, hangs=hangs))

    def _call(self, number: int, *, hangs: bool) -> Callable[[], object]:
        def call() -> None:
            self.called.append(number)
            if hangs:
                self.go.wait(LONG)

        return call

    def hang(self, number: int) -> None:
        """Ask for a call that hangs, and wait until it does."""
        self.ask(number, hangs=True)
        until(lambda: number in self.called)

    def later(self) -> None:
        """Let so much time pass that what is called by now counts as hanging."""
        self.now += LONG
        self.errands.see_to()


def test_calls_are_made_one_after_the_other_on_another_thread() -> None:
    """Whoever asks has something better to do."""
    bench = Bench()
    threads: list[int] = []

    for number in range(20):
        bench.ask(number)
    bench.errands.ask("bench", lambda: threads.append(threading.get_ident()))

    assert bench.errands.finish(LONG)
    assert bench.called == list(range(20))
    assert threads != [threading.get_ident()]


def test_what_comes_after_a_call_that_hangs_is_called_beside_it() -> None:
    """One processor in a deadlock must not cost all later verdicts."""
    bench = Bench(threads=2)
    before = safety.counts()["calls_hung"]
    bench.hang(1)
    bench.ask(2)

    bench.errands.see_to()
    patient = list(bench.called)
    bench.later()
    until(lambda: bench.called == [1, 2])
    bench.go.set()

    assert patient == [1]
    assert safety.counts()["calls_hung"] == before + 1


def test_no_more_threads_hang_than_are_allowed_and_nothing_is_lost() -> None:
    """Each verdict of a broken processor would leave a thread behind."""
    bench = Bench(threads=2)
    bench.hang(1)
    bench.ask(2, hangs=True)
    bench.later()
    until(lambda: bench.called == [1, 2])
    for number in range(3, 10):
        bench.ask(number)
    for _ in range(5):
        bench.later()
    hung = list(bench.called)

    bench.go.set()

    until(lambda: sorted(bench.called) == list(range(1, 10)))
    assert hung == [1, 2]


def test_nobody_waits_for_a_call_that_hangs() -> None:
    """An exit has other things to deliver."""
    bench = Bench()
    bench.hang(1)
    bench.now += LONG

    finished = bench.errands.finish(LONG)
    bench.go.set()

    assert not finished


def test_whoever_finishes_has_the_rest_made_beside_a_call_that_hangs() -> None:
    """At an exit nobody ticks any more who would see to it."""
    bench = Bench(threads=2)
    bench.hang(1)
    bench.ask(2)
    bench.now += LONG

    finished = bench.errands.finish(LONG)
    called = list(bench.called)
    bench.go.set()

    assert called == [1, 2]
    assert not finished


def test_ctrl_c_ends_what_is_called_on_the_applications_own_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was swallowed there, and the program went on; the rest is not lost by it."""
    bench = Bench()

    def start(thread: threading.Thread) -> None:
        raise RuntimeError(thread.name)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as no_threads:
        no_threads.setattr(threading.Thread, "start", start)
        bench.errands.ask("bench", interrupt)
        bench.ask(1)
        with pytest.raises(KeyboardInterrupt):
            bench.errands.finish(LONG)

    assert bench.errands.finish(LONG)
    assert bench.called == [1]


@pytest.mark.parametrize("kept", [True, False])
def test_a_flush_says_that_a_verdict_is_not_told_yet(*, kept: bool) -> None:
    """It said that all was delivered; what no journal has is counted as dropped."""
    process = Process()
    entered, go = threading.Event(), threading.Event()

    def hang() -> None:
        entered.set()
        go.wait(LONG)

    process.errands.ask("judge", hang)
    process.errands.ask("judge", hang)
    assert entered.wait(LONG)
    before = safety.counts()["spans_dropped"]

    told = process.finish_errands(0.0, process if kept else None)
    dropped = safety.counts()["spans_dropped"] - before
    go.set()

    assert not told
    assert dropped == (0 if kept else 1)
    until(lambda: process.finish_errands(LONG))


def test_a_call_that_flushes_does_not_wait_for_itself() -> None:
    """Processors flush, some of them at every span."""
    errands = Errands("bench")
    answers: list[bool] = []

    errands.ask("bench", lambda: answers.append(errands.finish(LONG)))

    assert errands.finish(LONG)
    assert answers == [False]


def test_a_call_that_fails_keeps_no_other_from_being_made() -> None:
    """Also where it wants its thread to end."""
    bench = Bench()

    def leave() -> None:
        raise SystemExit

    bench.errands.ask("bench", leave)
    bench.ask(1)

    assert bench.errands.finish(LONG)
    assert bench.called == [1]


class Hanging(SpanProcessor):
    """Hangs for good in the end of the span with that name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.entered, self.go = threading.Event(), threading.Event()

    def on_end(self, span: ReadableSpan) -> None:
        if span.name == self.name:
            self.entered.set()
            self.go.wait(LONG)


@pytest.mark.parametrize("attached", [False, True])
def test_a_processor_that_hangs_in_one_verdict_keeps_back_no_other(
    *, attached: bool
) -> None:
    """They are the application's, and were called on the ticker's thread."""
    errands = Errands("verdicts", threads=4, patience=0.0)
    hanging = Hanging("first")
    with world(attached=attached, errands=errands) as given:
        given.made.provider.add_span_processor(hanging)
        with given.block("first"):
            given.clock.pass_(301)
            assert hanging.entered.wait(LONG)
            with given.block("second"):
                given.clock.pass_(301)
                errands.see_to()
                until(lambda: "second" in given.endings())
        hanging.go.set()
        until(lambda: errands.finish(LONG))

    assert given.endings()["second"] == "stuck"
    assert given.endings()["first"] == "stuck"


@pytest.mark.parametrize("attached", [False, True])
def test_a_verdict_says_what_a_span_was_when_it_was_judged(*, attached: bool) -> None:
    """Its owner may end it, with an outcome of its own, before that has been sent."""
    with world(attached=attached) as given:
        with given.block("plan"):
            (record,) = given.made.registry
            tell = given.made.registry.take_over(record)
        assert tell is not None
        late = given.endings()

        tell(_stuck())

    assert late == {"agenttrace.late_finish: plan": "ok"}
    assert given.endings() == {**late, "plan": "stuck"}


def _stuck() -> Ending:
    return Ending(Outcome.STUCK, EndedBy.WATCHDOG, message="it hangs")


def test_the_ticker_goes_on_and_the_process_ends_while_a_processor_hangs() -> None:
    """The journal's last tick is how others know that the process is alive."""
    ran = run(
        """
        import threading, time
        from opentelemetry import trace
        from opentelemetry.sdk.trace import SpanProcessor
        import agenttrace
        from agenttrace.runtime.process import PROCESS

        entered = threading.Event()

        class Hanging(SpanProcessor):
            def on_end(self, span):
                if threading.current_thread() is not threading.main_thread():
                    entered.set()
                    threading.Event().wait()

        agenttrace.configure(heartbeat_timeout={":plan": 0.2}, flush_timeout=5)
        trace.get_tracer_provider().add_span_processor(Hanging())
        with agenttrace.span("run"), agenttrace.span("plan"):
            assert entered.wait(50)
            before = PROCESS.ticker.ticks
            deadline = time.monotonic() + 50
            while PROCESS.ticker.ticks < before + 5:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        print("done")
        """
    )

    assert (ran.out, ran.code, ran.err) == ("done\n", 0, "")
    assert "agenttrace.late_finish: plan" in ran.spans()


def test_calls_are_made_where_no_thread_can_be_had() -> None:
    """At the end of the interpreter there are none, and a verdict may still wait."""
    ran = run(
        """
        import atexit
        from agenttrace.watchdog.errands import Errands

        @atexit.register
        def at_exit():
            errands = Errands("late")
            errands.ask("late", lambda: print("called"))
            print(errands.finish(30))

        """
    )

    assert (ran.out, ran.err) == ("called\nTrue\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_tells_its_verdicts_though_its_parents_processor_hangs() -> None:
    """What is queued is the parent's, and so are the threads that hang."""
    ran = run(
        """
        import os, threading, time
        from opentelemetry import trace
        from opentelemetry.sdk.trace import SpanProcessor
        import agenttrace

        parent, entered = os.getpid(), threading.Event()

        class Hanging(SpanProcessor):
            def on_end(self, span):
                told = threading.current_thread() is not threading.main_thread()
                if told and os.getpid() == parent:
                    entered.set()
                    threading.Event().wait()

        runtime = agenttrace.configure(
            heartbeat_timeout={":plan": 0.2, ":child": 0.2}, flush_timeout=5
        )
        trace.get_tracer_provider().add_span_processor(Hanging())
        with agenttrace.span("plan"):
            assert entered.wait(50)
            pid = os.fork()
            if not pid:
                with agenttrace.span("child"):
                    deadline = time.monotonic() + 40
                    while not runtime.status().counts["spans_stuck"]:
                        assert time.monotonic() < deadline
                        time.sleep(0.05)
                agenttrace.shutdown(20)
                os._exit(0)
            _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status))
        """,
        PYTHONWARNINGS="ignore::DeprecationWarning",
    )

    assert (ran.out, ran.err) == ("0\n", "")
    assert ran.spans()["child"].attributes["agenttrace.outcome"] == "stuck"
