"""What agenttrace does to deliver is seen in the application's own metrics."""

from __future__ import annotations

import os
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.metrics import MeterProvider as AnyMeterProvider
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import agenttrace
from agenttrace import SettingError, metrics, safety
from agenttrace.metrics import instruments
from agenttrace.registry import OpenSpans
from agenttrace.semconv.metrics import MEASURES, METRICS
from agenttrace.testing import fresh_runtime
from agenttrace.testing.garbage import collect_garbage
from tests.core.conftest import Meters
from tests.core.programs import run
from tests.delivery.collector import Collector, Reply

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opentelemetry.metrics import Meter

    from agenttrace.runtime import Status

OBSERVED = (
    "agenttrace.spans.open",
    "agenttrace.spans.stuck",
    "agenttrace.spans.idle",
    "agenttrace.spans.idle.limit",
    "agenttrace.process.heartbeat",
    "agenttrace.spans.ended",
    "agenttrace.runs",
)
"""Measures that are read when a reader asks."""
KINDS = {"counter": True, "updowncounter": False}
ACKNOWLEDGED = "agenttrace.delivery.acknowledged"
METERS = """
import os, sys, time
import agenttrace
from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

reader = PeriodicExportingMetricReader(
    OTLPMetricExporter(os.environ["METERS"] + "/v1/metrics"),
    export_interval_millis=3_600_000,  # when it is asked to, and at the end
)
meters = MeterProvider([reader])
metrics.set_meter_provider(meters)
"""


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Give a backend for metrics."""
    with Collector() as running:
        monkeypatch.setenv("METERS", running.base)
        yield running


def arrived(backend: Collector) -> Mapping[str, int]:
    """Return the values of the last request that brought metrics, by name."""
    request = ExportMetricsServiceRequest.FromString(backend.requests[-1].body)
    return {
        metric.name: point.as_int
        for of_resource in request.resource_metrics
        for of_scope in of_resource.scope_metrics
        for metric in of_scope.metrics
        if metric.name not in MEASURES
        for point in metric.sum.data_points
    }


def number_at(status: Status, where: str) -> int:
    """Return the number that the table has at *where*."""
    holder: Any = status
    *way, last = where.split(".")
    for name in way:
        holder = getattr(holder, name)
    found = holder[last] if way == ["counts"] else getattr(holder, last)
    assert isinstance(found, int)
    return found


def test_every_metric_of_the_table_is_reported(meters: Meters) -> None:
    """A dashboard is built on the table, before anything has gone wrong."""
    with fresh_runtime(meter_provider=meters.provider) as fresh:
        series = meters.series()
        fresh.runtime.flush()

    assert [each[:3] for each in series] == [
        (name, unit, KINDS[kind]) for name, kind, unit, *_ in METRICS
    ]


def test_the_status_says_the_same_numbers(meters: Meters) -> None:
    """Whoever has no metrics asks the status, and must not hear another story."""
    with fresh_runtime(meter_provider=meters.provider, durable=True) as fresh:
        with agenttrace.span("work"):
            pass
        assert fresh.runtime.flush()
        values = meters.values()
        status = fresh.runtime.status()

    assert values == {
        name: number_at(status, where) for name, _, _, where, _ in METRICS
    }
    assert values[ACKNOWLEDGED] == 1
    assert values["agenttrace.journal.size"] > 0


def test_names_and_units_are_those_that_backends_expect() -> None:
    """Prometheus adds unit and `_total` by itself; with both it says them twice."""
    names = [name for name, *_ in METRICS]

    assert sorted(set(names)) == sorted(names)
    for name, kind, unit, where, meaning in METRICS:
        assert name.startswith("agenttrace.")
        assert not {"bytes", "count", "seconds", "total"} & {*name.split(".")}
        assert unit in {"By", "{span}", "s", "1"}
        # What only grows is counted for the process, over all of its runtimes.
        assert (kind == "counter") == where.startswith("counts.")
        assert meaning.endswith(".")
        assert not where.startswith("counts.") or where[7:] in set(safety.Count)


def test_configured_again_there_is_one_series_and_it_goes_on(
    meters: Meters, recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    """Frameworks call set-up code more often than one thinks."""
    with fresh_runtime(meter_provider=meters.provider) as fresh:
        with agenttrace.span("first"):
            pass
        fresh.runtime.flush()
        again = agenttrace.configure(
            meter_provider=meters.provider,
            span_exporter=InMemorySpanExporter(),
            durable=False,
        )
        with agenttrace.span("second"):
            pass
        again.flush()

        assert meters.values()[ACKNOWLEDGED] == 2

    assert [*recwarn, *caplog.records] == []


def test_the_provider_of_before_falls_silent(meters: Meters) -> None:
    """Two providers that report one process count it twice."""
    other = InMemoryMetricReader()
    second = Meters(MeterProvider([other], shutdown_on_exit=False), other)
    with fresh_runtime(meter_provider=meters.provider):
        agenttrace.configure(
            meter_provider=second.provider,
            span_exporter=InMemorySpanExporter(),
            durable=False,
        )

        assert meters.values() == {}
        assert len(second.values()) == len(METRICS)
    second.provider.shutdown()


def test_after_a_shutdown_nothing_is_reported(meters: Meters) -> None:
    """The figures of what does not run any more look like one that is idle."""
    with fresh_runtime(meter_provider=meters.provider) as fresh:
        assert meters.values()
        fresh.runtime.shutdown()

        assert meters.values() == {}


def test_a_runtime_that_is_put_aside_reports_again_afterwards(meters: Meters) -> None:
    """A test of the application's own makes another runtime for its duration."""
    with fresh_runtime(meter_provider=meters.provider):
        with fresh_runtime():
            assert meters.values() == {}

        assert len(meters.values()) == len(METRICS)


