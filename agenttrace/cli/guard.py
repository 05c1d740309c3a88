"""`agenttrace guard`: stays, and delivers what processes leave when they die.

Of those that live and stand still it tells (`frozen`).
"""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

import click

from agenttrace.cli.frozen import Watch
from agenttrace.cli.group import json_option, seconds_option, state_dir_option
from agenttrace.cli.recovered import found_as_json, of_one, sentences
from agenttrace.recovery import pid_of
from agenttrace.runtime.rescue import Rescue
from agenttrace.settings import INSTANCES

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from agenttrace.cli.frozen import Notice
    from agenttrace.recovery import Recovered

_EVERY: Final = 5.0
_FROZEN_AFTER: Final = 10.0
_BEAT: Final = 1.0
"""Seconds for which a thread is waited for without a look at signals."""

_LAST: Final = 3.0
"""Seconds that the last look may take."""


@click.command(
    name="guard",
    epilog="Exit codes: 0 ended by Ctrl-C or SIGTERM, 2 it could not begin.",
)
@seconds_option(
    "--every",
    "How often to look for processes that have died.",
    least=0.1,
    usually=_EVERY,
)
@seconds_option(
    "--frozen-after",
    "Tell of a process that has spans open and makes no sign for so long.",
    least=1.0,
    usually=_FROZEN_AFTER,
)
@json_option("Print one JSON object a process.")
@state_dir_option
def command(
    *, every: float, frozen_after: float, as_json: bool, state_dir: Path
) -> None:
    """Stay, and deliver what processes leave when they die.

    The same as `agenttrace recover`, every few seconds, with a line for each process.
    It is for hosts and pods whose applications may not start again soon: they recover
    what others left by themselves, but only while they run.  Several may guard the same
    directory.

    It also tells of a process that lives and stands still with spans open: stopped, or
    held by C code that does not give the interpreter back.  Nothing is done to it.

    Ctrl-C and SIGTERM end it, after a last look of a few seconds at most.  What is not
    delivered then stays on disk.
    """
    rescue, lines = Rescue(state_dir), _Lines(as_json=as_json)
    # In a container this may be process 1, which ignores a SIGTERM that it does not
    # handle.  Off the main thread, as in a test, there are no signals to come.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        click.echo(
            f"Guarding {state_dir}, delivering to {rescue.whereto()}.  Ctrl-C ends it.",
            err=True,
        )
        _guard(rescue, every, lines, Watch(state_dir / INSTANCES, frozen_after))
    except KeyboardInterrupt:
        with contextlib.suppress(KeyboardInterrupt):  # a second one ends it at once
            _look_last(rescue, lines)
        rescue.close()
        found = rescue.found
        if found.processes:
            said = sentences(found, rescue.progress(), rescue.whereto())
            click.echo(" ".join(said), err=True)


def _guard(rescue: Rescue, every: float, lines: _Lines, watch: Watch) -> None:
    while True:
        thread = rescue.look(tell_of_one=lines.add)
        while True:  # it waits where a destination takes nothing
            lines.show()
            lines.tell(watch.look())
            if not thread.is_alive():
                break
            thread.join(_BEAT)
        lines.show()
        time.sleep(every)


def _look_last(rescue: Rescue, lines: _Lines) -> None:
    """Look once more: in a pod, what is guarded is killed just before its guard."""
    give_up_at = time.monotonic() + _LAST
    thread = rescue.look(tell_of_one=lines.add)
    thread.join(_LAST)
    rescue.wait(max(0.0, give_up_at - time.monotonic()))
    lines.show()


class _Lines:
    """Prints a line for each process, once.

    One that another version alone can read, or another user, is found at each look.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._told: set[tuple[str, bool]] = set()
        self._waiting: SimpleQueue[str] = SimpleQueue()

    def show(self) -> None:
        """Print what has come.  On the main thread: it is the one that may fail."""
        while not self._waiting.empty():
            click.echo(self._waiting.get())

    def tell(self, notices: Iterable[Notice]) -> None:
        """Print what is new of processes that stand still."""
        now = datetime.now(UTC)
        for notice in notices:
            if self._as_json:
                time_of_day = now.isoformat(timespec="milliseconds")
                click.echo(json.dumps({"time": time_of_day, **notice.as_json()}))
            else:
                click.echo(f"{now.astimezone():%H:%M:%S}  {notice.sentence()}")

    def add(self, lock: Path, found: Recovered) -> None:
        """Take what was *found* of the process whose lock is *lock*, on any thread."""
        is_new = (lock.stem, bool(found.failed))
        if is_new in self._told:
            return
        self._told.add(is_new)
        now = datetime.now(UTC)
        if self._as_json:
            told = {
                "time": now.isoformat(timespec="milliseconds"),
                "instance": lock.stem,
                "pid": pid_of(lock.stem),
                **found_as_json(found),
            }
            self._waiting.put(json.dumps(told))
        else:
            self._waiting.put(f"{now.astimezone():%H:%M:%S}  {of_one(lock, found)}")
