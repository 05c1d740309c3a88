"""What there is to say of a process that is asked where its open spans are.

Its answer, or why there is none: it is dead, stopped, or silent, or has nothing open.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Final

from agenttrace import clock
from agenttrace.cli.frozen import deepest
from agenttrace.journal.lock import SUFFIX as LOCK_SUFFIX
from agenttrace.journal.lock import holder
from agenttrace.journal.process import of_process
from agenttrace.live import Dead, Process, Unreadable
from agenttrace.live.asking import ask, dump_at, is_stopped
from agenttrace.settings import DUMP_SUFFIX

if TYPE_CHECKING:
    from pathlib import Path

    from agenttrace.live import Live
    from agenttrace.live.asking import Dump
    from agenttrace.live.wanted import Wanted

ANSWERED, DEAD, ENDED, IDLE = "answered", "dead", "ended", "idle"
STOPPED, SILENT, DEAF, UNREADABLE = "stopped", "silent", "deaf", "unreadable"
OWES: Final = frozenset({STOPPED, SILENT, DEAF})
"""What a process is that has a span open and has not answered."""
_NEARLY: Final = 0.9
_OF_ANSWERS: Final = ("time", "took", "open", "left_out", "steps")


def told_of(
    wanted: Wanted, live: Live, directory: Path, timeout: float
) -> dict[str, Any]:
    """Return what there is to say of a process, as `--json` has it.

    Args:
        wanted: The process, and which of its spans.
        live: What sees the processes.
        directory: Where they have their files.
        timeout: Seconds until it has to have seen the question.
    """
    process = wanted.process
    if isinstance(process, Unreadable):
        message = f"nothing can be told of it: {process.reason}"
        return _told(process, UNREADABLE, message)
    if isinstance(process, Dead):
        message = (
            f"it is dead, and {_count(process.open)} open when it died: `agenttrace "
            "recover` delivers what it has left"
        )
        return _told(process, DEAD, message)
    if all(step.is_judged for step in process.forest.steps):
        message = "no span is open in it"
        if process.forest.judged:
            message += (
                f", and {_count(process.forest.judged)} judged and not come back: what "
                "they hang in stands in their event agenttrace.hang (`agenttrace tree "
                "--json`)"
            )
        return _told(process, IDLE, message)
    pid = _pid_of(process, directory)
    if is_stopped(pid):
        return _silent(process, directory, timeout, pid)
    return _asked(wanted, process, live, directory, timeout)


def _asked(
    wanted: Wanted, process: Process, live: Live, directory: Path, timeout: float
) -> dict[str, Any]:
    """Ask *process*, and return what has become of that."""
    owner = _owner_of(process, directory)
    if owner not in {None, os.geteuid()}:
        # It believes its own user alone, and root can read its journal.
        message = f"it belongs to user {owner}: ask as that user"
        return _told(process, DEAF, message)
    spans = None if wanted.spans is None else [each.span_id for each in wanted.spans]
    try:
        reply = ask(directory, of_process(process.instances[-1]), spans, timeout)
    except OSError as error:
        message = f"it cannot be asked through {directory}: {error.strerror}"
        return _told(process, DEAF, message)
    if reply.answer is None:
        return _unanswered(process, live, directory, timeout, is_taken=reply.is_taken)
    steps = reply.answer.get("steps")
    if not isinstance(steps, list):
        return _told(process, DEAF, "its answer is none that can be read")
    told = _told(process, ANSWERED, None)
    if not steps:
        told = _told(process, ENDED, "what was open has ended meanwhile")
    return {**told, **{key: reply.answer.get(key, told[key]) for key in _OF_ANSWERS}}


def _pid_of(process: Process, directory: Path) -> int:
    """Return the id by which this namespace knows *process*, 0 where it does not."""
    try:
        return holder(directory / (process.instances[-1] + LOCK_SUFFIX)) or 0
    except OSError:
        return 0


def _owner_of(process: Process, directory: Path) -> int | None:
    """Return whose *process* is, by its lock; None where that is gone."""
    try:
        return (directory / (process.instances[-1] + LOCK_SUFFIX)).stat().st_uid
    except OSError:
        return None


def _unanswered(
    process: Process, live: Live, directory: Path, timeout: float, *, is_taken: bool
) -> dict[str, Any]:
    """Return why *process* has not answered."""
    now = [
        each
        for each in live.look().processes
        if not set(each.instances).isdisjoint(process.instances)
    ]
    if not now:
        return _told(process, ENDED, "it has ended meanwhile")
    [process] = now
    if all(step.is_judged for step in process.forest.steps):
        return _told(process, ENDED, "what was open in it has ended meanwhile")
    pid = _pid_of(process, directory)
    # A second without a tick is five that did not come.
    if process.silence >= min(timeout, 1.0) * _NEARLY:
        return _silent(process, directory, timeout, pid)
    why = "has another version of agenttrace, or no time for an answer"
    if is_taken:
        why = "has seen the question and cannot write down what it has to say"
    return _told(process, DEAF, f"it lives and does not answer: it {why}")


def _silent(
    process: Process, directory: Path, timeout: float, pid: int
) -> dict[str, Any]:
    """Return what is known of a process that makes no sign."""
    if is_stopped(pid):
        message = (
            "it is stopped (SIGSTOP, or a debugger has it), and nothing in it runs: "
            f"`kill -CONT {pid}` lets it go on"
        )
        return _told(process, STOPPED, message)
    message = (
        f"no answer in {timeout:g} s, and no sign of life for {process.silence:.1f} s: "
        "C code keeps the GIL, or the machine has no time for it"
    )
    dumps = [dump_at(directory / (each + DUMP_SUFFIX)) for each in process.instances]
    dump = max((each for each in dumps if each is not None), default=None, key=_by_text)
    if dump is None:
        message += (
            ".  With gil_dump_after set (AGENTTRACE_GIL_DUMP_AFTER) it would have "
            "written its stacks; read of the risks first"
        )
    elif not dump.text:
        message += ".  Its gil_dump_after has not passed yet: ask again"
    told = _told(process, SILENT, message)
    if dump is not None and dump.text:
        told |= {"dump": dump.text, "dump_time": clock.iso(dump.time)}
    return told


def _by_text(dump: Dump) -> tuple[bool, int]:
    return bool(dump.text), dump.time


def _count(number: int) -> str:
    return "1 span was" if number == 1 else f"{number:,} spans were"


def _told(
    process: Process | Dead | Unreadable, state: str, message: str | None
) -> dict[str, Any]:
    living = process if isinstance(process, Process) else None
    slots = [] if living is None else [s.slot for s in living.forest.steps]
    instances = (
        process.instances if isinstance(process, Process) else (process.instance,)
    )
    return {
        "pid": process.pid,
        "service": None if isinstance(process, Unreadable) else process.service,
        "instances": list(instances),
        "state": state,
        "message": message,
        "time": clock.iso(time.time_ns()),
        "took": None,
        "open": process.open if isinstance(process, Dead) else len(slots),
        "paths": deepest(slots),
        "left_out": 0,
        "steps": [],
        "dump": None,
        "dump_time": None,
    }
