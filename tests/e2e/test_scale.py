"""That the figures of `docs/explanation/scale.md` can be measured again."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from tests.e2e import scale

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_all_that_a_worker_sends_is_carried(tmp_path: Path) -> None:
    """A figure for each span that arrives is none where some do not."""
    arguments = Namespace(seconds=2.0, rate=2000.0, workers=1)
    name = "a queue on disk"

    way = scale.carried(name, arguments, tmp_path / "it", **scale.WAYS[name])

    assert way.spans == way.sent > 0
    assert way.collector > 0


def test_a_span_has_a_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compressed is smaller, and a slot of the journal has one size."""
    # Of the machine: metrics are no spans, and what is compressed is not to be again.
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")

    plain, compressed, slot = (size for _, size in scale.weighed())

    assert 2 * compressed < plain < 1000
    assert 512 <= slot < 640


def test_a_process_has_so_many_series(tmp_path: Path) -> None:
    """Those of our metrics: the page says how many a Prometheus gets of each."""
    arguments = Namespace(seconds=1.0, rate=1000.0, workers=1)

    assert 10 < scale.series(arguments, tmp_path) < 200
