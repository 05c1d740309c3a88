"""A runtime starts, is replaced, forks and exits, and every span comes out of it."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest

from tests.core.programs import run

if TYPE_CHECKING:
    from collections.abc import Iterator


def outcome(span: object) -> tuple[object, object]:
    values = getattr(span, "attributes", {})
    return values.get("agenttrace.outcome"), values.get("agenttrace.ended_by")


def test_without_an_endpoint_spans_are_in_the_embedded_store_after_exit() -> None:
    """Nothing to install, nothing to flush: the first program already shows its run."""
    ran = run("""
        import agenttrace
        agenttrace.configure(service_name="first")
        @agenttrace.tool
        def search(q): return [q]
        with agenttrace.span("plan"):
            search("x")
    """)

    assert (ran.code, ran.out, ran.err) == (0, "", "")
    spans = ran.spans()
    assert outcome(spans["plan"]) == ("ok", "return")
    assert spans["execute_tool search"].parent_id == spans["plan"].span_id
    assert spans["plan"].resource.attributes["service.name"] == "first"


def test_a_span_that_is_open_at_exit_is_lost_by_exit() -> None:
    """`sys.exit` in the middle leaves generators and threads with open spans behind."""
    ran = run("""
        import agenttrace, sys
        agenttrace.configure()
        @agenttrace.traced
        def numbers():
            yield 1
            yield 2
        kept = numbers()
        next(kept)
        sys.exit(3)
    """)

    assert ran.code == 3
    assert ran.err == ""
    assert outcome(ran.spans()["numbers"]) == ("lost", "exit")


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        ("raise ValueError('x')", ("error", "exception")),
        ("raise KeyboardInterrupt", ("cancelled", "cancel")),
        ("raise SystemExit(0)", ("cancelled", "exit")),
        ("raise TimeoutError", ("timed_out", "exception")),
        ("raise __import__('asyncio').CancelledError", ("cancelled", "cancel")),
    ],
)
def test_what_ends_the_program_ends_its_spans_with_the_truth(
    ending: str, expected: tuple[str, str]
) -> None:
    """The exit status stays what it would be, and the span says why."""
    plain = run(f"{ending}")
    ran = run(f"""
        import agenttrace
        agenttrace.configure()
        with agenttrace.span("main"):
            {ending}
    """)

    assert ran.code == plain.code
    assert outcome(ran.spans()["main"]) == expected


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Accept connections and never say a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    kept.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        for each in kept:
            each.close()
        thread.join()


def test_a_collector_that_hangs_delays_exit_by_the_flush_timeout_only(
    silent_server: str,
) -> None:
    """An outage of the backend must not keep a command-line tool from ending."""
    program = """
        import agenttrace
        agenttrace.configure(flush_timeout=1.0)
        with agenttrace.span("work"):
            pass
    """
    free = run(program)

    ran = run(program, OTEL_EXPORTER_OTLP_ENDPOINT=silent_server)

    assert ran.code == 0
    assert ran.seconds < free.seconds + 8  # the default is 10


def test_exporting_nowhere_is_a_destination_like_any_other() -> None:
    """`none` is one of the specification's words; it must not stop the program."""
    ran = run(
        """
        import agenttrace
        runtime = agenttrace.configure()
        with agenttrace.span("work"):
            assert len(agenttrace.open_spans()) == 1
        print(runtime.flush(30), runtime.status().destinations, runtime.shutdown())
        """,
        OTEL_TRACES_EXPORTER="none",
    )

    assert (ran.code, ran.out, ran.err) == (0, "True () True\n", "")


def test_an_attempt_to_send_takes_no_longer_than_the_variable_says(
    silent_server: str,
) -> None:
    """Whoever shortens the time-out does so because the default is too long."""
    ran = run(
        """
        import agenttrace, time
        runtime = agenttrace.configure(flush_timeout=0)
        with agenttrace.span("work"):
            pass
        began = time.monotonic()
        while not runtime.status().delivery.lanes[0].retries:
            assert time.monotonic() - began < 8, "the default is 10 s"
            runtime.flush(0.1)
        """,
        OTEL_EXPORTER_OTLP_ENDPOINT=silent_server,
        OTEL_EXPORTER_OTLP_TIMEOUT="0.2",
    )

    assert ran.code == 0, ran.err


