"""A line of a stack as a report tells it: where it stands, whose code it is, its text.

Whose code it is decides what a reader wants to see.  What the application wrote is
always told, a library's code too; the interpreter's own machinery only where a stack
ends in it, and agenttrace's own never.

Of a frame its code and its line are read, and no more: what its variables hold is the
application's.  Source files are read here as well, by a thread that may take too long.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
from enum import IntEnum
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import CodeType

MAX_FRAMES: Final = 40
"""How many frames of one stack are told: its outermost and its innermost."""
_MAX_PATH: Final = 300
_MAX_LINE: Final = 160
_MAX_SOURCE: Final = 2_000_000
"""Bytes.  A longer file is not read for a line of it."""
_MAX_FILES: Final = 16
_PATIENCE: Final = 0.1
"""Seconds that source files may take together."""


class Whose(IntEnum):
    """Who wrote a piece of code."""

    OURS = 0
    INTERPRETER = 1
    PLUMBING = 2
    """A library that others are built on: it is where code waits, and not why."""
    LIBRARY = 3
    APPLICATION = 4


class Frame:
    """One line of a stack.

    Attributes:
        function: The function's qualified name.
        file: Its file, as the interpreter knows it.
        line: The line in it, 0 where it is not known.
        source: The text of that line, empty where it is not at hand.
        whose: Who wrote it.
    """

    __slots__ = ("file", "function", "line", "source", "whose")

    def __init__(self, code: CodeType, line: int | None) -> None:
        self.function = code.co_qualname[:_MAX_PATH]
        self.file = code.co_filename[-_MAX_PATH:]
        self.line = line or 0
        self.source = ""
        self.whose = whose(code.co_filename)

    def __repr__(self) -> str:
        return f"<Frame {self}>"

    def __str__(self) -> str:
        return f"{self.function} ({short(self.file)}:{self.line})"


_PACKAGES: Final = ("site-packages", "dist-packages")
_OURS: Final = str(Path(__file__).parent.parent) + os.sep
_DEMO: Final = _OURS + "demo" + os.sep
"""The demo is an application, though it comes with agenttrace."""
_STDLIB: Final = str(Path(os.__file__).parent) + os.sep
_PLUMBING: Final = frozenset(
    {
        *("_pytest", "agents", "aiohttp", "anyio", "asgiref", "asyncpg", "django"),
        *("fastapi", "grpc", "gunicorn", "h11", "h2", "httpcore", "httpcore2", "httpx"),
        *("httpx2", "openai", "opentelemetry", "pluggy", "psycopg", "pytest"),
        *("pytest_asyncio", "redis", "requests", "sniffio", "starlette", "trio"),
        *("urllib3", "uvicorn", "uvloop", "websockets", "wrapt", "xdist", "execnet"),
    }
)


@lru_cache(maxsize=2048)
def whose(file: str) -> Whose:
    """Return who wrote the code in *file*."""
    if file.startswith("<frozen"):
        return Whose.INTERPRETER
    package = package_of(file)
    if file.startswith(_OURS) and not file.startswith(_DEMO):
        return Whose.OURS
    if package:
        return Whose.PLUMBING if package in _PLUMBING else Whose.LIBRARY
    if file.startswith(_STDLIB):
        return Whose.INTERPRETER
    return Whose.APPLICATION


@lru_cache(maxsize=2048)
def package_of(file: str) -> str:
    """Return the top-level package of an installed *file*, empty where it is none."""
    for folder in _PACKAGES:
        _, found, rest = file.rpartition(f"{os.sep}{folder}{os.sep}")
        if found:
            return rest.split(os.sep, 1)[0].removesuffix(".py")
    # Compiled by Cython, which tells files as they were called where it ran.
    return file.split("/", 1)[0] if file.endswith(".pyx") else ""


def short(file: str) -> str:
    """Return *file* without what is before its package or its last two folders."""
    for folder in _PACKAGES:
        _, found, rest = file.rpartition(f"{os.sep}{folder}{os.sep}")
        if found:
            return rest
    if file.startswith(_STDLIB):
        return file[len(_STDLIB) :]
    return str(Path(*Path(file).parts[-3:]))


Line = tuple["CodeType", "int | None"]
"""A frame as it is found: its code and its line."""


def told(lines: list[Line]) -> list[Frame]:
    """Return those of *lines* that a reader wants to see, outermost first."""
    owners = [whose(code.co_filename) for code, _ in lines]
    # What comes after the last line that somebody wrote for a purpose is where it is.
    tail = len(lines)
    while tail and owners[tail - 1] <= Whose.INTERPRETER:
        tail -= 1
    kept = [
        line
        for number, (line, owner) in enumerate(zip(lines, owners, strict=True))
        if owner > Whose.INTERPRETER or (owner is not Whose.OURS and number >= tail)
    ]
    if len(kept) > MAX_FRAMES:
        half = MAX_FRAMES // 2
        kept = kept[:half] + kept[-half:]
    return [Frame(code, line) for code, line in kept]


def innermost(frames: Iterable[Frame]) -> Frame | None:
    """Return the innermost frame of whoever is nearest to the application."""
    best: Frame | None = None
    for frame in frames:
        if best is None or frame.whose >= best.whose:
            best = frame
    return best


_stuck: list[threading.Thread] = []
"""The thread that has been reading source files for too long, if there is one."""


def read_sources(frames: list[Frame]) -> None:
    """Give *frames* the text of their lines, as far as it is at hand soon.

    A file on a disk that does not answer is read by a thread that nobody waits for,
    and until it comes back no other file is.
    """
    wanted: dict[str, set[int]] = {}
    for frame in frames:
        if frame.line > 0 and (frame.file in wanted or len(wanted) < _MAX_FILES):
            wanted.setdefault(frame.file, set()).add(frame.line)
    found: dict[tuple[str, int], str] = {}
    missing = {
        file: lines for file, lines in wanted.items() if not _cached(file, lines, found)
    }
    if missing and not any(thread.is_alive() for thread in _stuck):
        _stuck.clear()
        reader = threading.Thread(
            target=_read_files,
            args=(missing, found),
            name="agenttrace-sources",
            daemon=True,
        )
        _stuck.append(reader)
        try:
            reader.start()
            reader.join(_PATIENCE)
        except RuntimeError:  # no more threads, or the interpreter is about to end
            _stuck.clear()
    for frame in frames:
        frame.source = found.get((frame.file, frame.line), "")


def _cached(file: str, lines: set[int], found: dict[tuple[str, int], str]) -> bool:
    """Take *lines* from what `linecache` has read already; False if it has not.

    Only of what somebody wrote as code: of a file, which has a time, or of a cell of a
    notebook.  What else stands there was made by a program, and may quote what it was
    made from: a template, an answer of a model, a table.
    """
    linecache: Any = sys.modules.get("linecache")
    try:
        _, written_at, texts, _ = linecache.cache[file]
        if written_at is None and not _is_of_a_notebook(file):
            return True
        for number in lines:
            if number <= len(texts):
                found[file, number] = str(texts[number - 1]).strip()[:_MAX_LINE]
    except (AttributeError, KeyError, TypeError, ValueError):
        return False  # nobody has read it, or even imported the module
    return True


def _is_of_a_notebook(file: str) -> bool:
    """Return whether *file* is what IPython calls a cell that was typed in.

    `<ipython-input-3-0af3>` in a terminal, `/tmp/ipykernel_17/123.py` in a notebook.
    """
    folder = os.path.basename(os.path.dirname(file))  # noqa: PTH119, PTH120 - not worth an object
    return file.startswith("<ipython-input-") or folder.startswith("ipykernel_")


def _read_files(
    missing: dict[str, set[int]], found: dict[tuple[str, int], str]
) -> None:
    for file, lines in missing.items():
        try:
            texts = _read(file)
        except (OSError, ValueError):
            continue
        for number in lines:
            if number <= len(texts):
                text = texts[number - 1].decode("utf-8", "replace")
                found[file, number] = text.strip()[:_MAX_LINE]


def _read(file: str) -> list[bytes]:
    """Return the lines of *file* if it is a regular file of a usual size."""
    status = os.stat(file)  # noqa: PTH116 - not worth an object
    if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_SOURCE:
        return []
    with open(file, "rb") as stream:  # noqa: PTH123 - not worth an object
        return stream.read(_MAX_SOURCE).splitlines()
