"""Where spans are started: the line of the application that did it, and in what shape.

Walks the stack at every start, which costs microseconds, so it listens for tests alone
(`ORIGINS.noted()`).  The line is the innermost one that belongs neither to agenttrace
or OpenTelemetry nor to an installed library.  Where an event loop starts the span
there is no such line, and the function that it runs has to do.

It owns places and shapes; what is made of them in a message is `leaks`'s business.
"""

from __future__ import annotations

import inspect
import linecache
import os
import sys
import sysconfig
import types
from contextlib import contextmanager
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from agenttrace.registry import OpenSpan, OpenSpans

_OURS: Final = ("agenttrace", "opentelemetry", "contextlib", "wrapt")
_OUTERMOST: Final = (
    "_pytest",
    "asyncio.base_events",
    "asyncio.events",
    "asyncio.runners",
    "pluggy",
    "trio._core",
    "unittest.case",
    "uvloop",
)
"""Modules that run what is tested: what called them is not what started a span."""
_INSTALLED: Final = (
    "<frozen",
    *map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib", "scripts")),
)
_CODES: Final[Mapping[type, str]] = {
    types.AsyncGeneratorType: "ag_code",
    types.CoroutineType: "cr_code",
    types.FunctionType: "__code__",
    types.GeneratorType: "gi_code",
}
_MOST_DECORATORS: Final = 50
"""Lines above a `def` that are read."""
_HERE: Final = str(Path(__file__).parents[1]) + os.sep
_LIBRARIES: Final = frozenset({"site-packages", "dist-packages"})


class Shape(Enum):
    """What has a span, and therefore what ends it."""

    GENERATOR = "generator"
    ASYNC_GENERATOR = "async generator"
    COROUTINE = "coroutine"
    CALL = "call"
    BLOCK = "block"
    BACKGROUND = "background"
    AGENTS_TRACE = "agents trace"
    BY_HAND = "by hand"


_SHAPES: Final[Mapping[tuple[str, str], Shape]] = {
    ("agenttrace.boundary.generators", "drive"): Shape.GENERATOR,
    ("agenttrace.boundary.generators", "drive_async"): Shape.ASYNC_GENERATOR,
    ("agenttrace.boundary.call", "_awaited"): Shape.COROUTINE,
    ("agenttrace.boundary.call", "run"): Shape.CALL,
    ("agenttrace.api.verbs", "background"): Shape.BACKGROUND,
    ("agenttrace.instrumentation.openai_agents.mirrors", "follow_trace"): (
        Shape.AGENTS_TRACE
    ),
    ("agenttrace.instrumentation.openai_agents.mirrors", "follow_span"): (
        Shape.AGENTS_TRACE
    ),
    ("agenttrace.spans.block", "__enter__"): Shape.BLOCK,
    ("agenttrace.tracing", "__enter__"): Shape.BLOCK,
    ("agenttrace.spans.tracer", "start_span"): Shape.BY_HAND,
    ("opentelemetry.sdk.trace", "start_span"): Shape.BY_HAND,
    ("opentelemetry.sdk.trace", "start_as_current_span"): Shape.BLOCK,
}
"""By module and function: the outermost of these that is ours decides."""


class Origin(NamedTuple):
    """Where a span was started.

    Attributes:
        place: `file:line`, or None where no code of an application or library did it.
        is_definition: The line is that of the function which was started: nothing but
            an event loop or a thread stands above it.
        shape: What has the span, None where that is not known.
    """

    place: str | None
    is_definition: bool = False
    shape: Shape | None = None


