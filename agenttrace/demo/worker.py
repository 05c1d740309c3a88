"""The worker that is killed: a process of its own, in an agent run, with a tool open.

Both sides of it: `Worker` is what the demo has of it, `main` is what it runs.  It tells
by lines of JSON which spans have started, as an independent count, and when its tool is
open; then it waits to be killed.  Its collector cannot be reached, so what it had ended
is on disk, and whoever recovers it has to send that as well.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import agenttrace
from agenttrace.demo import models
from agenttrace.demo.account import SERVICE
from agenttrace.demo.tally import Started
from agenttrace.errors import AgenttraceError

if TYPE_CHECKING:
    from collections.abc import Generator

    from agenttrace import OpenSpan, Runtime

_NOBODY: Final = "http://127.0.0.1:9"
_PATIENCE: Final = 60.0
"""Seconds after which a worker that nobody has killed ends by itself."""
_MOMENT: Final = 0.01
_OPEN: Final = "open"


class WorkerError(AgenttraceError):
    """The worker ended before it could be killed."""


class Worker:
    """The process, once its tool is open.

    Args:
        process: The process.
        started: The spans that have started in it, as it told.
        where: The names from its first open span down to its deepest.
    """

    def __init__(
        self, process: subprocess.Popen[str], started: list[Started], where: str
    ) -> None:
        self._process = process
        self.started = started
        self.where = where

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def kill(self) -> None:
        """Send it SIGKILL, and wait until it is gone."""
        self._process.kill()
        self._process.wait()


@contextmanager
def running(state_dir: Path, base_url: str) -> Generator[Worker]:
    """Start a worker and yield it with its tool open; it is gone after the block.

    Args:
        state_dir: Where it keeps its journal and spool.
        base_url: Address of the scripted model.

    Raises:
        WorkerError: It has ended by itself.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_EXPORTER_OTLP_", "OTEL_TRACES_EXPORTER"))
    }
    environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = _NOBODY
    # As this one was found, which need not be installed.
    here = str(Path(agenttrace.__file__).parents[1])
    paths = [here, *filter(None, [environment.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    with subprocess.Popen(  # noqa: S603 - this interpreter, and paths of ours
        [sys.executable, "-m", __name__, str(state_dir), base_url],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        try:
            yield _begun(process)
        finally:
            process.kill()


def _begun(process: subprocess.Popen[str]) -> Worker:
    started: list[Started] = []
    for line in process.stdout or ():
        told = json.loads(line)
        if _OPEN in told:
            return Worker(process, started, told[_OPEN])
        started.append(Started(**told))
    said = process.stderr.read().strip() if process.stderr else ""
    message = f"the worker ended by itself: {said.rpartition(os.linesep)[2]}"
    raise WorkerError(message)


class _Told:
    """A listener of the registry that tells what has started, on stdout."""

    def started(self, span: OpenSpan) -> None:
        """Tell that *span* has started."""
        _tell(trace_id=span.trace_id.hex(), span_id=span.span_id.hex(), name=span.name)

    def ended(self, span: OpenSpan) -> None:
        """Tell nothing: nobody asks it how they end."""
        del span


def main(state_dir: str, base_url: str) -> None:
    """Run the nightly agent, in the worker."""
    logging.getLogger("agenttrace").addHandler(logging.NullHandler())
    runtime = agenttrace.configure(service_name=SERVICE, state_dir=state_dir)
    runtime.spans.add_listener(_Told())
    agenttrace.instrument()
    desk = models.Models(models.SCRIPTED, base_url, api_key="unused", scripted=True)
    asyncio.run(_nightly(runtime, desk))


async def _nightly(runtime: Runtime, desk: models.Models) -> None:
    @agenttrace.tool
    def rebuild_index() -> None:
        """Hang until the end comes."""
        # What has ended must be on disk before: the next thing that happens is the end.
        give_up_at = time.monotonic() + _PATIENCE
        while not runtime.status().spool_bytes and time.monotonic() < give_up_at:
            time.sleep(_MOMENT)
        deepest = max((span.path() for span in runtime.open_spans()), key=len)
        _tell(**{_OPEN: deepest})
        time.sleep(_PATIENCE)

    @agenttrace.agent
    async def nightly() -> None:
        async with desk.client() as client:
            await client.chat.completions.create(
                model=desk.model, messages=[{"role": "user", "content": models.NIGHT}]
            )
        rebuild_index()

    await nightly()


def _tell(**what: str) -> None:
    sys.stdout.write(f"{json.dumps(what)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
