"""Beside another provider, too, each span is told once: before a death, or after it.

The provider is OpenTelemetry's, with its own processors and exporter, and what arrives
is what a backend has received from it.
"""

from __future__ import annotations

import os
import signal
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agenttrace.recovery import locks_in
from agenttrace.settings import INSTANCES
from tests.core.programs import Ran, run
from tests.crash.given import Ended, ending_of, endings, recover, signalled
from tests.delivery.collector import Collector
from tests.spans.test_attached_processes import THEIRS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.delivery.collector import Received

if sys.platform == "win32":
    pytest.skip("needs POSIX", allow_module_level=True)

KILLED = -signal.SIGKILL
OK = ("ok", "return")
BY_EXIT = ("lost", "exit")
BY_RECOVERY = ("lost", "recovery")
SETUP = """
import os, signal, sys, threading, warnings
from opentelemetry.trace import SpanKind
from agenttrace import crashpoints

warnings.simplefilter("ignore", DeprecationWarning)  # of forks with threads
provider = theirs(os.environ["THEIR_ENDPOINT"])
trace.set_tracer_provider(provider)
plain = trace.get_tracer("their.lib", "2.1")

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def die_at(point):
    crashpoints.hook = lambda name: die() if name == point else None

def say(word):
    os.write(1, (str(word) + chr(10)).encode())
"""


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Give a backend, for their exporter and for ours where it is ours to send."""
    with Collector() as running:
        monkeypatch.setenv("THEIR_ENDPOINT", running.endpoint)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "theirs")
        yield running


@pytest.fixture
def own(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Collector:
    """Give the same backend to processes with a pipeline of their own."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", collector.endpoint)
    return collector


@pytest.fixture
def instances() -> Path:
    """Give the directory in which processes keep their files."""
    return Path(os.environ["AGENTTRACE_STATE_DIR"]) / INSTANCES


def program(body: str) -> str:
    """Return *body* after the set-up of an application with a provider."""
    return THEIRS + SETUP + textwrap.dedent(body)


def attached(body: str) -> Ran:
    """Run *body* to its end, in an application with a provider."""
    return run(program(body))


def kill_inside() -> None:
    """Leave what a process leaves that is killed inside a span of each kind."""
    ran = attached("""
        agenttrace.configure()
        with agenttrace.span("ours"):
            with agenttrace.span("done"):
                pass
            with plain.start_as_current_span("theirs", kind=SpanKind.CLIENT):
                provider.force_flush()
                die()
    """)
    assert ran.code == KILLED, ran.err


def recover_attached() -> None:
    """Be the next process, attached as the one before."""
    ran = run(
        program("""
        agenttrace.configure()
        agenttrace.recover(timeout=30)
        own = f"{os.getpid()}-"
        directory = os.environ["AGENTTRACE_STATE_DIR"] + "/instances"
        print([name for name in os.listdir(directory) if not name.startswith(own)])
        """),
        OTEL_SERVICE_NAME="recoverer",
    )
    assert (ran.code, ran.out, ran.err) == (0, "[]\n", "")


def by_name(collector: Collector) -> dict[str, Received]:
    """Return what has arrived, by name."""
    return {span.name: span for span in collector.spans()}


def are_told(collector: Collector) -> bool:
    """Return whether the two spans of `kill_inside` are told as they should be."""
    spans = by_name(collector)
    ours, theirs = spans["ours"], spans["theirs"]
    assert theirs.parent_id == ours.span_id
    assert theirs.trace_id == ours.trace_id
    assert (theirs.kind, theirs.scope, ours.scope) == (3, "their.lib", "agenttrace")
    assert {each.resource["service.name"] for each in spans.values()} == {"theirs"}
    told = {"done": OK, "ours": BY_RECOVERY, "theirs": BY_RECOVERY}
    return endings(collector) == told


