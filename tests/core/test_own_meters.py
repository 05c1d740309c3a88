"""An endpoint in the environment is given metrics as well, at no cost to the start."""

from __future__ import annotations

import os
import textwrap
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

import agenttrace
from agenttrace import SettingError
from tests.core.programs import run
from tests.delivery.collector import Collector, Reply

if TYPE_CHECKING:
    from collections.abc import Mapping

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
