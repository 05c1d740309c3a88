"""A process that dies with spans open, and what is recovered of it.

For tests of what a crash leaves: the process is real, and SIGKILL ends it.  It is a
fork of the test's, so it can run any code that the test has at hand, and it has a
state directory of its own, which is gone afterwards.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
import time
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import agenttrace
from agenttrace.errors import AgenttraceError
from agenttrace.runtime import core
from agenttrace.runtime.process import PROCESS
from agenttrace.testing.capture import CapturedSpans
from agenttrace.testing.recording import Recording
from agenttrace.testing.runtimes import Nowhere, fresh_runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExportResult

_PAUSE: Final = 0.005
_TOLD: Final = "what went wrong"
_ATTACHED: Final = "attached"
_WHOSE: Final = (
    "the application has a tracer provider of its own: what agenttrace recovers there "
    "is handed to that, and not to this test"
)
_NO_JOURNAL: Final = (
    "agenttrace keeps no journal here, so nothing can be recovered: is it switched "
    "off, as OTEL_SDK_DISABLED does?"
)
_HOW: Final = {None: "it took too long", -9: "somebody else killed it"}


class _Silent(Nowhere):
    """Never says that it has taken anything, so that all of it is recovered."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Wait for the end of the process."""
        threading.Event().wait()
        return super().export(spans)


def kill_and_recover(
    work: Callable[[Callable[[], NoReturn]], object], *, timeout: float = 60.0
) -> CapturedSpans:
    """Have a process die in the middle of *work*, and return what is recovered.

    Args:
        work: Run in a forked process, where it is given a function that kills this
            process on the spot, with SIGKILL.  It calls that function in the middle of
            what it does.
        timeout: Seconds that it may take.

    Returns:
        The spans that were open when it died: they are `lost`, by `recovery`.  And
        those that had ended, as they ended.

    Raises:
        AgenttraceError: The system has no fork, the application has a tracer provider
            of its own, agenttrace is switched off, or *work* came to an end without
            being killed, or took too long; the message says which, with its traceback.

    >>> import agenttrace
    >>> from agenttrace.testing import kill_and_recover
    >>> def work(die):
    ...     with agenttrace.span("plan"):
    ...         die()
    >>> kill_and_recover(work).span("plan").outcome
    <Outcome.LOST: 'lost'>
    """
    if not hasattr(os, "fork"):
        message = "kill_and_recover() needs os.fork(), which this system has not"
        raise AgenttraceError(message)
    runtime = core.current()
    if runtime and runtime.is_running and runtime.status().mode == _ATTACHED:
        raise AgenttraceError(_WHOSE)
    with tempfile.TemporaryDirectory(prefix="agenttrace-") as folder:
        place = Path(folder)
        code = run_in_fork(lambda: _live(work, place), timeout)
        if code != -signal.SIGKILL or (place / _TOLD).exists():
            told = place / _TOLD
            reason = _HOW.get(code, f"it ended with status {code}")
            if told.exists():
                reason = told.read_text("utf-8")
            message = f"the work was not killed in the middle: {reason}"
            raise AgenttraceError(message)
        return _recovered(place)


def run_in_fork(work: Callable[[], object], timeout: float) -> int | None:
    """Run *work* in a forked process, which ends with it, and return how that ended.

    Args:
        work: Its result is the exit status, where it is a number.
        timeout: Seconds after which the process is killed.

    Returns:
        The exit status, negative for a signal; None where it took too long.
    """
    with warnings.catch_warnings():
        # From 3.12 on: that agenttrace's threads do not go along is taken care of.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            answer = work()
            code = answer if isinstance(answer, int) else 0
        finally:
            os._exit(code)  # nothing of the parent's is to be finished here
    try:
        deadline = time.monotonic() + timeout
        while time.monotonic() <= deadline:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(_PAUSE)
    except BaseException:  # Ctrl-C, or the time-out of a test
        _end(pid)
        raise
    _end(pid)
    return None


def _end(pid: int) -> None:
    """Kill a child process and wait for it, unless it is gone already."""
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _live(work: Callable[[Callable[[], NoReturn]], object], place: Path) -> int:
    """Be the process that dies."""

    def die() -> Any:  # noqa: ANN401 - it never returns
        os.kill(os.getpid(), signal.SIGKILL)
        while True:  # until the signal has come
            signal.pause()

    told = "it came to its end"
    try:
        runtime = agenttrace.configure(
            service_name="killed",
            span_exporter=_Silent(),
            state_dir=str(place),
            durable=True,
        )
        status = runtime.status()
        if status.mode == _ATTACHED:
            told = _WHOSE
        elif not status.journal:
            told = _NO_JOURNAL
        else:
            work(die)
    except BaseException:  # noqa: BLE001 - handed over, as text
        told = traceback.format_exc()
    (place / _TOLD).write_text(told, "utf-8")
    return 1


def _recovered(place: Path) -> CapturedSpans:
    recording = Recording(PROCESS.spans)
    with fresh_runtime(state_dir=str(place), durable=True) as fresh:
        fresh.runtime.recover()
        for span in sorted(fresh.exported(), key=lambda each: each.start_time or 0):
            recording.told(span)
    return CapturedSpans(recording)
