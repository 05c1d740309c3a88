"""Tracing without a change of code: what runs in a process before its application.

`agenttrace run` puts the folder `startup` on the `PYTHONPATH` of a program, and with it
of every Python that the program starts; the `sitecustomize` in there calls `begin`.
OpenTelemetry's own way in, `opentelemetry-instrument`, comes here through `distro`.

This file owns what such a process does first.  How a program is found and what its
environment becomes is `program`'s business, and whose provider is the global one
`giving_way`'s.  Nothing here may raise into an application, or import for one that is
not to be traced.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from agenttrace.settings import is_disabled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NO_INSTRUMENT_VARIABLE: Final = "AGENTTRACE_NO_INSTRUMENT"
"""Distributions that are left alone, with commas."""
_WITH_VALUE: Final = "WX"
_LAST: Final = "cm"
"""Options of the interpreter that have a value, and those that end its options."""
_TRACKER: Final = "from multiprocessing.resource_tracker import"
_OURS: Final = ("agenttrace", "agenttrace.exe")


def begin() -> None:
    """Configure and instrument, as the environment says.

    What goes wrong is told in one line on stderr, and the application goes on.
    """
    if is_disabled() or is_helper(sys.orig_argv):
        return
    try:
        _begin()
    except Exception as error:  # noqa: BLE001 - nothing may keep the application from its start
        from agenttrace.errors import (  # noqa: PLC0415 - where something is wrong
            AgenttraceError,
        )

        reason = " ".join(str(error).split())
        if isinstance(error, ImportError):
            reason += f"; pip install agenttrace-otel for {sys.executable}"
        elif not isinstance(error, AgenttraceError):
            reason = f"{type(error).__name__}: {reason}"
        tell(f"this process is not traced: {reason}")


def _begin() -> None:
    from agenttrace.errors import (  # noqa: PLC0415 - see the header
        UnknownInstrumentationError,
    )
    from agenttrace.instrumentation import (  # noqa: PLC0415 - see the header
        instrument,
        uninstrument,
    )
    from agenttrace.launch.giving_way import give_way  # noqa: PLC0415 - the same
    from agenttrace.runtime import configure  # noqa: PLC0415 - the same

    give_way(configure())
    instrument()
    unknown: list[str] = []
    for name in named(os.environ):
        try:
            uninstrument(name)
        except UnknownInstrumentationError:
            unknown.append(repr(name))
    if unknown:
        none = f"there is no instrumentation for {', '.join(unknown)}"
        tell(f"{NO_INSTRUMENT_VARIABLE}: {none}; the other names hold")


def named(environ: Mapping[str, str]) -> list[str]:
    """Return the distributions that *environ* says are to be left alone."""
    words = environ.get(NO_INSTRUMENT_VARIABLE, "").split(",")
    return [word.strip() for word in words if word.strip()]


def is_helper(command: Sequence[str]) -> bool:
    """Return whether *command* is of a process in which nothing is there to trace.

    The one that `multiprocessing` has for its own bookkeeping lives as long as the
    application; and a command of ours, started by it, would trace itself.

    >>> is_helper(["python", "-c", "from multiprocessing.resource_tracker import main"])
    True
    >>> is_helper(["python", "-m", "agenttrace.cli", "tree"])
    True
    >>> is_helper(["python", "-X", "dev", "-Im", "agenttrace.cli", "tree"])
    True
    >>> is_helper(["python", "app.py", "agenttrace"])
    False
    """
    _, words = interpreted(command[1:])
    if words[:2] == ["-m", "agenttrace.cli"]:
        return True
    if words[:1] == ["-c"]:
        return any(word.startswith(_TRACKER) for word in words[1:2])
    return any(os.path.basename(word) in _OURS for word in words[:1])  # noqa: PTH119 - `pathlib` is slow


def interpreted(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return what an interpreter makes of the *words* that it is called with.

    These are its one-letter options, and what is left: `-c` or `-m` and what comes
    after it, or a script.

    >>> interpreted(["-IX", "dev", "-W", "error", "app.py", "-E"])
    (['I'], ['app.py', '-E'])
    >>> interpreted(["-Smapp", "-E"])
    (['S'], ['-m', 'app', '-E'])
    """
    letters: list[str] = []
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        if word.startswith("--"):
            del rest[: word == "--check-hash-based-pycs"]
            continue
        for at, letter in enumerate(word[1:], start=2):
            if letter in _LAST:
                return letters, [f"-{letter}", *filter(None, [word[at:]]), *rest]
            if letter in _WITH_VALUE:
                del rest[: at == len(word)]
                break
            letters.append(letter)
    return letters, rest


def tell(what: str) -> None:
    """Say *what* on stderr, if there is one."""
    if sys.stderr is not None:  # pyright: ignore[reportUnnecessaryComparison] - of a process without a console it is
        sys.stderr.write(f"agenttrace: {what}\n")
