"""What is in the catalogue: small programs that hang, and small ones that do not.

A program is a function, asynchronous or not, that is run in a process of its own
(`program`).  It declares what is to be heard of it: of one that hangs the verdict, its
cause and its place, of a healthy one that there is none.  The line in which a program
hangs ends in `# here`, and stands in the function that is to be named.

The programs are in `hanging` and `healthy`; `running` starts them and `judging` holds
what has come against what they declare.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import threading
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Body = Any
"""A function or a coroutine function without arguments."""

LIMIT: Final = 3.0
"""Seconds of silence: a hundredth of what is usual."""
STEP: Final = 1.0
"""Seconds of healthy silence, a third of the limit: a chunk each 20 s, where 60 s are
allowed, a thought of 40 s, where 120 s are, and a word from a tool each 100 s."""
MODULES: Final = (
    *("hanging.requests", "hanging.tasks", "hanging.threads", "hanging.loops"),
    *("healthy.models", "healthy.steps", "healthy.machines"),
)
_MARK: Final = "# here"


class Loop(StrEnum):
    """On what an asynchronous program runs."""

    NONE = "none"
    ASYNCIO = "asyncio"
    UVLOOP = "uvloop"
    EAGER = "eager"
    """asyncio with eager tasks, which there are from Python 3.12 on."""


def _loops() -> tuple[Loop, ...]:
    eager = (Loop.EAGER,) if sys.version_info >= (3, 12) else ()
    uvloop = () if sys.platform == "win32" else (Loop.UVLOOP,)
    return (Loop.ASYNCIO, *uvloop, *eager)


LOOPS: Final = _loops()


class Place(NamedTuple):
    """A line of a program."""

    file: str
    line: int
    function: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be heard of a hang.

    Args:
        span: The name of the span to be judged.
        cause: `agenttrace.hang.cause`.
        outcome: `stuck` or `timed_out`.
        why: A part of the explanation.
        kinds: Who waits for whom, as `task` or `thread`; None where it matters not.
        also: Other spans that may have been judged by then, as they hang as well.
        certain: What `agenttrace.hang.certain` is.
        within: Seconds from the limit until the receiver has it.
    """

    span: str
    cause: str
    outcome: str = "stuck"
    why: str = ""
    kinds: tuple[str, ...] | None = None
    also: frozenset[str] = frozenset()
    certain: bool = True
    within: float = 10.0


@dataclass(frozen=True, slots=True)
class Blocked:
    """What is to be heard of a loop that was blocked, and goes on.

    Args:
        span: The name of the span that is to blame.
        seconds: The shortest time that is to be told.
    """

    span: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Healthy:
    """What is to be heard of a healthy program: spans that ended well, and no more.

    Args:
        spans: How many at least.
        is_alone: Whether it has all of the machine busy, and runs with no other.
    """

    spans: int
    is_alone: bool = False


Expected = Verdict | Blocked | Healthy


@dataclass(frozen=True, slots=True)
class Workload:
    """One program of the catalogue.

    Args:
        module: Where it is, below `tests.hangs`.
        body: The function.
        expected: What is to be heard of it.
        loops: On what it is run.
        settings: Further arguments of `configure()`.
    """

    module: str
    body: Body
    expected: Expected
    loops: tuple[Loop, ...]
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def name(self) -> str:
        """The name of its function."""
        return str(self.body.__name__)

    @property
    def title(self) -> str:
        """What it is, as its docstring has it."""
        return str(self.body.__doc__).partition("\n")[0].rstrip(".")

    @property
    def is_healthy(self) -> bool:
        """Whether nothing is to be said of it."""
        return isinstance(self.expected, Healthy)

    @property
    def is_alone(self) -> bool:
        """Whether it is run with no other."""
        return isinstance(self.expected, Healthy) and self.expected.is_alone


_found: dict[str, Workload] = {}


def hang(
    span: str,
    cause: str,
    *,
    settings: Mapping[str, Any] | None = None,
    **more: Any,  # noqa: ANN401 - each is of its own kind
) -> Callable[[Body], Body]:
    """Put a program that hangs into the catalogue.

    Args:
        span: See `Verdict`, as for *cause* and *more*.
        cause: See there.
        settings: Further arguments of `configure()`.
        more: See there.
    """
    return _add(Verdict(span, cause, **more), settings)


def block(span: str, seconds: float) -> Callable[[Body], Body]:
    """Put a program that blocks its loop for a while into the catalogue.

    Args:
        span: See `Blocked`.
        seconds: See there.
    """
    return _add(Blocked(span, seconds), None)


def healthy(
    spans: int, *, is_alone: bool = False, settings: Mapping[str, Any] | None = None
) -> Callable[[Body], Body]:
    """Put a healthy program into the catalogue.

    Args:
        spans: See `Healthy`.
        is_alone: See there.
        settings: Further arguments of `configure()`.
    """
    return _add(Healthy(spans, is_alone=is_alone), settings)


def _add(
    expected: Expected, settings: Mapping[str, Any] | None
) -> Callable[[Body], Body]:
    def add(body: Body) -> Body:
        loops: tuple[Loop, ...] = (Loop.NONE,)
        if inspect.iscoroutinefunction(body):
            # What keeps a loop to itself is the monitor's to tell, and uvloop shows
            # less of itself than it takes to tell the time.
            loops = (Loop.ASYNCIO,) if isinstance(expected, Blocked) else LOOPS
        module = body.__module__.removeprefix("tests.hangs.")
        made = Workload(module, body, expected, loops, settings or {})
        assert made.name not in _found, f"there are two {made.name}"
        _found[made.name] = made
        return body

    return add


def everything() -> list[Workload]:
    """Return all of the catalogue."""
    for module in MODULES:
        importlib.import_module(f"tests.hangs.{module}")
    return list(_found.values())


def one(module: str, name: str) -> Workload:
    """Return the program *name* of *module*, with no other module imported."""
    importlib.import_module(f"tests.hangs.{module}")
    return _found[name]


_parsing = threading.Lock()
"""Python 3.11 counts the depth of a tree for all threads that make one together."""


def place_of(workload: Workload) -> Place:
    """Return the line that is to be named of *workload*.

    Raises:
        ValueError: Not exactly one of its lines is marked.
    """
    lines, first = inspect.getsourcelines(workload.body)
    marked = [at for at, line in enumerate(lines) if line.rstrip().endswith(_MARK)]
    if len(marked) != 1:
        message = f"{workload.name} has {len(marked)} lines that end in {_MARK!r}"
        raise ValueError(message)
    line = first + marked[0]
    file = Path(str(inspect.getsourcefile(workload.body)))
    with _parsing:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    within = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.lineno <= line <= (node.end_lineno or 0)
    ]
    innermost = max(within, key=lambda node: node.lineno)
    return Place(str(file), line, innermost.name)
