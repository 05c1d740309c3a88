"""Runs programs of the catalogue, each in a process of its own, several at a time.

Each has a receiver of its own, which is where agenttrace sends what it finds: nothing
is asked of the process itself.  A program that hangs is killed as soon as the receiver
has a verdict; a healthy one comes to its end.

Those that wait run beside each other.  Those that keep the machine busy run alone, and
last.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from agenttrace.testing.model_server import ModelServer, Reply, Request, error
from tests.delivery.collector import Collector
from tests.hangs import given, judging
from tests.hangs.catalogue import (
    Healthy,
    Loop,
    Verdict,
    Workload,
    place_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping

REPOSITORY: Final = Path(__file__).parents[2]
PATIENCE: Final = 150.0
"""Seconds from the start of a process until it is given up."""
AT_A_TIME: Final = min(4 * (os.cpu_count() or 1), 16)
"""Programs that run beside each other: nearly all of the time they wait."""
_NOISE: Final = 2_000
"""Characters of what a program wrote that are told."""


class Job(NamedTuple):
    """One run of one program.

    Args:
        workload: The program.
        loop: On what it runs.
    """

    workload: Workload
    loop: Loop


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one run.

    Args:
        job: The run.
        wrong: Complaints; none if it was as it should be.
        late: Seconds from the limit until the verdict was at the receiver.
        seconds: How long it took.
    """

    job: Job
    wrong: list[str]
    late: float | None = None
    seconds: float = 0.0


@dataclass(slots=True)
class Results:
    """What came of all."""

    found: list[Result] = field(default_factory=list[Result])
    seconds: float = 0.0

    @property
    def failed(self) -> list[Result]:
        """Those that were not as they should be."""
        return [each for each in self.found if each.wrong]


def jobs_of(
    workloads: Iterable[Workload], runs: int, *, every_loop: bool = True, first: int = 0
) -> list[Job]:
    """Return what is to be run.

    Args:
        workloads: The programs.
        runs: How often each of them.
        every_loop: Whether one that hangs is run that often on every kind of loop.
            Otherwise, as healthy ones, on one kind after the other.
        first: Which kind is the first one's first.
    """
    found: list[Job] = []
    for index, workload in enumerate(workloads, first):
        loops = workload.loops
        for run in range(runs):
            if every_loop and not workload.is_healthy:
                found += [Job(workload, loop) for loop in loops]
            else:
                found.append(Job(workload, loops[(index + run) % len(loops)]))
    # The longest first, so that none of them is left for the end.
    return sorted(found, key=lambda job: not job.workload.is_healthy)


def run_all(
    jobs: Iterable[Job],
    tell: Callable[[Result], object] = lambda _: None,
    *,
    at_a_time: int = AT_A_TIME,
) -> Results:
    """Run *jobs*.

    Args:
        jobs: What is to be run.
        tell: Called with each result, on any thread, one at a time.
        at_a_time: How many run beside each other.
    """
    everything = list(jobs)
    results = Results()
    lock = threading.Lock()
    began = time.monotonic()

    def run_one(job: Job) -> None:
        result = run(job, variables)
        with lock:
            results.found.append(result)
            tell(result)

    with _servers() as variables:
        with ThreadPoolExecutor(at_a_time) as pool:
            beside = [job for job in everything if not job.workload.is_alone]
            list(pool.map(run_one, beside))
        for job in everything:
            if job.workload.is_alone:
                run_one(job)
    results.seconds = time.monotonic() - began
    return results


@contextmanager
def _servers() -> Generator[Mapping[str, str]]:
    """Serve what programs ask for; return the variables that tell them where."""
    refused: set[str] = set()

    def script(request: Request) -> Reply | None:
        if request.model.startswith(given.REFUSED_ONCE):
            if request.model not in refused:
                refused.add(request.model)
                return error(503, headers={"retry-after": "1"})
            return None
        return ModelServer.by_model_name(request)

    with (
        ModelServer(script) as models,
        socket.create_server(("127.0.0.1", 0), backlog=512) as silence,
    ):
        yield {
            given.MODELS: models.base_url,
            given.SILENCE: str(silence.getsockname()[1]),
        }


def run(job: Job, variables: Mapping[str, str]) -> Result:
    """Run one program once.

    Args:
        job: Which.
        variables: Of its environment, beside those that say where spans go.
    """
    began = time.monotonic()
    with ExitStack() as stack:
        collector = stack.enter_context(Collector())
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(
                prefix="agenttrace-hangs-", ignore_cleanup_errors=True
            )
        )
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("OTEL_", "AGENTTRACE_"))
        }
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.hangs.program"),
                *(job.workload.module, job.workload.name, job.loop),
            ],
            cwd=REPOSITORY,
            env={
                **kept,
                **variables,
                "OTEL_EXPORTER_OTLP_ENDPOINT": collector.base,
                "AGENTTRACE_STATE_DIR": folder,
                "AGENTTRACE_STRICT": "1",
                "PYTHONWARNINGS": "ignore::DeprecationWarning",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            wrong, late = _watched(job.workload, process, collector)
        finally:
            _kill(process)
            if process.stderr is not None:
                process.stderr.close()
    return Result(job, wrong, late, time.monotonic() - began)


def _watched(
    workload: Workload, process: subprocess.Popen[str], collector: Collector
) -> tuple[list[str], float | None]:
    expected = workload.expected
    if not isinstance(expected, Verdict):
        wrong = _ended(process)
        spans = judging.real(collector.spans())
        if isinstance(expected, Healthy):
            return wrong + judging.of_healthy(spans, expected), None
        return wrong + judging.of_block(spans, expected, place_of(workload)), None
    late = _wait_for(expected, process, collector)
    place = None if late is None else place_of(workload)
    wrong = judging.of_hang(judging.real(collector.spans()), expected, place, late)
    ended = process.poll() is not None
    _kill(process)
    noise = process.stderr.read() if process.stderr is not None else ""
    if ended or "Traceback" in noise:
        wrong.append(f"it came to an end: {noise[-_NOISE:]}")
    return wrong, late


def _wait_for(
    expected: Verdict, process: subprocess.Popen[str], collector: Collector
) -> float | None:
    """Return how long after the limit a verdict came; None where none did."""
    deadline = time.monotonic() + PATIENCE
    seen = 0
    while time.monotonic() < deadline:
        requests = collector.requests
        for request in requests[seen:]:
            for span in request.spans:
                if judging.is_judged(span) and span.name == expected.span:
                    return _wall(request.at) - judging.passed_at(span, expected)
        seen = len(requests)
        if process.poll() is not None:
            return None
        time.sleep(0.05)
    return None


def _wall(instant: float) -> float:
    """Return *instant* of the monotonic clock as seconds since the epoch."""
    return time.time() - (time.monotonic() - instant)


def _ended(process: subprocess.Popen[str]) -> list[str]:
    """Wait for the end of a healthy program; return what is wrong with it."""
    try:
        _, noise = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return [f"it has not come to an end after {PATIENCE:g} s"]
    if process.returncode or noise:
        return [f"exit status {process.returncode}: {noise[-_NOISE:]}"]
    return []


def _kill(process: subprocess.Popen[str]) -> None:
    """End *process*, and what it has started."""
    try:
        os.killpg(process.pid, 9)
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.wait()