def test_the_next_attached_process_tells_through_its_own_provider(
    collector: Collector, instances: Path
) -> None:
    """Whoever restarts what was killed sends to the same backend as before."""
    kill_inside()
    assert len(locks_in(instances)) == 1

    recover_attached()

    assert are_told(collector)
    assert list(instances.iterdir()) == []


def test_a_process_with_a_pipeline_of_its_own_tells_it(own: Collector) -> None:
    """`agenttrace guard` and siblings know nothing of anybody's provider."""
    kill_inside()

    recover()

    assert are_told(own)


def test_two_that_recover_at_once_tell_it_once(own: Collector, instances: Path) -> None:
    """They find the same files in the same instant, one of each kind."""
    kill_inside()
    ran = attached("""
        import subprocess
        own = '''if True:
            import agenttrace
            with agenttrace.configure(service_name="recoverer"):
                agenttrace.recover(timeout=30)
        '''
        other = subprocess.Popen([sys.executable, "-c", own])
        with agenttrace.configure():
            agenttrace.recover(timeout=30)
        sys.exit(other.wait(timeout=60))
    """)

    assert (ran.code, ran.err) == (0, "")
    assert are_told(own)
    assert list(instances.iterdir()) == []


def test_an_attached_process_tells_what_one_with_a_spool_has_left(
    collector: Collector, instances: Path
) -> None:
    """An application that gets a provider of its own one day loses nothing by it."""
    killed = run(
        """
        import os, signal
        import agenttrace
        agenttrace.configure(service_name="theirs")
        with agenttrace.span("done", attributes={"size": 3}):
            pass
        agenttrace.flush(0.2)
        with agenttrace.span("open"):
            os.kill(os.getpid(), signal.SIGKILL)
        """,
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="http://127.0.0.1:9/v1/traces",
    )
    assert killed.code == KILLED, killed.err

    recover_attached()

    assert endings(collector) == {"done": OK, "open": BY_RECOVERY}
    assert by_name(collector)["done"].attributes["size"] == 3
    assert list(instances.iterdir()) == []


def test_a_recoverer_that_is_killed_leaves_the_same_bytes_to_the_next(
    collector: Collector, instances: Path
) -> None:
    """It has handed over, and nobody knows whether that was delivered."""
    kill_inside()
    killed = attached("""
        die_at("handed over")
        agenttrace.configure()
        agenttrace.recover(timeout=30)
    """)
    assert killed.code == KILLED, killed.err

    recover_attached()

    assert are_told(collector)
    assert list(instances.iterdir()) == []


def test_what_is_handed_over_twice_is_the_same_both_times(
    collector: Collector,
) -> None:
    """Backends merge two of the same, and show two that differ."""
    kill_inside()
    attached("""
        crashpoints.hook = lambda name: (
            (provider.force_flush(), die()) if name == "handed over" else None
        )
        agenttrace.configure()
        agenttrace.recover(timeout=30)
    """)
    first = by_name(collector)

    recover_attached()

    assert len(collector.spans()) == 5
    assert by_name(collector) == first


@pytest.mark.parametrize(
    ("ending", "code", "inside"),
    [
        ("pass", 0, OK),
        ("sys.exit(3)", 3, ("cancelled", "exit")),
        ("1 / 0", 1, ("error", "exception")),
    ],
)
def test_an_exit_leaves_no_files(
    collector: Collector,
    instances: Path,
    ending: str,
    code: int,
    inside: tuple[str, str],
) -> None:
    """All that was open is handed over by then, and theirs to deliver."""
    ran = attached(f"""
        agenttrace.configure()
        held = plain.start_span("held")
        with agenttrace.span("ours"):
            {ending}
    """)

    assert ran.code == code, ran.err
    assert endings(collector) == {"ours": inside, "held": BY_EXIT}
    assert list(instances.iterdir()) == []


