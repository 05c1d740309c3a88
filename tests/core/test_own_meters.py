"""An endpoint in the environment is given metrics as well, at no cost to the start."""

from __future__ import annotations

import os
import socket
import textwrap
import threading
from typing import TYPE_CHECKING, Any, cast

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData
from opentelemetry.sdk.resources import Resource

import agenttrace
from agenttrace import SettingError
from agenttrace.delivery.senders.metrics import exporter_of
from agenttrace.runtime.meters import OwnMeters
from agenttrace.testing import fresh_runtime
from tests.core.programs import run
from tests.delivery.collector import Collector, Reply

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.delivery.collector import Request

ENDED = "agenttrace.spans.ended"
NOBODY = "http://127.0.0.1:9"
BY_ENDPOINT = {"OTEL_METRICS_EXPORTER": ""}
"""The suite's environment says `none`."""
PROGRAM = """
import agenttrace
agenttrace.configure(service_name="support")
with agenttrace.span("work"):
    pass
"""


def metrics_in(
    collector: Collector,
) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Return resource and metrics by name of each request that brought some."""
    return [_read(each) for each in collector.requests if "metrics" in each.path]


def _read(request: Request) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    told = ExportMetricsServiceRequest.FromString(request.body)
    (of_resource,) = told.resource_metrics
    who = {
        each.key: each.value.string_value for each in of_resource.resource.attributes
    }
    found = {
        metric.name: metric
        for of_scope in of_resource.scope_metrics
        for metric in of_scope.metrics
    }
    return who, found


def test_an_endpoint_is_given_metrics_as_well() -> None:
    """One variable is what a platform sets, and both signals are what it means."""
    with Collector() as collector:
        ran = run(
            PROGRAM, environment=BY_ENDPOINT, OTEL_EXPORTER_OTLP_ENDPOINT=collector.base
        )
        told = metrics_in(collector)
        (span,) = collector.spans()

    assert (ran.code, ran.out, ran.err) == (0, "", "")
    (who, found) = told[-1]
    assert who["service.name"] == "support"
    assert who["service.instance.id"] == span.resource["service.instance.id"]
    assert sum(point.as_int for point in found[ENDED].sum.data_points) == 1
    assert "agenttrace.delivery.acknowledged" in found


def test_an_endpoint_for_traces_alone_is_given_no_metrics() -> None:
    """Whoever names one signal means that one."""
    with Collector() as collector:
        ran = run(
            PROGRAM,
            environment=BY_ENDPOINT,
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=collector.endpoint,
        )
        paths = {each.path for each in collector.requests}

    assert (ran.code, ran.err, paths) == (0, "", {"/v1/traces"})


def test_a_backend_that_takes_no_metrics_is_asked_once_and_nobody_hears_of_it() -> None:
    """Many take traces alone, and their users have set the one variable as well."""
    with Collector() as spans, Collector(usual=Reply(404)) as other:
        ran = run(
            """
            import agenttrace, os, time
            from agenttrace.runtime import core
            runtime = agenttrace.configure()
            with agenttrace.span("work"):
                pass
            runtime.flush()
            runtime.measuring.catch_up()
            own = runtime.measuring._own.provider
            for _ in range(3):
                own.force_flush()
            """,
            environment=BY_ENDPOINT,
            OTEL_EXPORTER_OTLP_ENDPOINT=spans.base,
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"{other.base}/v1/metrics",
        )
        asked = len(other.requests)

    assert (ran.code, ran.err, asked) == (0, "", 1)


def test_one_unlucky_answer_does_not_end_metrics(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A gateway that is set anew answers anything for a while."""
    nothing = MetricsData([])
    with Collector() as backend:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", backend.base)
        exporter: Any = exporter_of("otlp")  # its types are not complete
        backend.answer(Reply(400), Reply(200), Reply(404), Reply(200))
        answers = [exporter.export(nothing) for _ in range(4)]
        exporter.shutdown()

    bad, good = MetricExportResult.FAILURE, MetricExportResult.SUCCESS
    assert answers == [bad, good, bad, good]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_lets_go_of_what_is_scraped() -> None:
    """The next start of the parent finds its port taken by a worker otherwise."""
    pytest.importorskip("opentelemetry.exporter.prometheus")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    ran = run(
        """
        import os, socket, threading, urllib.request, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks with threads
        import agenttrace, prometheus_client
        prometheus_client.Counter("theirs", "The application's own.").inc()
        runtime = agenttrace.configure()
        with agenttrace.span("work"):
            pass
        runtime.flush()
        runtime.measuring.catch_up()
        port = int(os.environ["OTEL_EXPORTER_PROMETHEUS_PORT"])
        scraped = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read()
        print(b"agenttrace_spans_ended" in scraped, b"theirs" in scraped)
        wait, go_on = os.pipe()
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            names = [thread.name for thread in threading.enumerate()]
            os.write(tell, str(sum("Otel" in name for name in names)).encode())
            os.close(go_on)
            os.read(wait, 1)
            os._exit(0)
        print(os.read(told, 10).decode())
        runtime.shutdown()
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            probe.listen()
        os.close(go_on)
        os.waitpid(child, 0)
        """,
        environment={"OTEL_METRICS_EXPORTER": "prometheus,otlp"},
        OTEL_EXPORTER_PROMETHEUS_PORT=str(port),
        OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=NOBODY,
    )

    assert (ran.code, ran.out, ran.err) == (0, "True False\n0\n", "")


