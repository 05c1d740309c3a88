"""Asks another process where its open spans are; and why one does not answer.

The question is a file (`watchdog.questions`), which the ticker of the process that is
asked looks for five times a second, while it has a span open.  A process that is
stopped, or in which C code keeps the GIL, does not tick and cannot answer; that is all
that can be told of it from outside, but for what `faulthandler` may have written.
"""

from __future__ import annotations

import os
import stat
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agenttrace.records import NamedTuple
from agenttrace.watchdog.questions import (
    ANSWER,
    ASK,
    DIRECTORY,
    LARGEST_ANSWER,
    TAKEN,
    VERSION,
    Box,
    forget,
    name_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_PAUSE: Final = 0.01
_TRIES: Final = 20
"""How often the directory is made anew that others remove when they are done."""
_AT_WORK: Final = 10.0
"""Seconds that one is waited for which has taken the question: it is at it."""
_LARGEST_DUMP: Final = 1 << 20
_STOPPED: Final = frozenset("Tt")
"""What the state of a stopped process begins with; `t` where a debugger has it."""


class Reply(NamedTuple):
    """What became of a question.

    Args:
        answer: What was answered; None where nothing was.
        is_taken: Whether it was seen by the process that was asked.
    """

    answer: dict[str, Any] | None
    is_taken: bool = False


class Dump(NamedTuple):
    """What `faulthandler` has written in a process that could not answer.

    Args:
        time: When, nanoseconds since the epoch.
        text: The stacks; empty where it has written nothing so far.
    """

    time: int
    text: str


def ask(
    directory: Path, process: str, spans: Sequence[bytes] | None, timeout: float
) -> Reply:
    """Ask a process where its open spans are, and wait for what it says.

    Args:
        directory: Where processes have their files.
        process: What the names of its journals begin with.
        spans: The ids of the spans, None for all.
        timeout: Seconds until it has to have seen the question.

    Raises:
        OSError: The question cannot be put: the directory is read-only, full, or
            another user's.
    """
    question = {
        "version": VERSION,
        "spans": None if spans is None else [each.hex() for each in spans],
    }
    nonce = os.urandom(8).hex()
    # Ctrl-C may come at any time: also before the question is known to have been put,
    # and while it is being taken back.
    try:
        return _answer(directory / DIRECTORY, process, nonce, question, timeout)
    finally:
        forget(directory, process, nonce)


def _answer(
    path: Path, process: str, nonce: str, question: object, timeout: float
) -> Reply:
    """Put *question* into the directory *path*, wait, and take it back."""
    box = _put(path, name_of(process, nonce, ASK), question)
    try:
        return _wait(box, process, nonce, timeout)
    finally:
        box.withdraw(process, nonce)
        box.close()


def _put(path: Path, name: str, question: object) -> Box:
    """Put *question* into the directory, which others may be removing."""
    for attempt in range(_TRIES):
        path.mkdir(mode=0o700, exist_ok=True)
        box: Box | None = None
        try:
            box = Box(path)
            box.put(name, question)
        except FileNotFoundError:
            if box is not None:
                box.close()
            if attempt == _TRIES - 1:
                raise
        except BaseException:
            if box is not None:
                box.close()
            raise
        else:
            return box
    raise AssertionError  # pragma: no cover - the last attempt returns or raises


def _wait(box: Box, process: str, nonce: str, timeout: float) -> Reply:
    asked, taken, answered = (
        name_of(process, nonce, kind) for kind in (ASK, TAKEN, ANSWER)
    )
    give_up_at = time.monotonic() + timeout
    is_taken = False
    while True:
        if box.has(answered):
            return Reply(box.get(answered, LARGEST_ANSWER), is_taken=True)
        if not is_taken and not box.has(asked):
            is_taken = True
            give_up_at = time.monotonic() + _AT_WORK
        elif is_taken and not box.has(taken) and not box.has(answered):
            return Reply(None, is_taken=True)  # it had nothing to say to that
        if time.monotonic() >= give_up_at:
            return Reply(None, is_taken)
        time.sleep(_PAUSE)


def is_stopped(pid: int) -> bool:
    """Return whether the process *pid* of this host is stopped; False if unknown."""
    if pid <= 0:  # of another namespace
        return False
    try:
        said = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return _state_by_ps(pid)[:1] in _STOPPED
    # The second field is the name in parentheses, which may hold anything.
    return said.rpartition(b")")[2].split()[0].decode() in _STOPPED


def _state_by_ps(pid: int) -> str:
    """Return the state of a process where there is no `/proc`, as on macOS."""
    try:
        ran = subprocess.run(  # noqa: S603 - a number is all that is not constant
            ["/bin/ps", "-o", "stat=", "-p", str(pid)],
            capture_output=True,
            timeout=2,
            check=False,
            text=True,
        )
    except (OSError, subprocess.SubprocessError):
        return " "
    return ran.stdout.strip() or " "


def dump_at(path: Path) -> Dump | None:
    """Return what `faulthandler` has written to *path*; None where it does not write.

    It does where `gil_dump_after` is set.
    """
    flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags)
    except OSError:
        return None
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            return None
        return Dump(
            facts.st_mtime_ns, file.read(_LARGEST_DUMP).decode("utf-8", "replace")
        )
