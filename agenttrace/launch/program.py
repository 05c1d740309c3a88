"""What `agenttrace run` hands over to: which program, and in which environment.

The program replaces this process, so signals, the terminal, stdin and the exit code are
its own; on Windows, where none can, this one waits for it and ends with its code.  What
it finds is what it would find without us, but for one more folder on `PYTHONPATH`,
which goes out of the way by itself (`startup`), and the variables that options stand
for.

It owns what is wrong with a program before it runs; what happens in it is `launch`'s.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import sys
from typing import TYPE_CHECKING, Final, Never

from agenttrace.errors import AgenttraceError
from agenttrace.launch import interpreted
from agenttrace.records import NamedTuple
from agenttrace.settings import PROGRAM_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STARTUP: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "startup")  # noqa: PTH100, PTH118, PTH120 - `pathlib` is slow
"""The folder with our `sitecustomize`."""
NOT_EXECUTABLE: Final = 126
"""Exit code of a program that is there and cannot be run, as shells have it."""
NOT_FOUND: Final = 127
"""Exit code of a program that is not there, as shells have it."""
_PATH: Final = "PYTHONPATH"
_SOURCES: Final = (".py", ".pyz", ".pyw")
_DEAF: Final = {
    "E": "ignores PYTHONPATH",
    "I": "ignores PYTHONPATH",
    "S": "does not load sitecustomize",
}
"""Options of the interpreter with which it never comes to our folder."""
_HEAD: Final = 256
"""Bytes of a file that its first line is looked for in, as kernels do."""
_IGNORED: Final = ("SIGPIPE", "SIGXFZ", "SIGXFSZ")


class CannotRunError(AgenttraceError):
    """There is no such program, or it cannot be run.

    Args:
        message: What is wrong, and the remedy.
        code: The exit code for it.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Program(NamedTuple):
    """What is to be run.

    Args:
        path: The executable.
        words: Its arguments, the name it is called by included.
        name: What people know it by.
    """

    path: str
    words: tuple[str, ...]
    name: str


def module(name: str, arguments: Sequence[str]) -> Program:
    """Return the program that `python -m name` is.

    Raises:
        CannotRunError: There is no such module.
    """
    top = name.partition(".")[0]
    # Where that looks first, before what is installed.
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - `sys.path` has texts
    try:
        spec = importlib.util.find_spec(top) if top else None
    except (ImportError, ValueError):
        spec = None
    finally:
        del sys.path[0]
    if spec is None:
        message = (
            f"no module {top!r} in {os.getcwd()} or installed for {sys.executable}; "  # noqa: PTH109 - the same
            f"change the directory, or install it there"
        )
        raise CannotRunError(message, NOT_FOUND)
    words = (sys.executable, "-m", name, *arguments)
    return Program(sys.executable, words, name)


def program(name: str, arguments: Sequence[str]) -> Program:
    """Return the program *name*: Python source, or what a shell would find.

    Raises:
        CannotRunError: There is none, or it cannot be run.
    """
    stem = os.path.basename(name.rstrip(os.sep))  # noqa: PTH119 - the same
    if name.endswith(_SOURCES) and os.path.isfile(name):  # noqa: PTH113 - the same
        words = (sys.executable, name, *arguments)
        return Program(sys.executable, words, os.path.splitext(stem)[0])  # noqa: PTH122 - the same
    found = shutil.which(name)
    if found is not None:
        return Program(found, (name, *arguments), stem)
    if os.path.isdir(name):  # noqa: PTH112 - the same
        if os.path.isfile(os.path.join(name, "__main__.py")):  # noqa: PTH113, PTH118 - the same
            return Program(sys.executable, (sys.executable, name, *arguments), stem)
        message = f"{name!r} is a directory without a __main__.py; name the program"
        raise CannotRunError(message, NOT_EXECUTABLE)
    if os.path.exists(name):  # noqa: PTH110 - the same
        message = (
            f"{name!r} is neither Python source (.py) nor executable; "
            f"chmod +x it, or put its interpreter before it"
        )
        raise CannotRunError(message, NOT_EXECUTABLE)
    message = (
        f"no program {name!r} on PATH, and no such file; activate its environment, "
        f"give its path, or run a module with -m"
    )
    raise CannotRunError(message, NOT_FOUND)


def environment(environ: Mapping[str, str], name: str) -> dict[str, str]:
    """Return *environ* for the program *name*: with our folder first on its path.

    Raises:
        CannotRunError: The folder's own name has the character that separates them.
    """
    if os.pathsep in STARTUP:
        message = f"agenttrace is installed in {STARTUP!r}, which {_PATH} cannot hold"
        raise CannotRunError(message, NOT_EXECUTABLE)
    theirs = environ.get(_PATH, "")
    rest = [each for each in theirs.split(os.pathsep) if each != STARTUP]
    path = os.pathsep.join([STARTUP, *rest]) if theirs else STARTUP
    return {**environ, _PATH: path, PROGRAM_VARIABLE: name}


def deafness(chosen: Program) -> str | None:
    """Return why *chosen* will not be traced, None where nothing is known of that.

    It is a Python with an option by which it never comes to our folder, be it in the
    first line of a script.
    """
    words = chosen.words
    if not _is_python(words[0]):
        words = _first_line(chosen.path)
        while words and not _is_python(words[0]):  # /usr/bin/env -S
            words = words[1:]
    for letter in interpreted(words[1:])[0]:
        if letter in _DEAF:
            return f"it will not be traced: Python with -{letter} {_DEAF[letter]}"
    return None


def hand_over(chosen: Program, environ: Mapping[str, str]) -> Never:
    """Let *chosen* take the place of this process; on Windows, stand by until its end.

    Raises:
        CannotRunError: The system refuses it.
    """
    # Python ignores them, and a program would inherit that.
    numbers = [getattr(signal, name) for name in _IGNORED if hasattr(signal, name)]
    before = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    sys.stderr.flush()
    try:
        if sys.platform == "win32":  # its `execve` ends the process, and nobody waits
            stand_by(chosen, environ)
        os.execve(chosen.path, chosen.words, environ)  # noqa: S606 - the purpose of the command
    except OSError as error:
        for number, handler in before.items():
            signal.signal(number, handler)
        message = f"{chosen.path!r} cannot be run: {error.strerror}"
        if not isinstance(error, FileNotFoundError | PermissionError):
            message += "; put its interpreter before it"
        elif isinstance(error, FileNotFoundError):
            message += "; the interpreter in its first line is not there"
        raise CannotRunError(message, NOT_EXECUTABLE) from None


def stand_by(chosen: Program, environ: Mapping[str, str]) -> Never:
    """Run *chosen* to its end, and end with its code.

    Raises:
        OSError: The system refuses it.
    """
    import subprocess  # noqa: PLC0415 - slow, and for one system alone

    child = subprocess.Popen(chosen.words, executable=chosen.path, env=environ)  # noqa: S603 - the purpose of the command
    # A Ctrl-C reaches both, and what it means is the program's business.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(child.wait())


def _is_python(word: str) -> bool:
    stem = os.path.basename(word)  # noqa: PTH119 - the same
    return stem.startswith(("python", "pypy"))


def _first_line(path: str) -> tuple[str, ...]:
    """Return the words of the first line of a script, none where it is no script."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - the same
            head = file.read(_HEAD)
    except OSError:
        return ()
    if not head.startswith(b"#!"):
        return ()
    return tuple(os.fsdecode(head[2:].partition(b"\n")[0]).split())
