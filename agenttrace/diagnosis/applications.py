"""What processes have noticed of the applications in them, why it matters, what helps.

Only the running process can know which of its loops was blocked, or whose connections
two loops share.  Each writes down what it comes across (`agenttrace.noticed`), and here
it is read: of the living, and of the dead whose files nobody has taken over yet.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from agenttrace.diagnosis.findings import Finding, ok, warning
from agenttrace.noticed import Kind, Notice, from_json
from agenttrace.recovery import pid_of
from agenttrace.settings import INSTANCES, NOTICED_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MEANINGS: Final = {
    Kind.LOOP_BLOCKED: (
        "the event loop was blocked",
        "every other run of the process stood still meanwhile, and no time-out fired",
        "await it, or hand it to a thread: await asyncio.to_thread(...)",
    ),
    Kind.LOOP_NESTED: (
        "a loop was run within the running loop (nest_asyncio)",
        (
            "whoever does so returns only when every loop that was begun later has, "
            "and cannot be cancelled until then"
        ),
        "await the coroutine instead, or run it in a thread of its own",
    ),
    Kind.CLIENT_SHARED: (
        "one client was used in several event loops",
        (
            "its connections belong to the loop that opened them: requests fail with "
            "'Event loop is closed' or 'bound to a different event loop', or hang"
        ),
        "make a client for each loop, or run all of it in one loop",
    ),
    Kind.NO_TIMEOUT: (
        "requests have no time-out of your own",
        (
            "a silent model keeps its caller waiting: for half an hour with the "
            "library's, which holds for each read and each attempt, for ever with none"
        ),
        "AsyncOpenAI(timeout=60, max_retries=1), or timeout= at the request",
    ),
    Kind.TIMEOUT_REFUSED: (
        "a time-out made by httpx was given to an HTTP client of httpx2",
        "every request fails with a TypeError",
        "AsyncOpenAI(timeout=60), or openai.Timeout in place of httpx.Timeout",
    ),
}


def checks(directory: Path, pid: int | None = None) -> Iterator[Finding]:
    """Yield what was noticed, a finding for each place.

    Args:
        directory: The state directory.
        pid: Of this process alone.
    """
    found = False
    try:
        names = sorted(os.listdir(directory / INSTANCES))  # noqa: PTH208 - it tells an error, which globbing does not on every Python
    except FileNotFoundError:
        names = []
    except OSError as error:
        yield warning(
            "application",
            f"what was noticed cannot be listed: {error.strerror}",
            f"look at the rights of {directory / INSTANCES}, and at its disk",
        )
        return
    if pid is not None and all(pid_of(name) != pid for name in names):
        yield warning(
            "application",
            f"no process {pid} keeps files in {directory}: nothing is known of it",
            "the number of a process in which agenttrace is configured, with its state "
            "directory (--state-dir, AGENTTRACE_STATE_DIR)",
        )
        return
    for name in names:
        process = pid_of(name)
        if not name.endswith(NOTICED_SUFFIX) or pid not in {None, process}:
            continue
        try:
            path = directory / INSTANCES / name
            notices = from_json(path.read_text("utf-8", "replace"))
        except OSError:  # gone meanwhile, or another user's
            continue
        for notice in notices:
            finding = _finding(notice, process)
            if finding is not None:
                found = True
                yield finding
    if not found:
        yield ok("application", "nothing was noticed of what runs")


def _finding(notice: Notice, process: int | None) -> Finding | None:
    known = _MEANINGS.get(Kind(notice.kind)) if notice.kind in set(Kind) else None
    if known is None:  # of a later version
        return None
    what, why, remedy = known
    where = f" at {notice.place}" if notice.place else ""
    who = f" in {notice.span}" if notice.span else ""
    detail = f" ({notice.detail})" if notice.detail else ""
    often = f", {notice.times} times" if notice.times > 1 else ""
    return warning(
        notice.kind.replace("_", " "),
        f"process {process}: {what}{where}{who}{detail}{often}: {why}",
        remedy,
    )