def test_a_forked_child_has_spans_of_its_own_and_none_of_its_parents() -> None:
    """Nothing is told twice, and the child is another instance of the service."""
    program = """
        import agenttrace, os
        agenttrace.configure()
        with agenttrace.span("parent"):
            pid = os.fork()
            if pid == 0:
                with agenttrace.span("child"):
                    pass
                agenttrace.shutdown()
                os._exit(0)
            os.waitpid(pid, 0)
    """
    # Python 3.12 and later warn of a fork beside any thread, also one that sleeps.
    ran = run(program, PYTHONWARNINGS="ignore::DeprecationWarning")

    spans = ran.spans()
    assert (ran.code, ran.err) == (0, "")
    assert sorted(spans) == ["child", "parent"]
    assert outcome(spans["parent"]) == ("ok", "return")
    assert outcome(spans["child"]) == ("ok", "return")
    instances = {
        name: span.resource.attributes["service.instance.id"]
        for name, span in spans.items()
    }
    assert instances["parent"] != instances["child"]


def test_configuring_again_keeps_open_spans_and_exchanges_what_is_behind() -> None:
    """A notebook configures twice; a span in between must end all the same."""
    ran = run("""
        import agenttrace
        from opentelemetry import trace
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
            InMemorySpanExporter as Memory)
        first, second = Memory(), Memory()
        agenttrace.configure(span_exporter=first, service_name="a")
        tracer = trace.get_tracer("app")
        with agenttrace.span("before"):
            pass
        with agenttrace.span("across"):
            runtime = agenttrace.configure(span_exporter=second, service_name="b")
            with tracer.start_as_current_span("inside"):
                pass
        runtime.flush(30)
        print([s.name for s in first.get_finished_spans()])
        for s in second.get_finished_spans():
            print(s.name, s.resource.attributes["service.name"], s.parent is not None)
    """)

    assert ran.err == ""
    assert ran.out.splitlines() == ["['before']", "inside b True", "across b False"]


@pytest.mark.parametrize("variable", ["OTEL_SDK_DISABLED", "AGENTTRACE_DISABLED"])
def test_a_disabled_runtime_traces_nothing_and_changes_nothing(variable: str) -> None:
    """One variable turns it off, in OpenTelemetry's way or in ours."""
    ran = run(
        """
        import agenttrace, opentelemetry.context as c
        before = c._RUNTIME_CONTEXT
        runtime = agenttrace.configure()
        @agenttrace.agent
        def f():
            with agenttrace.span("x") as s:
                return s.is_recording()
        @agenttrace.span("y")
        def g():
            return 1
        print(f(), g(), runtime.status().mode, c._RUNTIME_CONTEXT is before)
        """,
        environment={variable: "true"},
    )

    assert (ran.out, ran.err) == ("False 1 disabled True\n", "")
    assert not (ran.state_dir / "traces.db").exists()