def test_a_shutdown_leaves_no_files_and_later_spans_have_none(
    collector: Collector, instances: Path
) -> None:
    """We go, and what is traced from then on is not ours to recover."""
    ran = attached("""
        with agenttrace.configure() as runtime:
            held = plain.start_span("held")
        say(os.listdir(os.environ["AGENTTRACE_STATE_DIR"] + "/instances"))
        held.end()
        with plain.start_as_current_span("later"):
            provider.force_flush()
            die()
    """)

    assert ran.out == "[]\n", ran.err
    assert {each.name for each in collector.spans()} == {"held"}
    assert locks_in(instances) == []


def test_configured_again_the_first_journal_goes_when_its_spans_have(
    collector: Collector,
) -> None:
    """Frameworks call set-up code more often than one thinks."""
    ran = attached("""
        def journals():
            directory = os.environ["AGENTTRACE_STATE_DIR"] + "/instances"
            return sum(name.endswith(".journal") for name in os.listdir(directory))

        agenttrace.configure()
        across = plain.start_span("across")
        agenttrace.configure()
        say(journals())
        across.end()
        agenttrace.configure()
        say(journals())
    """)

    assert (ran.code, ran.out, ran.err) == (0, "2\n1\n", "")
    assert endings(collector) == {"across": OK}


def test_an_open_span_of_before_is_lost_once_where_it_was_configured_again(
    collector: Collector,
) -> None:
    """It stands in the journal of the first runtime, and the process has two."""
    ran = attached("""
        agenttrace.configure()
        with plain.start_as_current_span("before"):
            agenttrace.configure()
            with agenttrace.span("after"):
                die()
    """)
    assert ran.code == KILLED, ran.err

    recover_attached()

    assert endings(collector) == {"before": BY_RECOVERY, "after": BY_RECOVERY}


def test_a_span_whose_hand_over_was_cut_short_keeps_its_outcome(
    collector: Collector,
) -> None:
    """Until all processors have it, it is in the journal."""
    ran = attached("""
        from opentelemetry.sdk.trace import SpanProcessor

        class Deadly(SpanProcessor):
            def on_end(self, span):
                die()

        provider.add_span_processor(Deadly())
        agenttrace.configure()
        try:
            with agenttrace.span("failed"):
                raise ConnectionError
        except ConnectionError:
            pass
    """)
    assert ran.code == KILLED, ran.err

    recover_attached()

    (span,) = collector.spans()
    assert ending_of(span) == ("error", "exception")
    assert span.attributes["agenttrace.attributes_lost"] is True
    assert span.attributes["error.type"] == "ConnectionError"


def test_what_was_handed_over_is_not_told_by_another(collector: Collector) -> None:
    """Its queue dies with the process, and nobody knows what it had delivered."""
    ran = attached("""
        agenttrace.configure()
        with agenttrace.span("handed over"):
            pass
        with agenttrace.span("open"):
            die()
    """)
    assert ran.code == KILLED, ran.err

    recover_attached()

    assert endings(collector) == {"open": BY_RECOVERY}


def test_what_is_not_sampled_is_not_told(collector: Collector) -> None:
    """A trace that the provider left out stays out of its backend."""
    ran = run(
        program("""
        agenttrace.configure()
        with agenttrace.span("ours"), plain.start_as_current_span("theirs"):
            die()
        """),
        OTEL_TRACES_SAMPLER="always_off",
    )
    assert ran.code == KILLED, ran.err

    recover_attached()

    assert collector.spans() == []


def test_a_sibling_that_lives_tells_what_a_killed_child_had_open(
    collector: Collector, instances: Path
) -> None:
    """A server's workers die one by one; what the parent has open is the parent's."""
    ran = attached("""
        runtime = agenttrace.configure()
        with plain.start_as_current_span("inherited"):
            child = os.fork()
            if child == 0:
                with agenttrace.span("child"), plain.start_as_current_span("deep"):
                    provider.force_flush()
                    die()
            os.waitpid(child, 0)
            found = agenttrace.recover(timeout=30)
            say((found.processes, found.lost, found.ended))
    """)

    assert (ran.code, ran.out, ran.err) == (0, "(1, 2, 0)\n", "")
    assert endings(collector) == {
        "inherited": OK,
        "child": BY_RECOVERY,
        "deep": BY_RECOVERY,
    }
    spans = by_name(collector)
    assert spans["child"].parent_id == spans["inherited"].span_id
    assert list(instances.iterdir()) == []


