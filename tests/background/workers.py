"""What worker processes run: they import it by name."""

from __future__ import annotations

import inspect
import os
from typing import Any

from opentelemetry import trace

import agenttrace


def current() -> tuple[str, str, bool]:
    """Return which trace and span are current, in hexadecimal, and if it is remote."""
    span = trace.get_current_span().get_span_context()
    return f"{span.trace_id:032x}", f"{span.span_id:016x}", span.is_remote


def current_for(_: object) -> tuple[str, str, bool]:
    """Do the same for an item."""
    return current()


def caller() -> str:
    """Return the name of the module that calls this."""
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return str(frame.f_back.f_globals["__name__"])


seen_by_initializer: list[tuple[str, str, bool]] = []


def initialize() -> None:
    """Note what is current when a worker begins."""
    seen_by_initializer.append(current())


def seen_at_first(_: object = None) -> tuple[str, str, bool]:
    """Return what was current in the initializer of this worker."""
    return seen_by_initializer[0]


def tell(queue: Any) -> None:  # noqa: ANN401 - a multiprocessing.Queue
    """Put there what is current."""
    queue.put(current())


def work_off(queue: Any, results: Any) -> None:  # noqa: ANN401 - the same
    """Be a worker that traces: each job is a run of its own."""
    agenttrace.configure(service_name="worker")
    while (job := queue.get()) is not None:
        with agenttrace.continue_trace(job["headers"], run=f"job {job['number']}"):
            results.put(current())
            if job["is deadly"]:
                results.close()
                results.join_thread()
                os.kill(os.getpid(), 9)
    agenttrace.flush()