def test_every_verb_is_legal_before_configure() -> None:
    """A library decorates its functions; whether anybody traces is not its business."""
    ran = run("""
        import agenttrace
        @agenttrace.agent
        def f():
            with agenttrace.span("x"), agenttrace.hold("a human"):
                with agenttrace.bind(conversation_id="c"):
                    agenttrace.heartbeat("here", progress=0.5)
                    return agenttrace.carrier(), agenttrace.open_spans()
        print(f(), agenttrace.flush(), agenttrace.shutdown())
    """)

    assert (ran.out, ran.err) == ("({}, ()) True True\n", "")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("flush_timeout=-1", "flush_timeout=-1: must be a number of seconds"),
        ("flush_timeout=True", "flush_timeout=True: must be a number of seconds"),
        ("max_open_spans=0", "max_open_spans=0: must be a whole number above zero"),
        ("max_open_spans=float('nan')", "max_open_spans=nan: must be a whole number"),
        ("max_open_spans=-float('inf')", "max_open_spans=-inf: must be a whole"),
        ("max_open_spans=10**400", "00: must be a whole number above zero"),
        ("service_name=''", "service_name='': must be a text that is not empty"),
        ("redact=3", "redact=3: must be a function of (key, value)"),
        ("error_outcomes=['ok']", "must be any of cancelled, abandoned"),
        ("state_dir=''", "state_dir='': must be a directory"),
        ("state_dir=chr(0)", "state_dir='\\x00': must be a directory"),
        ("span_exporter=print", "must be a SpanExporter"),
        ("span_exporter=agenttrace.OpenSpan", "the object, not its class or name"),
        ("sampler='always_on'", "sampler='always_on': must be a Sampler"),
        ("tracer_provider=3", "tracer_provider=3: must be a TracerProvider"),
        ("max_store_bytes=9", "max_store_bytes=9: must be 1048576 (1 MiB) or more"),
    ],
)
def test_a_wrong_argument_is_an_error_that_says_what_is_right(
    argument: str, message: str
) -> None:
    """The alternative is a run without traces, and nobody who knows why."""
    ran = run(f"""
        import agenttrace
        try:
            agenttrace.configure({argument})
        except agenttrace.SettingError as error:
            print(error)
    """)

    assert message in ran.out


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("AGENTTRACE_FLUSH_TIMEOUT", "soon", "AGENTTRACE_FLUSH_TIMEOUT='soon'"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "OTEL_TRACES_EXPORTER='zipkin'"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "OTEL_EXPORTER_OTLP_PROTOCOL="),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost", "OTEL_EXPORTER_OTLP_ENDPOINT="),
        ("OTEL_ATTRIBUTE_COUNT_LIMIT", "abc", "OTEL_ATTRIBUTE_COUNT_LIMIT='abc'"),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "-1", "OTEL_SPAN_LINK_COUNT_LIMIT='-1'"),
        ("OTEL_PROPAGATORS", "nonsense", "OTEL_PROPAGATORS='nonsense'"),
        ("OTEL_PYTHON_TRACER_PROVIDER", "x", "OTEL_PYTHON_TRACER_PROVIDER='x'"),
    ],
)
def test_a_wrong_variable_is_an_error_that_names_it(
    variable: str, value: str, message: str
) -> None:
    """Whoever reads the message must know where to mend it."""
    environment = {"OTEL_TRACES_EXPORTER": "otlp", variable: value}
    ran = run(
        """
        import agenttrace
        import threading
        try:
            agenttrace.configure()
        except agenttrace.SettingError as error:
            print(error)
        print(threading.active_count(), "thread")
        """,
        environment=environment,
    )

    assert message in ran.out
    assert "1 thread" in ran.out


def test_an_empty_limit_of_opentelemetrys_is_no_limit() -> None:
    """The SDK has it so, and a check that is too strict keeps a service down."""
    ran = run(
        """
        import agenttrace
        agenttrace.configure()
        print("configured")
        """,
        OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT="",
        OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT=" 0 ",
        OTEL_PROPAGATORS="none",
    )

    assert (ran.out, ran.err) == ("configured\n", "")


def test_a_wrong_setting_leaves_the_running_runtime_alone() -> None:
    """A typing mistake in a second `configure()` must not end the tracing there is."""
    ran = run("""
        import agenttrace
        runtime = agenttrace.configure()
        try:
            agenttrace.configure(flush_timeout="soon")
        except agenttrace.SettingError:
            pass
        with agenttrace.span("after"):
            pass
        print(runtime.flush(30))
    """)

    assert (ran.out, ran.err) == ("True\n", "")
    assert outcome(ran.spans()["after"]) == ("ok", "return")


def test_a_span_object_that_is_dropped_is_told_as_abandoned_by_gc() -> None:
    """Any library's span: what nobody can end any more is told with its last sign."""
    ran = run("""
        import agenttrace
        from opentelemetry import trace
        agenttrace.configure()
        span = trace.get_tracer("other").start_span("dropped")
        span.set_attribute("kept", 1)
        del span
    """)

    span = ran.spans()["dropped"]
    assert outcome(span) == ("abandoned", "gc")
    assert span.attributes["kept"] == 1
    assert "agenttrace.discovered_at" in span.attributes


def test_unsampled_spans_are_known_and_counted_and_not_sent() -> None:
    """Their hangs and losses are seen in figures though they have no trace."""
    ran = run(
        """
        import agenttrace
        runtime = agenttrace.configure()
        with agenttrace.span("unseen") as span:
            print([s.sampled for s in agenttrace.open_spans()], span.is_recording())
        print(runtime.status().started, runtime.status().open)
        """,
        OTEL_TRACES_SAMPLER="always_off",
    )

    assert ran.out.splitlines() == ["[False] False", "1 0"]
    assert not (ran.state_dir / "traces.db").exists()
