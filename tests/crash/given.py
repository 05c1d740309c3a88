"""Programs that are started, waited for at a line they print, and sent a signal."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.core.programs import run
from tests.delivery.collector import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from tests.delivery.collector import Received

NOBODY = "http://127.0.0.1:9"
"""The discard port, where nobody listens."""


@contextmanager
def collector_of_programs() -> Generator[Collector]:
    """Listen to whatever is started meanwhile, also where it forks beside threads.

    From 3.12 on such a fork warns; that it goes well is what is tested.
    """
    with Collector() as collector, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.base)
        patch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        patch.setenv("PYTHONWARNINGS", "ignore::DeprecationWarning")
        yield collector


class Ended(NamedTuple):
    """How a program ended.

    Args:
        code: Exit status; negative for the signal that ended it.
        err: What it wrote to standard error.
        seconds: From the first signal, or from the line it printed, to its end.
    """

    code: int
    err: str
    seconds: float


def signalled(
    program: str,
    *signals: int,
    between: Callable[[], object] | None = None,
    **variables: str,
) -> Ended:
    """Run *program*, send it *signals* once it has printed a line, wait for its end.

    Args:
        program: Its source.
        signals: One after the other.
        between: Called before the second one and each that follows.
        variables: Of its environment.
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        began = time.monotonic()
        for index, number in enumerate(signals):
            if index and between is not None:
                between()
            process.send_signal(number)
        try:
            _, err = process.communicate(timeout=60)
        except BaseException:
            process.kill()
            raise
        return Ended(process.returncode, err, time.monotonic() - began)


def recover() -> None:
    """Be the next process, and deliver what the ones before have left."""
    ran = run(
        """
        import os
        import agenttrace
        agenttrace.configure(service_name="recoverer")
        agenttrace.recover(timeout=30)
        own = f"{os.getpid()}-"
        directory = os.environ["AGENTTRACE_STATE_DIR"] + "/instances"
        print([name for name in os.listdir(directory) if not name.startswith(own)])
        """
    )
    assert (ran.code, ran.out) == (0, "[]\n"), ran.err


def endings(
    collector: Collector, *, was_sending: bool = False
) -> dict[str, tuple[str, str]]:
    """Return outcome and `ended_by` of what came, by name; each came once.

    Args:
        collector: Where it came.
        was_sending: Whether a process may have been killed between an answer and
            noting it: what that was for comes again, and says the same.
    """
    spans = collector.spans()
    if was_sending:
        forms = {span.span_id: span for span in spans}
        assert all(span == forms[span.span_id] for span in spans), "in two forms"
        spans = list(forms.values())
    names = sorted(span.name for span in spans)
    assert names == sorted(set(names)), "something came twice"
    return {span.name: ending_of(span) for span in spans}


def ending_of(span: Received) -> tuple[str, str]:
    """Return outcome and `ended_by` of *span*."""
    said = span.attributes
    return said["agenttrace.outcome"], said["agenttrace.ended_by"]
