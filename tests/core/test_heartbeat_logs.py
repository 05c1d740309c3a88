"""Log records of what is open, in the form that collectors of partial spans read."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import threading
from collections import Counter
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
)
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData
from opentelemetry.sdk.trace import TracerProvider

import agenttrace
from agenttrace import SettingError, semconv
from agenttrace.registry import OpenSpans
from agenttrace.runtime.heartbeats import HeartbeatLogs
from agenttrace.settings.values import SHORTEST_PERIOD
from agenttrace.testing import fresh_runtime
from agenttrace.watchdog.ticker import INTERVAL
from tests.core.conftest import no_thread
from tests.delivery.collector import Collector, Reply
from tests.watchdog.given import SECOND, Body, opened

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs

ENDPOINT = "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"
AGENT, TOOL = "invoke_agent triage", "execute_tool search"
EVERY = 5.0
FOR_EVER = 1_000_000
START = 1_000 * SECOND
FORKS = """
import os, sys
import agenttrace

agenttrace.configure(durable=False)
ours = {"agenttrace.runtime.heartbeats", "agenttrace.delivery.partial"}
assert not ours & set(sys.modules)
agenttrace.configure(durable=False, heartbeat_logs_every=0.2)
with agenttrace.span("parent's"):
    os.read(0, 1)
    child = os.fork()
    if not child:
        with agenttrace.span("child's"):
            os.read(0, 1)
        agenttrace.shutdown(60)
        os._exit(0)
    os.waitpid(child, 0)
    os.read(0, 1)
agenttrace.shutdown(60)
"""


class Odd(Enum):
    """What an application may take for a kind of span."""

    KIND = 99


def logs_in(receiver: Collector) -> list[ResourceLogs]:
    """Return what all requests brought, one for each."""
    return [
        ExportLogsServiceRequest.FromString(each.body).resource_logs[0]
        for each in receiver.requests
    ]


def records_in(receiver: Collector) -> list[LogRecord]:
    return [
        record
        for logs in logs_in(receiver)
        for scope in logs.scope_logs
        for record in scope.log_records
    ]


def attributes_of(something: Any) -> dict[str, Any]:  # noqa: ANN401 - any message with attributes
    return {each.key: each.value.string_value for each in something.attributes}


def told_by(receiver: Collector) -> list[tuple[str, str]]:
    """Return event and name of the span, of all records."""
    return [
        (attributes_of(each)["partial.event"], span_in(each).name)
        for each in records_in(receiver)
    ]


def span_in(record: LogRecord) -> Any:  # noqa: ANN401 - protobuf's message
    data = TracesData.FromString(base64.b64decode(record.body.string_value))
    (of_resource,) = data.resource_spans
    (of_scope,) = of_resource.scope_spans
    (span,) = of_scope.spans
    return span


def wait_until(receiver: Collector, *wanted: tuple[str, str]) -> None:
    """Wait until the receiver was told all of *wanted*."""
    while True:
        # Before they are read: one that comes meanwhile is not waited for.
        seen = len(receiver.requests)
        if set(wanted) <= set(told_by(receiver)):
            return
        receiver.wait_for_requests(seen + 1)


@contextmanager
def by_hand(*replies: Reply, usual: int = 200) -> Generator[Scene]:
    """Give heartbeats of a registry of their own, and time that is said."""
    with Collector(usual=Reply(usual)) as receiver, pytest.MonkeyPatch.context() as env:
        env.setenv(ENDPOINT, f"{receiver.base}/v1/logs")
        receiver.answer(*replies)
        yield Scene(receiver)


class Scene:
    """Heartbeats that are looked at by hand."""

    def __init__(self, receiver: Collector) -> None:
        self.receiver = receiver
        self.registry = OpenSpans()
        self.heartbeats = HeartbeatLogs(EVERY, self.registry)
        self.body = Body()

    def open(self, name: str) -> Any:  # noqa: ANN401 - a record
        return opened(self.registry, self.body, name, started_at=START)

    def claim(self, spans: Sequence[Any]) -> None:
        for span in spans:
            self.registry.claim(span)

    def look(self, seconds: float) -> Sequence[tuple[str, str]]:
        """Let it look so many seconds after the start; return what that told."""
        before = len(told_by(self.receiver))
        self.heartbeats.look(START + int(seconds * SECOND), 50 + seconds)
        return told_by(self.receiver)[before:]


def test_a_record_has_the_form_that_collectors_of_partial_spans_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Field by field: whoever has such a collector can point agenttrace at it."""
    with Collector() as receiver:
        monkeypatch.setenv(ENDPOINT, f"{receiver.base}/v1/logs")
        with fresh_runtime(heartbeat_logs_every=0.2, service_name="support"):
            with (
                agenttrace.bind(conversation_id="c-17"),
                agenttrace.span(AGENT, operation="invoke_agent") as agent,
                agenttrace.span(
                    TOOL,
                    operation="execute_tool",
                    attributes={
                        semconv.GEN_AI_TOOL_NAME: "search",
                        "gen_ai.tool.call.arguments": "secret",
                    },
                ) as tool,
            ):
                wait_until(receiver, ("heartbeat", AGENT), ("heartbeat", TOOL))
            wait_until(receiver, ("stop", AGENT), ("stop", TOOL))
        requests, told = receiver.requests, told_by(receiver)
        logs, records = logs_in(receiver), records_in(receiver)

    assert {each.path for each in requests} == {"/v1/logs"}
    assert {attributes_of(each.resource)["service.name"] for each in logs} == {
        "support"
    }
    assert (told.count(("stop", AGENT)), told.count(("stop", TOOL))) == (1, 1)
    assert {name for _, name in told} == {AGENT, TOOL}
    context, parent = tool.get_span_context(), agent.get_span_context()
    for record in records:
        span = span_in(record)
        heartbeat = attributes_of(record)
        is_over = heartbeat.pop("partial.event") == "stop"
        assert heartbeat.pop("partial.frequency", None) == (
            None if is_over else "200ms"
        )
        assert heartbeat == {"partial.body.type": "proto"}
        assert (record.severity_number, record.severity_text) == (9, "INFO")
        assert record.time_unix_nano == record.observed_time_unix_nano > 0
        assert (record.trace_id, record.span_id) == (span.trace_id, span.span_id)
        assert span.trace_id == context.trace_id.to_bytes(16, "big")
        assert 0 < span.start_time_unix_nano < record.time_unix_nano
        assert span.end_time_unix_nano == 0
        assert b"secret" not in base64.b64decode(record.body.string_value)
    newest = next(
        span_in(each) for each in reversed(records) if span_in(each).name == TOOL
    )
    assert newest.span_id == context.span_id.to_bytes(8, "big")
    assert newest.parent_span_id == parent.span_id.to_bytes(8, "big")
    attributes = attributes_of(newest)
    assert attributes.pop(semconv.LAST_HEARTBEAT)
    assert attributes == {
        semconv.GEN_AI_OPERATION_NAME: "execute_tool",
        semconv.GEN_AI_TOOL_NAME: "search",
        semconv.GEN_AI_CONVERSATION_ID: "c-17",
    }


