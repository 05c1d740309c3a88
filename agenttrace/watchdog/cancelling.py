"""Cancels the asyncio task in which a span is current.

Found from outside: a span does not know its task, since to ask at every start would
cost every span.  A task that was started inside a span has it for its current span as
well, but did not make it so: what tells the two apart is in which context the scope was
entered.  Where that cannot be told, and several tasks have it, none is cancelled.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
from typing import TYPE_CHECKING, Any, Final

from agenttrace import _otel
from agenttrace.context.scope import SafeRuntimeContext, Scope, before, context_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agenttrace.registry import OpenSpan

Task = asyncio.Task[Any]
_ATTEMPTS: Final = 1000
_SETS: Final = ("_scheduled_tasks", "_eager_tasks", "_all_tasks")
"""Where asyncio lists the tasks of all loops, by version."""


def cancel_task(span: OpenSpan, message: str) -> bool:
    """Cancel the task that *span* is current in; return whether there is one.

    On any thread: the loop of the task does it, as soon as it runs, and only if the
    task has not left the span by then.
    """
    task = _task_of(span)
    if task is None:
        return False
    try:
        task.get_loop().call_soon_threadsafe(_cancel, task, span.span_id, message)
    except RuntimeError:  # its loop is closed
        return False
    return True


def _cancel(task: Task, span_id: bytes, message: str) -> None:
    if not task.done() and _stands_for(_current_in(task), span_id):
        task.cancel(message)


def _task_of(span: OpenSpan) -> Task | None:
    """Return the one task that made *span* current, or the only one that has it."""
    found: list[Task] = []
    for task in _tasks():
        value = None if task.done() else _current_in(task)
        if not _stands_for(value, span.span_id):
            continue
        found.append(task)
        if isinstance(value, Scope):
            # By identity: contexts with the same contents are equal.
            home = _context_of_task(task)
            if any(each is home for each in gc.get_referents(value.token)):
                return task
    return found[0] if len(found) == 1 else None


def _tasks() -> Iterable[Task]:
    """Return the tasks of all event loops of this process."""
    found: dict[int, Task] = {}
    for name in _SETS:
        listed: Any = getattr(asyncio.tasks, name, ())
        for _ in range(_ATTEMPTS):
            try:
                found.update((id(task), task) for task in tuple(listed))
                break
            except RuntimeError:  # its loop starts and ends some meanwhile
                continue
    return found.values()


def _context_of_task(task: Task) -> contextvars.Context | None:
    """Return the context that *task* runs in."""
    get = getattr(task, "get_context", None)  # from Python 3.12 on
    if get is not None:
        context: contextvars.Context | None = get()
        return context
    for referent in gc.get_referents(task):
        if isinstance(referent, contextvars.Context):
            return referent
    return None


def _current_in(task: Task) -> Any:  # noqa: ANN401 - see `scope.Value`, or another library's
    """Return what OpenTelemetry's variable has in *task*, None where it has nothing."""
    runtime = _otel.runtime_context()
    variable: contextvars.ContextVar[Any] | None
    if isinstance(runtime, SafeRuntimeContext):
        variable = runtime.variable
    else:
        variable = _otel.context_variable(runtime)
    context = _context_of_task(task)
    if variable is None or context is None:
        return None
    value = context.get(variable)
    return before(value) if isinstance(value, Scope) else value


def _stands_for(value: Any, span_id: bytes) -> bool:  # noqa: ANN401 - see `_current_in`
    """Return whether the span with *span_id* is current where *value* stands."""
    if value is None:
        return False
    span: Any = context_of(value).get(_otel.span_key())
    if span is None:
        return False
    current: int = span.get_span_context().span_id
    return current.to_bytes(8, "big") == span_id
