"""However a process ends, each span is told once: before that, or by the next."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.crash.given import NOBODY, ending_of, endings, recover, signalled
from tests.delivery.collector import Collector, Reply

if TYPE_CHECKING:
    from collections.abc import Iterator

if sys.platform == "win32":
    pytest.skip("needs POSIX", allow_module_level=True)

PROGRAM = """
    import os, signal, sys, threading
    import agenttrace

    agenttrace.configure(
        service_name="exiting", flush_timeout={timeout}, on_sigterm="{on_sigterm}"
    )
    inside = threading.Event()

    def hang():
        with agenttrace.span("daemon"):
            inside.set()
            threading.Event().wait()

    threading.Thread(target=hang, daemon=True).start()
    inside.wait()

    with agenttrace.span("done"):
        pass

    def on_term(*_):
        sys.exit(5)

    def ready():
        print("ready", flush=True)

    def wait():
        ready()
        while True:
            signal.pause()

    with agenttrace.span("main"):
        {ending}
"""
OK = ("ok", "return")
BY_EXIT = ("lost", "exit")
BY_RECOVERY = ("lost", "recovery")


class Way(NamedTuple):
    """A way to end.

    Args:
        ending: What the program does at last.
        code: The exit status it has without agenttrace.
        main: How its span ends.
        daemon: How that of its daemon thread ends.
        signals: What it is sent.
        on_sigterm: The setting.
    """

    ending: str
    code: int
    main: tuple[str, str]
    daemon: tuple[str, str]
    signals: tuple[int, ...] = ()
    on_sigterm: str = "default"


WAYS = {
    "returns": Way("ready()", 0, OK, BY_EXIT),
    "sys.exit": Way("ready(); sys.exit(3)", 3, ("cancelled", "exit"), BY_EXIT),
    "raises": Way("ready(); 1 / 0", 1, ("error", "exception"), BY_EXIT),
    "os._exit": Way("ready(); os._exit(4)", 4, BY_RECOVERY, BY_RECOVERY),
    "os.abort": Way("ready(); os.abort()", -6, BY_RECOVERY, BY_RECOVERY),
    "os.exec": Way(
        "ready(); os.execv('/bin/sh', ['sh', '-c', 'exit 6'])",
        6,
        BY_RECOVERY,
        BY_RECOVERY,
    ),
    "ctrl-c": Way("wait()", -2, ("cancelled", "cancel"), BY_EXIT, (signal.SIGINT,)),
    "killed": Way("wait()", -9, BY_RECOVERY, BY_RECOVERY, (signal.SIGKILL,)),
    "hang-up": Way("wait()", -1, BY_RECOVERY, BY_RECOVERY, (signal.SIGHUP,)),
    "sigterm": Way("wait()", -15, BY_RECOVERY, BY_RECOVERY, (signal.SIGTERM,)),
    "sigterm, flushed": Way(
        "wait()", -15, BY_EXIT, BY_EXIT, (signal.SIGTERM,), on_sigterm="flush"
    ),
    "sigterm, the application's": Way(
        "signal.signal(signal.SIGTERM, on_term); wait()",
        5,
        ("cancelled", "exit"),
        BY_EXIT,
        (signal.SIGTERM,),
        on_sigterm="flush",
    ),
}
PATIENCE = 0.5


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.base)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        yield collector


def program(way: Way, timeout: float = 3.0) -> str:
    return PROGRAM.format(ending=way.ending, on_sigterm=way.on_sigterm, timeout=timeout)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_each_span_is_told_once_with_the_truth(collector: Collector, way: Way) -> None:
    """And the exit status is that which a process without agenttrace has."""
    ended = signalled(program(way), *way.signals)

    recover()

    assert ended.code == way.code, ended.err
    assert endings(collector) == {
        "done": OK,
        "main": way.main,
        "daemon": way.daemon,
    }


@pytest.mark.parametrize("name", ["returns", "raises", "ctrl-c", "sigterm, flushed"])
def test_an_exit_while_the_collector_is_down_is_short_and_loses_nothing(
    collector: Collector, name: str
) -> None:
    """An outage must neither hold a deployment up nor cost its spans."""
    way = WAYS[name]

    ended = signalled(
        program(way, PATIENCE), *way.signals, OTEL_EXPORTER_OTLP_ENDPOINT=NOBODY
    )

    recover()
    assert ended.code == way.code, ended.err
    assert ended.seconds < PATIENCE + 8  # the default is 10
    assert endings(collector) == {
        "done": OK,
        "main": way.main,
        "daemon": way.daemon,
    }


@pytest.mark.parametrize("name", ["returns", "sigterm, flushed"])
def test_an_exit_while_the_collector_hangs_is_short(
    collector: Collector, name: str
) -> None:
    """What it has read it may have taken, so that is told once more by the next."""
    way = WAYS[name]
    collector.answer(Reply(hangs=True))

    ended = signalled(program(way, PATIENCE), *way.signals)

    recover()
    assert ended.code == way.code, ended.err
    assert ended.seconds < PATIENCE + 8  # the default is 10
    told = {span.name: ending_of(span) for span in collector.spans()}
    assert told == {"done": OK, "main": way.main, "daemon": way.daemon}


def test_a_second_sigterm_takes_effect_at_once(collector: Collector) -> None:
    """Whoever asks twice does not want to wait for the flush."""
    ended = signalled(
        """
        import os, signal, threading
        import agenttrace
        from agenttrace import crashpoints

        def again(at):
            if at == "frame appended":
                os.kill(os.getpid(), signal.SIGTERM)
                threading.Event().wait()

        agenttrace.configure(flush_timeout=60, on_sigterm="flush")
        with agenttrace.span("main"):
            crashpoints.hook = again
            print("ready", flush=True)
            while True:
                signal.pause()
        """,
        signal.SIGTERM,
    )

    recover()
    assert ended.code == -signal.SIGTERM
    assert ended.seconds < 20
    assert endings(collector) == {"main": BY_EXIT}


def test_a_span_that_a_daemon_thread_ends_after_the_flush_is_told_by_the_next(
    collector: Collector,
) -> None:
    """It starts while the process shuts down, when nobody delivers any more."""
    ended = signalled(
        """
        import atexit, threading
        import agenttrace

        # Before `configure`, so that it runs after the flush.
        def late():
            go_on.set()
            thread.join()

        atexit.register(late)
        agenttrace.configure()
        go_on, inside = threading.Event(), threading.Event()

        def work():
            with agenttrace.span("daemon"):
                inside.set()
                go_on.wait()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        inside.wait()
        print("ready", flush=True)
        """
    )

    recover()
    assert ended.code == 0, ended.err
    spans = {span.name: span for span in collector.spans()}
    assert spans["daemon"].attributes["agenttrace.outcome"] == "lost"
    assert len(collector.spans()) == len(spans)


def test_a_second_ctrl_c_ends_the_flush_and_not_the_exit_status(
    collector: Collector,
) -> None:
    """Whoever presses it again does not want to wait, and still ends by SIGINT."""
    collector.answer(Reply(hangs=True))

    ended = signalled(
        """
        import signal
        import agenttrace
        agenttrace.configure(flush_timeout=60)
        with agenttrace.span("main"):
            print("ready", flush=True)
            while True:
                signal.pause()
        """,
        signal.SIGINT,
        signal.SIGINT,
        between=lambda: collector.wait_for_requests(1, 30),
    )

    recover()
    assert ended.code == -signal.SIGINT
    assert ended.seconds < 30
    assert "atexit" not in ended.err
    assert endings(collector) == {"main": ("cancelled", "cancel")}