def test_the_span_in_a_record_says_whose_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A collector may keep the body alone.  Spans of other providers are told, too."""
    provider = TracerProvider()
    with Collector() as receiver:
        monkeypatch.setenv(ENDPOINT, f"{receiver.base}/v1/logs")
        with (
            fresh_runtime(
                heartbeat_logs_every=0.2, span_exporter=None, tracer_provider=provider
            ),
            provider.get_tracer("theirs").start_as_current_span("their step"),
        ):
            wait_until(receiver, ("heartbeat", "their step"))
        (record, *_) = records_in(receiver)
        data = TracesData.FromString(base64.b64decode(record.body.string_value))

    (of_resource,) = data.resource_spans
    assert (
        attributes_of(of_resource.resource)["service.name"]
        == (provider.resource.attributes["service.name"])
    )
    assert of_resource.scope_spans[0].scope.name == "theirs"


@pytest.mark.parametrize("attached", [False, True])
def test_a_span_of_an_odd_kind_is_left_out_and_the_others_are_told(
    monkeypatch: pytest.MonkeyPatch, *, attached: bool
) -> None:
    """OpenTelemetry takes any kind: one of them must not silence a whole process."""
    provider = TracerProvider() if attached else None
    kind: Any = Odd.KIND
    with Collector() as receiver:
        monkeypatch.setenv(ENDPOINT, f"{receiver.base}/v1/logs")
        with (
            fresh_runtime(
                heartbeat_logs_every=0.2, span_exporter=None, tracer_provider=provider
            ),
            trace.get_tracer("theirs", tracer_provider=provider).start_as_current_span(
                "odd", kind=kind
            ),
            agenttrace.span("fine"),
        ):
            wait_until(receiver, ("heartbeat", "fine"))

        assert {name for _, name in told_by(receiver)} == {"fine"}


def test_a_span_is_told_of_once_in_every_interval_and_once_when_it_has_ended() -> None:
    """From when on, how often, until when."""
    with by_hand() as scene:
        step, body = scene.open("step"), ("heartbeat", "step")

        assert [scene.look(at) for at in (4.9, 5, 9.9, 10, 14.9)] == [
            [],
            [body],
            [],
            [body],
            [],
        ]
        scene.registry.claim(step)
        assert [scene.look(at) for at in (15, 20)] == [[("stop", "step")], []]


def test_a_clock_that_was_set_back_keeps_no_span_from_being_told_of() -> None:
    """Until it has caught up, which may be hours, the span is as open as others."""
    with by_hand() as scene:
        scene.open("step")

        scene.heartbeats.look(START - 4 * SECOND, 60)
        before = told_by(scene.receiver)
        scene.heartbeats.look(START - 900 * SECOND, 61)

        assert before == []
        assert told_by(scene.receiver) == [("heartbeat", "step")]


def test_one_that_ends_before_its_first_record_gets_none() -> None:
    """Most spans are short: nobody is told of them twice."""
    with by_hand() as scene:
        scene.registry.claim(scene.open("short"))
        # What is not sampled has no record either.
        scene.open("unsampled").sampled = False

        assert scene.look(60) == []
        assert scene.receiver.requests == []


def test_a_stop_that_cannot_be_sent_is_sent_again_and_a_heartbeat_is_not() -> None:
    """Without it a collector would tell of the span a second time."""
    with by_hand(Reply(), Reply(503), Reply(503)) as scene:
        step, other = scene.open("step"), scene.open("other")

        both = [("heartbeat", "step"), ("heartbeat", "other")]
        assert scene.look(5) == both
        scene.registry.claim(step)
        # Refused for now; then it waits for an interval.
        assert scene.look(6) == [("stop", "step")]
        assert scene.look(10.9) == []
        assert scene.look(11) == [("stop", "step")]
        assert scene.look(16) == [("stop", "step"), ("heartbeat", "other")]
        scene.registry.claim(other)
        assert scene.look(17) == [("stop", "other")]


@pytest.mark.parametrize("away", [False, True])
def test_a_backend_that_takes_no_logs_is_asked_once(
    caplog: pytest.LogCaptureFixture, *, away: bool
) -> None:
    """Many take traces alone, and nothing is kept for those; *away*: it came later."""
    replies = (Reply(503),) if away else ()
    with fresh_runtime(), by_hand(*replies, usual=404) as scene:
        steps = [scene.open(f"step {number}") for number in range(600)]
        scene.look(5)
        if away:
            scene.claim(steps)
            scene.look(10)
        for at in (15, 20):
            scene.look(at)
        steps.append(scene.open("untold"))
        scene.claim(steps)
        referred_to = {sys.getrefcount(steps[at]) for at in range(len(steps))}
        scene.heartbeats.stop(60)

        assert len(scene.receiver.requests) == len(replies) + 1
    (said,) = [each.getMessage() for each in caplog.records]
    assert "takes no logs" in said
    assert len(referred_to) == 1


def test_one_unlucky_answer_does_not_end_heartbeats() -> None:
    """A gateway that is set anew answers anything for a while."""
    with fresh_runtime(), by_hand(Reply(), Reply(404)) as scene:
        scene.open("step")
        for at in (5, 10):
            scene.look(at)

        assert scene.look(15) == [("heartbeat", "step")]


@pytest.mark.parametrize("status", [401, 404, 500])
def test_a_stop_that_is_refused_is_sent_again_and_keeps_nobody_else(
    status: int,
) -> None:
    """A stop that is lost makes a collector tell of the span a second time."""
    stop, other = ("stop", "step"), ("heartbeat", "other")
    with fresh_runtime(), by_hand(Reply(), Reply(status)) as scene:
        step = scene.open("step")
        scene.open("other")
        scene.look(5)
        scene.registry.claim(step)

        assert scene.look(10) == [stop, other]
        assert scene.look(14) == []
        assert scene.look(15) == [stop, other]
        assert scene.look(20) == [other]


def test_stops_that_are_refused_for_ever_make_room_for_what_is_open(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing would be told of what starts later, for as long as the process runs."""
    with fresh_runtime(), by_hand() as scene:
        steps = [scene.open("step") for _ in range(10_000)]
        scene.heartbeats.look(START + 5 * SECOND, 55)
        scene.claim(steps)
        scene.open("last")
        scene.receiver.answer(Reply(401))
        scene.heartbeats.look(START + 10 * SECOND, 60)

        (last,) = logs_in(scene.receiver)[-1].scope_logs[0].log_records
    assert span_in(last).name == "last"
    assert not [
        each for each in caplog.records if "spans are open" in each.getMessage()
    ]


