"""Which task a span belongs to, found when it is asked for and noted by nobody before.

A task keeps its context, and the context what is current in it.  A task that was
started inside a span has a copy of that context, so a span stands in many.  It belongs
to the one that entered it: the token with which a scope ends refers to the context in
which it began.  What is activated step by step has no such scope; then the task is in
the very frame that makes the steps.

It owns the search among tasks, spans and contexts.  What a task does is `chains`'.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import weakref
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context.context import Context

from agenttrace import _otel
from agenttrace.context import scope
from agenttrace.context.scope import SafeRuntimeContext, Scope

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Task = asyncio.Task[Any]

_DEPTH: Final = 200
"""How many scopes, one in the other, are looked at; also of spans."""
_TRIES: Final = 100


class Standing(IntEnum):
    """What a span is to a context."""

    NONE = 0
    INHERITED = 1
    """It is current there, or an ancestor of what is."""
    ENTERED = 2
    """It became current there."""


def all_tasks() -> list[Task]:
    """Return every task of every loop that is not done."""
    found: dict[int, Task] = {}
    for task in _scheduled():
        if not task.done():
            found[id(task)] = task
    return list(found.values())


def _scheduled() -> Iterator[Task]:
    module: Any = asyncio.tasks
    # The set in a WeakSet: to copy it is one step, and no other thread comes between.
    # The first name is that of 3.11.
    for name in ("_all_tasks", "_scheduled_tasks"):
        references: Any = getattr(getattr(module, name, None), "data", ())
        for reference in list(references):
            task = reference()
            if task is not None:
                yield task
    # From 3.12 on.  Those that have not yet had to wait.
    yield from tuple(getattr(module, "_eager_tasks", ()))
    if sys.version_info >= (3, 14):
        for loop in _loops():
            yield from _tasks_of(loop)


def _tasks_of(loop: asyncio.AbstractEventLoop) -> list[Task]:
    for _ in range(_TRIES):
        try:
            return list(asyncio.all_tasks(loop))
        except RuntimeError:  # a set that another thread changes meanwhile
            continue
    return []


def _loops() -> list[asyncio.AbstractEventLoop]:
    """Return the loops that run, found by the frames they run in."""
    from agenttrace.watchdog import threads  # noqa: PLC0415 - for 3.14 alone

    found: list[asyncio.AbstractEventLoop] = []
    for top in threads.stacks().values():
        for frame in threads.outwards(top):
            loop = threads.loop_of(frame)
            if loop is not None and loop not in found:
                found.append(loop)
    return found


def context_of(task: Task) -> contextvars.Context | None:
    """Return the context that *task* runs in."""
    get: Any = getattr(task, "get_context", None)  # from 3.12 on
    if get is not None:
        context: contextvars.Context | None = get()
        return context
    # 3.11 has no method for it; a task in C has nothing but this.
    for each in gc.get_referents(task):
        if type(each) is contextvars.Context:
            return each
    held = getattr(task, "_context", None)
    return held if type(held) is contextvars.Context else None


def variable() -> contextvars.ContextVar[Any] | None:
    """Return the variable that holds what is current, if that is OpenTelemetry's."""
    runtime = _otel.runtime_context()
    if isinstance(runtime, SafeRuntimeContext):
        return runtime.variable
    return _otel.context_variable(runtime)


def are_scoped() -> bool:
    """Return whether what becomes current tells where it was entered."""
    return isinstance(_otel.runtime_context(), SafeRuntimeContext)


class Search:
    """Looks for one span in many contexts.

    What is below a scope is looked at once, though every task that was started there
    has it: a thousand tasks share most of what is current in them.

    Args:
        span_id: Of the span that is looked for.
        holder: The variable that holds what is current.
    """

    __slots__ = ("_holder", "_known", "_span_id")

    def __init__(self, span_id: bytes, holder: contextvars.ContextVar[Any]) -> None:
        self._span_id = span_id
        self._holder = holder
        # By identity, with the object: one that is gone could lend its own to another.
        self._known: dict[int, tuple[object, _Found | None]] = {}

    def standing(self, context: contextvars.Context) -> Standing:
        """Return what the span is to *context*."""
        value: Any = context.get(self._holder)
        if value is None:
            return Standing.NONE
        found = self._find(value)
        if found is not None:
            home = found[0]
            return Standing.ENTERED if home is context else Standing.INHERITED
        if _is_ancestor(self._span_id, _span_of(value)):
            return Standing.INHERITED
        return Standing.NONE

    def _find(self, value: Any) -> _Found | None:  # noqa: ANN401 - a scope or a context
        """Return where the span was entered that is current in *value* or below."""
        path: list[Any] = []
        found: _Found | None = None
        while len(path) < _DEPTH:
            known = self._known.get(id(value))
            if known is not None:
                found = known[1]
                break
            path.append(value)
            if not isinstance(value, Scope):
                break
            value = scope.below(value)
        for each in reversed(path):
            # Of several the lowest: those above came later and have it from there.
            if found is None and self._is_of(each):
                found = (_home(each.token) if isinstance(each, Scope) else None,)
            self._known[id(each)] = (each, found)
        return found

    def _is_of(self, value: Any) -> bool:  # noqa: ANN401 - a scope or a context
        if isinstance(value, Scope) and value.dead:
            return False
        span = _span_of(value)
        return span is not None and _id_of(span) == self._span_id


