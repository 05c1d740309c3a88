"""What a real Collector between an application and its backend loses, and what not.

The application's part is the same in every test: what was not acknowledged is sent
again.  What becomes of the rest is the Collector's, by how it is configured; what
`docs/explanation/durability.md` says of that is what is asserted here.
"""

from __future__ import annotations

import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import pytest

import agenttrace
from agenttrace import semconv
from tests.delivery.collector import Collector
from tests.e2e import servers
from tests.e2e.between import Between, sending_to, step

if TYPE_CHECKING:
    from pathlib import Path

    from agenttrace.testing import FreshRuntime

QUEUE: Final = "exporters.otlp_http.sending_queue."
ON_DISK: Final = QUEUE + "storage=file_storage"
TAIL_SAMPLING: Final = "service.pipelines.traces.processors=[tail_sampling]"
DECIDES_LATE: Final = "processors.tail_sampling.decision_wait=600s"
KILL: Final = signal.SIGKILL
STOP: Final = signal.SIGTERM


def acknowledged(fresh: FreshRuntime) -> int:
    """Return how many spans were taken; none was refused."""
    delivery = fresh.runtime.status().delivery
    assert delivery is not None
    assert delivery.dropped == 0
    return delivery.acknowledged


def refusal(fresh: FreshRuntime) -> str:
    """Return what the Collector answered last, if that was no success."""
    delivery = fresh.runtime.status().delivery
    assert delivery is not None
    (lane,) = delivery.lanes
    return lane.last_error if lane.last_error and "HTTP" in lane.last_error else ""


def ids(backend: Collector) -> set[str]:
    """Return which spans it has; one that is sent again it has twice."""
    return {span.span_id for span in backend.spans()}


def test_a_collector_that_is_started_again_in_the_middle_of_a_run_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Collectors are upgraded during the day, and a run may take an hour."""
    with servers.jaeger(tmp_path) as jaeger:
        between = Between(tmp_path, TRACES=jaeger.endpoint)
        with (
            sending_to(between.endpoint, tmp_path, monkeypatch) as fresh,
            ExitStack() as later,
        ):
            with agenttrace.span("run") as run:
                with between.running(signal.SIGTERM):
                    steps = [step("before") for _ in range(200)]
                    servers.until("some to arrive", lambda: acknowledged(fresh))
                    steps += [step("on the way") for _ in range(200)]
                steps += [step("nobody listens") for _ in range(200)]
                later.enter_context(between.running(signal.SIGTERM))
                steps += [step("after") for _ in range(200)]
            assert fresh.runtime.flush(servers.PATIENCE)
            later.close()
        (trace,) = jaeger.traces("sends")

    root = f"{run.get_span_context().span_id:016x}"
    assert sorted(span["spanID"] for span in trace["spans"]) == sorted([root, *steps])
    for span in trace["spans"]:
        parents = [each["spanID"] for each in span["references"]]
        assert parents == ([] if span["spanID"] == root else [root])
        tags = {each["key"]: each["value"] for each in span["tags"]}
        assert tags[semconv.OUTCOME] == "ok"


@pytest.mark.parametrize(
    ("settings", "at_first", "ends", "is_lost"),
    [
        pytest.param((), (), KILL, True, id="a queue in memory"),
        pytest.param((), (), STOP, True, id="a queue in memory, stopped"),
        pytest.param((ON_DISK,), (), KILL, False, id="a queue on disk"),
        pytest.param(
            (ON_DISK, "service.pipelines.traces.processors=[batch]"),
            ("processors.batch.timeout=600s",),
            KILL,
            True,
            id="the batch processor before a queue on disk",
        ),
        pytest.param(
            (ON_DISK, QUEUE + "batch.flush_timeout=100ms"),
            (QUEUE + "batch.flush_timeout=600s",),
            KILL,
            False,
            id="batches made of a queue on disk",
        ),
        pytest.param(
            (ON_DISK, TAIL_SAMPLING),
            (DECIDES_LATE,),
            KILL,
            True,
            id="tail sampling before a queue on disk",
        ),
        pytest.param(
            (ON_DISK, TAIL_SAMPLING),
            (DECIDES_LATE,),
            STOP,
            False,
            id="tail sampling before a queue on disk, stopped",
        ),
    ],
)
def test_what_a_killed_collector_has_acknowledged(  # noqa: PLR0913, PLR0917 - a table
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: tuple[str, ...],
    at_first: tuple[str, ...],
    ends: signal.Signals,
    is_lost: bool,  # noqa: FBT001 - a column of the table above
) -> None:
    """A receipt is worth what stands behind it: what is on disk survives."""
    away = servers.free_port()
    between = Between(tmp_path, *settings, TRACES=f"http://127.0.0.1:{away}")
    with sending_to(between.endpoint, tmp_path, monkeypatch) as fresh:
        with between.running(ends, *at_first):
            early = {step("acknowledged") for _ in range(20)}
            assert fresh.runtime.flush(servers.PATIENCE)
            assert acknowledged(fresh) == 20
        with Collector(port=away) as backend:
            with between.running(signal.SIGTERM):
                late = step("after its end")
                expected = {late} if is_lost else {late, *early}
                servers.until("them", lambda: expected <= ids(backend))
            arrived = ids(backend)

    assert arrived == expected


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param((QUEUE + "enabled=false",), id="without a queue"),
        pytest.param((QUEUE + "wait_for_result=true",), id="waiting for the result"),
    ],
)
def test_a_collector_that_acknowledges_when_its_backend_does_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...]
) -> None:
    """Then the application's own spool is the queue, and there is no other."""
    away = servers.free_port()
    at_once = "exporters.otlp_http.retry_on_failure.enabled=false"
    between = Between(tmp_path, at_once, *settings, TRACES=f"http://127.0.0.1:{away}")
    with sending_to(between.endpoint, tmp_path, monkeypatch) as fresh:
        with between.running(signal.SIGKILL):
            steps = {step("not acknowledged") for _ in range(20)}
            servers.until("a refusal", lambda: refusal(fresh))
            assert acknowledged(fresh) == 0
        with Collector(port=away) as backend:
            with between.running(signal.SIGTERM):
                assert fresh.runtime.flush(servers.PATIENCE)
            arrived = ids(backend)

    assert arrived == steps