@pytest.mark.parametrize("is_there", [True, False])
def test_whoever_stops_sends_by_itself_only_to_a_collector_that_answers(
    *, is_there: bool
) -> None:
    """Nothing bounds the time in which the name of one that is away is looked up."""
    replies = () if is_there else (Reply(raw=b""),)
    with by_hand(*replies) as scene, no_thread("agenttrace-heartbeats", times=FOR_EVER):
        scene.open("step")
        scene.look(5)
        scene.heartbeats.stop(60)

        assert (("stop", "step") in told_by(scene.receiver)) is is_there


def test_no_thread_once_is_not_the_end_of_heartbeats(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process may have too many threads for a moment."""
    with Collector() as receiver, no_thread("agenttrace-heartbeats") as refused:
        monkeypatch.setenv(ENDPOINT, f"{receiver.base}/v1/logs")
        with fresh_runtime(heartbeat_logs_every=0.2), agenttrace.span("step"):
            assert refused.wait(60)
            wait_until(receiver, ("heartbeat", "step"))


def test_a_collector_that_never_answers_holds_up_neither_the_watchdog_nor_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is asked from a thread of its own; to wait for it would take ten minutes."""
    judged = threading.Event()

    def note(_: object) -> None:
        judged.set()

    with Collector(usual=Reply(hangs=True)) as receiver:
        monkeypatch.setenv(ENDPOINT, f"{receiver.base}/v1/logs")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "600")
        with (
            fresh_runtime(heartbeat_logs_every=0.2, stuck_hooks=[note]),
            agenttrace.span("step") as step,
        ):
            receiver.wait_for_requests(1)
            with agenttrace.span("another", max_duration=0.5):
                assert judged.wait(60)

        assert not step.is_recording()