_Found = tuple[contextvars.Context | None]
"""The context in which a span became current, if that can be told."""


def _span_of(value: object) -> object:
    """Return the span that a scope or a context makes current."""
    if isinstance(value, Scope):
        # A block has its span and makes the context for whoever asks.
        span = getattr(value, "span", None)
        if span is not None:
            return span
        value = value.context
    if not isinstance(value, Context):
        return None
    return value.get(_otel.span_key())


def _id_of(span: Any) -> bytes:  # noqa: ANN401 - whatever stands for a span
    own = getattr(span, "span_id", None)
    if type(own) is bytes:
        return own
    context = span.get_span_context()
    number: int = context.span_id
    return number.to_bytes(8, "big")


def _is_ancestor(span_id: bytes, current: object) -> bool:
    """Return whether *current* was started somewhere below the span with *span_id*."""
    record = getattr(current, "record", None)
    for _ in range(_DEPTH):
        if record is None:
            return False
        if record.parent_id == span_id:
            return True
        record = record.parent
    return False


def _home(token: object) -> contextvars.Context | None:
    """Return the context in which *token* was made."""
    if isinstance(token, contextvars.Token):
        for each in gc.get_referents(token):  # pyright: ignore[reportUnknownArgumentType]  # of any type
            if type(each) is contextvars.Context:
                return each
    return None


def those_in(tasks: list[Task], span_id: bytes) -> tuple[list[Task], list[Task]]:
    """Return the tasks that entered the span with *span_id*, and others below it."""
    holder = variable()
    entered: list[Task] = []
    inherited: list[Task] = []
    if holder is None:
        return entered, inherited
    search = Search(span_id, holder)
    for task in tasks:
        context = context_of(task)
        if context is None:
            continue
        try:
            how = search.standing(context)
        except (AttributeError, RuntimeError, TypeError, ValueError):
            continue  # a scope that is just being entered, a span of any make
        if how is Standing.ENTERED:
            entered.append(task)
        elif how is Standing.INHERITED:
            inherited.append(task)
    return entered, inherited


class Entrants:
    """Which task has entered which span, found at one look for all of them.

    To ask `those_in` for one span looks at every task.  This does it once.

    Args:
        tasks: Those that come into question; they are not held.
    """

    __slots__ = ("_known",)

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._known: dict[bytes, dict[int, weakref.ReferenceType[Task]]] = {}
        holder = variable()
        if holder is None:
            return
        for task in tasks:
            context = context_of(task)
            if context is not None:
                try:
                    self._see(task, context, context.get(holder))
                except (AttributeError, RuntimeError, TypeError, ValueError):
                    continue  # a scope that is just being entered, a span of any make

    def _see(self, task: Task, context: contextvars.Context, value: Any) -> None:  # noqa: ANN401 - a scope or a context
        for _ in range(_DEPTH):
            if not isinstance(value, Scope):
                return
            if not value.dead and _home(value.token) is context:
                span = _span_of(value)
                if span is not None:
                    known = self._known.setdefault(_id_of(span), {})
                    known[id(task)] = weakref.ref(task)
            value = scope.below(value)

    def of(self, span_id: bytes) -> list[Task]:
        """Return the tasks that are in the span with *span_id* because they entered it.

        None that has done so since the look.
        """
        known = self._known.get(span_id, {}).values()
        found = [task for each in known if (task := each()) is not None]
        return those_in([task for task in found if not task.done()], span_id)[0]


def is_in(task: Task, span_id: bytes) -> bool:
    """Return whether the span with *span_id* is current in *task*, or above what is."""
    entered, inherited = those_in([task], span_id)
    return bool(entered or inherited)