def test_an_attached_runtime_reports_what_it_has(meters: Meters) -> None:
    """It has a journal, and no queue of its own: that is the provider's."""
    provider = TracerProvider(shutdown_on_exit=False)
    with fresh_runtime(
        meter_provider=meters.provider,
        tracer_provider=provider,
        span_exporter=None,
        durable=True,
    ):
        values = meters.values()

    assert values["agenttrace.journal.size"] > 0
    missing = {name for name, *_ in METRICS} - values.keys()
    assert missing == {"agenttrace.delivery.queued", "agenttrace.delivery.buffered"}


def test_a_provider_that_is_none_is_refused() -> None:
    """A mistake in set-up code is found where it was made."""
    wrong: Any = "otlp"
    with pytest.raises(SettingError, match="meter_provider"):
        agenttrace.configure(meter_provider=wrong)


def test_a_provider_that_fails_costs_the_metrics_alone() -> None:
    """Tracing is what agenttrace is there for."""

    class Broken(NoOpMeterProvider):
        def get_meter(self, *_args: object, **_kwargs: object) -> Meter:
            raise LookupError

    with fresh_runtime(meter_provider=Broken(), swallows={"metrics"}) as fresh:
        with agenttrace.span("work"):
            pass

        assert [span.name for span in fresh.exported()] == ["work"]


def test_figures_that_cannot_be_had_cost_themselves_alone(meters: Meters) -> None:
    """Whoever reads metrics reads the application's as well."""

    def read(_instruments: object) -> None:
        raise LookupError

    with fresh_runtime(swallows={"metrics.observe"}):
        metrics.instruments_of(meters.provider, read, version="1.0", spans=OpenSpans())

        assert meters.values() == {}
        assert safety.guard_hits() == {"metrics.observe": len(METRICS) + len(OBSERVED)}


def test_instruments_do_not_keep_their_provider_alive(meters: Meters) -> None:
    """Test suites make one for each test."""

    def read(_instruments: object) -> None:
        return None

    class Short(NoOpMeterProvider):
        pass

    first = metrics.instruments_of(Short(), read, version="1.0", spans=OpenSpans())
    collect_garbage()
    kept = metrics.instruments_of(
        meters.provider, read, version="1.0", spans=OpenSpans()
    )

    known = [made for _, made in vars(instruments)["_made"]]
    assert first not in known
    assert kept in known
    assert (
        metrics.instruments_of(meters.provider, read, version="1.0", spans=OpenSpans())
        is kept
    )