def test_many_are_sent_in_batches() -> None:
    """A request has a size that servers take."""
    with by_hand() as scene:
        spans = [scene.open(f"step {number}") for number in range(600)]

        assert len(scene.look(5)) == len(spans)
        assert len(scene.receiver.requests) == 3


@pytest.mark.parametrize(
    ("value", "endpoint"), [(-1, ""), (0, ""), (0.1, ""), (5, "collector:4318")]
)
def test_what_cannot_be_meant_is_refused(
    monkeypatch: pytest.MonkeyPatch, value: float, endpoint: str
) -> None:
    """When it is configured, and with the name of what is wrong."""
    monkeypatch.setenv(ENDPOINT, endpoint)

    with (
        pytest.raises(SettingError, match=ENDPOINT if endpoint else "heartbeat_logs"),
        fresh_runtime(heartbeat_logs_every=value),
    ):
        pass


def test_the_shortest_period_is_one_that_is_kept() -> None:
    """A collector waits for three: it would take all that is open for dead."""
    assert SHORTEST_PERIOD >= INTERVAL


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is forked there")
def test_a_child_tells_of_its_own_and_nothing_is_imported_that_is_not_asked_for() -> (
    None
):
    """Parent and child have a resource of their own, and what is off costs nothing."""
    with Collector() as receiver:
        env = {
            **os.environ,
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.base,
            "OTEL_TRACES_EXPORTER": "none",
        }
        # Python warns of forks with threads.
        quiet = ("-W", "ignore::DeprecationWarning")
        command = [sys.executable, *quiet, "-c", FORKS]
        with subprocess.Popen(
            command, env=env, stdin=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        ) as process:
            assert process.stdin is not None
            wait_until(receiver, ("heartbeat", "parent's"))
            process.stdin.write(b"f")
            wait_until(receiver, ("heartbeat", "child's"))
            process.stdin.write(b"ee")
            _, complaints = process.communicate(timeout=60)
        told, logs = told_by(receiver), logs_in(receiver)

    assert (process.returncode, complaints) == (0, b"")
    assert Counter(each for each in told if each[0] == "stop") == {
        ("stop", "parent's"): 1,
        ("stop", "child's"): 1,
    }
    senders = {
        (attributes_of(each.resource)["service.instance.id"], span_in(record).name)
        for each in logs
        for record in each.scope_logs[0].log_records
    }
    assert len({instance for instance, _ in senders}) == len(senders) == 2