def test_a_child_that_exits_has_told_its_own_and_leaves_no_files(
    collector: Collector, instances: Path
) -> None:
    """What is open at the fork is in both processes' memory, and in one journal."""
    ran = attached("""
        agenttrace.configure()
        with plain.start_as_current_span("inherited"):
            child = os.fork()
            with agenttrace.span("parent" if child else "child"):
                held = plain.start_span("held by " + ("parent" if child else "child"))
        if child == 0:
            sys.exit()
        os.waitpid(child, 0)
    """)

    assert (ran.code, ran.err) == (0, "")
    assert endings(collector) == {
        "inherited": OK,
        "parent": OK,
        "child": OK,
        "held by parent": BY_EXIT,
        "held by child": BY_EXIT,
    }
    assert list(instances.iterdir()) == []


def test_a_provider_that_is_shut_down_is_given_nothing(
    own: Collector, instances: Path
) -> None:
    """What it does not flush would be told once more, by whoever comes next."""
    kill_inside()

    ran = attached("""
        provider.shutdown()
        with agenttrace.configure():
            agenttrace.recover(timeout=30)
    """)

    assert ran.code == 0
    assert {span.name for span in own.spans()} == {"done"}
    assert len(locks_in(instances)) == 1
    recover()
    assert are_told(own)


def test_an_exit_while_it_recovers_is_not_held_up(collector: Collector) -> None:
    """Whoever hangs in the middle of it leaves the rest to the next one."""
    kill_inside()
    ended: Ended = signalled(
        program("""
        agenttrace.configure()
        crashpoints.hook = lambda name: (
            (say("ready"), threading.Event().wait()) if name == "handed over" else None
        )
        agenttrace.recover(timeout=0.1)
        threading.Event().wait(30)
        """),
        signal.SIGINT,
    )

    assert ended.seconds < 20
    recover_attached()
    assert set(by_name(collector)) == {"done", "ours", "theirs"}


def test_without_durability_there_are_no_files(collector: Collector) -> None:
    """`durable=False` means it in this mode as well."""
    ran = attached("""
        runtime = agenttrace.configure(durable=False)
        with agenttrace.span("work"):
            print(runtime.status().journal, runtime.recover(timeout=0).processes)
        print(os.path.exists(os.environ["AGENTTRACE_STATE_DIR"] + "/instances"))
    """)

    assert (ran.out, ran.err) == ("False 0\nFalse\n", "")
    assert endings(collector) == {"work": OK}


def test_a_directory_that_cannot_be_written_is_told_once(collector: Collector) -> None:
    """Spans flow as they do without us, and the log says what cannot be had."""
    ran = run(
        program("""
        runtime = agenttrace.configure()
        with agenttrace.span("work"):
            print(runtime.status().journal)
        """),
        AGENTTRACE_STATE_DIR="/dev/null/nowhere",
    )

    assert (ran.code, ran.out) == (0, "False\n")
    assert ran.err.count("no journal can be kept") == 1
    assert endings(collector) == {"work": OK}


def test_a_provider_without_processors_is_handed_nothing(
    collector: Collector, instances: Path
) -> None:
    """Many add the exporter afterwards, and to nobody it would be lost."""
    kill_inside()

    ran = attached("""
        from opentelemetry.sdk.trace import TracerProvider

        bare = TracerProvider()
        runtime = agenttrace.configure(tracer_provider=bare)
        agenttrace.recover(timeout=10)
        os._exit(0)
    """)
    untold = collector.spans()
    recover_attached()

    assert ran.code == 0, ran.err
    assert [span.name for span in untold] == ["done"]
    assert endings(collector) == {
        "done": OK,
        "ours": BY_RECOVERY,
        "theirs": BY_RECOVERY,
    }
    assert locks_in(instances) == []