class Origins:
    """Notes of every span that starts where that was (`registry.Listener`)."""

    def __init__(self) -> None:
        self._open: dict[OpenSpan, Origin] = {}
        self._users = 0

    @contextmanager
    def noted(self, spans: OpenSpans) -> Generator[None]:
        """Listen to *spans* meanwhile, once, however many want it."""
        self._users += 1
        if self._users == 1:
            # Nobody has told of those that ended since it last listened.
            for span in [*self._open]:
                if spans.find(span.span_id) is not span:
                    self._open.pop(span, None)
            spans.add_listener(self)
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                spans.remove_listener(self)

    def of(self, span: OpenSpan) -> Origin:
        """Return where *span*, which is open, was started."""
        return self._open.get(span) or Origin(span.origin)

    def started(self, span: OpenSpan) -> None:
        """Note where *span* was started."""
        self._open[span] = origin = _origin_of(inspect.currentframe())
        span.origin = origin.place

    def ended(self, span: OpenSpan) -> None:
        """Forget *span*."""
        self._open.pop(span, None)


ORIGINS: Final = Origins()


def _origin_of(frame: types.FrameType | None) -> Origin:
    """Return the origin of a span that is started in *frame*."""
    shape: Shape | None = None
    ours: list[types.FrameType] = []
    while frame is not None and _module_is(frame, _OURS):
        shape = _SHAPES.get((_module_of(frame), frame.f_code.co_name)) or shape
        ours.append(frame)
        frame = frame.f_back
    library = frame
    while frame is not None and not _module_is(frame, _OUTERMOST):
        file = frame.f_code.co_filename
        if _is_application(file) and not _module_is(frame, _OURS):
            return Origin(f"{file}:{frame.f_lineno}", shape=shape)
        frame = frame.f_back
    for each in ours:
        driven = _driven_by(each)
        if driven is not None:
            return Origin(_definition(driven), is_definition=True, shape=shape)
    if library is None:
        return Origin(None, shape=shape)
    return Origin(f"{library.f_code.co_filename}:{library.f_lineno}", shape=shape)


def _driven_by(frame: types.FrameType) -> types.CodeType | None:
    """Return the application's code that a function of ours has in hand."""
    if not frame.f_code.co_flags & inspect.CO_OPTIMIZED:
        return None  # of a module or class the locals are no copy
    held = frame.f_locals
    codes = [_code_of(value) for value in held.values()]
    if sys.version_info < (3, 13):
        # Up to then the frame keeps this copy for as long as it runs, and with it all
        # that the application has let go of meanwhile.
        held.clear()
    return next((code for code in codes if code and _is_traced(code)), None)


def _is_traced(code: types.CodeType) -> bool:
    # A checkout of ours is no installation either.
    return _is_application(code.co_filename) and not code.co_filename.startswith(_HERE)


def _definition(code: types.CodeType) -> str:
    """Return where the `def` of *code* stands, beneath its decorators."""
    file, line = code.co_filename, code.co_firstlineno
    decorated = linecache.getlines(file)[line - 1 : line - 1 + _MOST_DECORATORS]
    for further, text in enumerate(decorated):
        if text.lstrip().startswith(("def ", "async def ")):
            return f"{file}:{line + further}"
    return f"{file}:{line}"


def _code_of(value: Any) -> types.CodeType | None:  # noqa: ANN401 - whatever a frame holds
    if issubclass(_class_of(value), list) and value:
        # The boundary keeps in a list what it is going to await.
        value = value[0]
    if _class_of(value) is types.MethodType:
        value = value.__func__
    code = getattr(value, _CODES.get(_class_of(value), ""), None)
    return code if isinstance(code, types.CodeType) else None


def _class_of(value: object) -> type[object]:
    # Not by `isinstance`: it asks the value, and a proxy may do anything then.
    return type(value)


def _module_of(frame: types.FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _module_is(frame: types.FrameType, packages: tuple[str, ...]) -> bool:
    module = _module_of(frame)
    return any(module == name or module.startswith(f"{name}.") for name in packages)


@lru_cache(maxsize=4096)
def _is_application(file: str) -> bool:
    """Return whether *file* is part of no installation, of a library or of Python."""
    return not file.startswith(_INSTALLED) and _LIBRARIES.isdisjoint(Path(file).parts)