def test_meters_that_cannot_all_be_made_leave_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thread that exports nothing, and a port that is taken, for ever."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", NOBODY)
    before = {*threading.enumerate()}

    def names() -> Iterator[str]:
        yield "otlp"
        raise LookupError

    with pytest.raises(LookupError):
        OwnMeters(cast("Any", names()), Resource({}))

    left = [each for each in threading.enumerate() if each not in before]
    for each in left:
        each.join(60)
    assert [each.name for each in left if each.is_alive()] == []


def test_a_shutdown_keeps_time_for_the_last_export() -> None:
    """Figures that stay as they were look like those of a process that has died."""
    with fresh_runtime() as fresh:
        fresh.runtime.measure(None, ("otlp",))
        assert fresh.runtime.measuring is not None

        assert fresh.runtime.measuring.share_of(4.0) == 1.0
        assert fresh.runtime.measuring.share_of(60.0) == 5.0


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_backend_that_is_not_there_says_nothing_and_keeps_nobody(
    protocol: str,
) -> None:
    """An exit is not held up for figures."""
    with Collector() as spans:
        ran = run(
            PROGRAM,
            environment=BY_ENDPOINT,
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=spans.endpoint,
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=NOBODY,
            OTEL_EXPORTER_OTLP_METRICS_PROTOCOL=protocol,
            AGENTTRACE_FLUSH_TIMEOUT="10",
        )

    assert (ran.code, ran.out) == (0, "")
    if protocol != "grpc":  # the official exporter has its own word
        assert ran.err == ""


def test_nothing_is_imported_for_metrics_before_there_is_a_span() -> None:
    """The libraries of metrics take longer than the rest of a start."""
    ran = run(
        """
        import sys
        import agenttrace
        agenttrace.configure()
        agenttrace.instrument()
        print([name for name in sys.modules
               if name.startswith(("opentelemetry.sdk.metrics", "agenttrace.metrics"))])
        """,
        environment=BY_ENDPOINT,
        OTEL_EXPORTER_OTLP_ENDPOINT=NOBODY,
    )

    assert (ran.code, ran.out, ran.err) == (0, "[]\n", "")


def test_a_span_that_hangs_from_the_start_is_told(tmp_path: object) -> None:
    """Nothing has ended yet where the first step is the one that hangs."""
    assert tmp_path
    with Collector() as collector:
        ran = run(
            """
            import agenttrace, time
            runtime = agenttrace.configure()
            with agenttrace.span("first"):
                give_up_at = time.monotonic() + 60
                while runtime.measuring.instruments is None:
                    assert time.monotonic() < give_up_at
                    time.sleep(0.05)
                runtime.measuring._own.provider.force_flush()
            """,
            environment=BY_ENDPOINT,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.base,
        )
        (_, found), *_ = metrics_in(collector)

    assert (ran.code, ran.err) == (0, "")
    (point,) = found["agenttrace.spans.open"].sum.data_points
    assert point.as_int == 1
    (point,) = found["agenttrace.spans.idle.limit"].gauge.data_points
    assert point.as_double == 300


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_speaks_for_itself() -> None:
    """Two processes that count under one name would be taken for one that jumps."""
    with Collector() as collector:
        ran = run(
            textwrap.dedent("""
            import os, sys, warnings
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks with threads
            import agenttrace
            runtime = agenttrace.configure()
            for _ in range(3):
                with agenttrace.span("parent's"):
                    pass
            runtime.flush()
            child = os.fork()
            if child == 0:
                with agenttrace.span("child's"):
                    pass
                runtime.shutdown()
                os._exit(0)
            os.waitpid(child, 0)
            """),
            environment=BY_ENDPOINT,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.base,
        )
        told = metrics_in(collector)

    assert (ran.code, ran.err) == (0, "")
    counted = {
        who["service.instance.id"]: sum(
            point.as_int for point in found[ENDED].sum.data_points
        )
        for who, found in told
    }
    assert sorted(counted.values()) == [1, 3]


@pytest.mark.parametrize("said", ["otpl", "none,otlp", "jaeger"])
def test_an_exporter_that_there_is_not_is_refused(
    said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found out when it is configured, and not by metrics that never come."""
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", said)

    with pytest.raises(SettingError, match="OTEL_METRICS_EXPORTER"):
        agenttrace.configure()