def test_a_provider_that_cannot_be_referred_to_has_its_instruments_once() -> None:
    """Classes with slots and dataclasses, which have no hash, are providers as well."""

    class Slots:
        __slots__ = ()
        __hash__ = None  # type: ignore[assignment]  # as a dataclass has it

        def get_meter(self, *_args: object, **_kwargs: object) -> Meter:
            return NoOpMeterProvider().get_meter("any")

    def read(_instruments: object) -> None:
        return None

    provider: Any = Slots()

    first = metrics.instruments_of(provider, read, version="1.0", spans=OpenSpans())

    assert (
        metrics.instruments_of(provider, read, version="1.0", spans=OpenSpans())
        is first
    )
    assert isinstance(first, metrics.Instruments)
    assert not isinstance(provider, AnyMeterProvider)


@pytest.mark.parametrize(
    "setup",
    [
        "",
        "import opentelemetry.metrics",
        """
        from opentelemetry import metrics
        metrics.set_meter_provider(metrics.NoOpMeterProvider())
        """,
    ],
    ids=["nothing", "the API", "one that does nothing"],
)
def test_without_a_provider_nothing_of_metrics_is_imported(setup: str) -> None:
    """It takes milliseconds of every start, for nobody to read."""
    ran = run(
        textwrap.dedent(setup)
        + textwrap.dedent("""
        import sys
        import agenttrace
        agenttrace.configure()
        print([name for name in sys.modules
               if name.startswith(("opentelemetry.sdk.metrics", "agenttrace.metrics"))])
        """)
    )

    assert (ran.code, ran.out) == (0, "[]\n"), ran.err


@pytest.mark.skipif(sys.platform == "win32", reason="no journal there")
def test_an_outage_is_seen_by_who_reads_metrics(backend: Collector) -> None:
    """It shows in what waits, and in what is tried again, before anything is lost."""
    with Collector(usual=Reply(503)) as down:
        ran = run(
            METERS
            + textwrap.dedent("""
            runtime = agenttrace.configure()
            with agenttrace.span("kept"):
                pass
            give_up_at = time.monotonic() + 60
            while not runtime.status().delivery.lanes[0].retries:
                assert time.monotonic() < give_up_at
                runtime.flush(0.05)
            meters.force_flush()
            os._exit(0)
            """),
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=down.endpoint,
        )

    assert ran.code == 0, ran.err
    values = arrived(backend)
    assert values["agenttrace.delivery.buffered"] == 1
    assert values["agenttrace.delivery.retries"] >= 1
    assert values["agenttrace.spool.size"] > 0
    assert values["agenttrace.delivery.dropped"] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_what_was_recovered_is_seen_by_who_reads_metrics(backend: Collector) -> None:
    """A process that dies again and again shows in those that tell for it."""
    run("""
        import os, signal
        import agenttrace
        agenttrace.configure()
        with agenttrace.span("outer"), agenttrace.span("inner"):
            os.kill(os.getpid(), signal.SIGKILL)
    """)

    ran = run(
        METERS
        + textwrap.dedent("""
        agenttrace.configure()
        agenttrace.recover(timeout=30)
        meters.force_flush()
        """)
    )

    assert (ran.code, ran.err) == (0, "")
    assert arrived(backend)["agenttrace.recovery.recovered"] == 2


def test_the_last_figures_are_read_at_exit(backend: Collector) -> None:
    """A job that is over before the first interval is reported by this alone."""
    ran = run(
        METERS
        + textwrap.dedent("""
        agenttrace.configure()
        with agenttrace.span("work"):
            pass
        """)
    )

    assert (ran.code, ran.err) == (0, "")
    assert arrived(backend)[ACKNOWLEDGED] == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_counts_its_own(backend: Collector) -> None:
    """Over all processes it adds up; what the parent did is the parent's to tell."""
    ran = run(
        METERS
        + textwrap.dedent("""
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks with threads
        runtime = agenttrace.configure()
        for _ in range(3):
            with agenttrace.span("parent's"):
                pass
        runtime.flush()
        child = os.fork()
        if child == 0:
            with agenttrace.span("child's"):
                pass
            runtime.flush()
            meters.force_flush()
            os._exit(0)
        os.waitpid(child, 0)
        print(runtime.status().counts["spans_acknowledged"])
        os._exit(0)
        """)
    )

    assert (ran.out, ran.err) == ("3\n", "")
    assert arrived(backend)[ACKNOWLEDGED] == 1
