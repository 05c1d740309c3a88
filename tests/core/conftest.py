"""Meter providers that a test reads when it wants to know."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from agenttrace.semconv.metrics import MEASURES

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping


class Meters(NamedTuple):
    """A meter provider of the SDK, and what reads it."""

    provider: MeterProvider
    reader: InMemoryMetricReader

    def read(self) -> dict[str, Any]:
        """Return what is reported now, by name."""
        # The SDK's own types are not complete.
        reader: Any = self.reader
        data: Any = reader.get_metrics_data()
        found: dict[str, Any] = {}
        for of_resource in () if data is None else data.resource_metrics:
            for of_scope in of_resource.scope_metrics:
                assert of_scope.scope.name == "agenttrace"
                found |= {metric.name: metric for metric in of_scope.metrics}
        return found

    def series(self) -> list[tuple[str, str, bool, int]]:
        """Return name, unit, monotony and value of the figures without attributes."""
        found: list[tuple[str, str, bool, int]] = []
        for metric in self.read().values():
            if metric.name not in MEASURES:
                (point,) = metric.data.data_points
                assert not point.attributes
                is_monotonic = metric.data.is_monotonic
                found.append((metric.name, metric.unit, is_monotonic, point.value))
        return found

    def values(self) -> Mapping[str, int]:
        """Return their values by name."""
        return {name: value for name, _, _, value in self.series()}

    def of(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        """Return the series of the measure *name* as they are now (`series_of`)."""
        return series_of(self.read(), name)


def series_of(read: Mapping[str, Any], name: str) -> list[tuple[dict[str, Any], Any]]:
    """Return attributes and value of each series of the measure *name*.

    The value of a histogram is its point.  Its exemplars are told once.
    """
    metric = read.get(name)
    points = () if metric is None else metric.data.data_points
    return [
        (dict(point.attributes), getattr(point, "value", point)) for point in points
    ]


@contextmanager
def no_thread(name: str, times: int = 1) -> Generator[threading.Event]:
    """Let the next so many starts of threads of that name fail; the first one tells."""
    refused, left, start = threading.Event(), [times], threading.Thread.start

    def start_or_not(thread: threading.Thread) -> None:
        if thread.name == name and left[0] > 0:
            left[0] -= 1
            refused.set()
            raise RuntimeError(name)
        start(thread)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(threading.Thread, "start", start_or_not)
        yield refused


@pytest.fixture
def meters() -> Iterator[Meters]:
    """Give a provider whose metrics are read when the test wants to know."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    yield Meters(provider, reader)
    provider.shutdown()
