"""What belongs to fixtures of a wider scope than one test, and is no test's leak.

A span that was started in the set-up of such a fixture is the fixture's, until that has
been torn down.  So is what its tasks and threads are in: a worker that begins one piece
of work after the other has always some span open, and a test that ends cannot wait.
And so is what those tasks begin, in tasks of their own: these have a copy of the
context that they were started in, and there it is noted whose worker that was.

It knows no pytest; whose set-up it is, and when it is over, it is told.
"""

from __future__ import annotations

import threading
import weakref
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from agenttrace.runtime.process import PROCESS
from agenttrace.watchdog import tasks, threads
from agenttrace.watchdog.frames import package_of
from agenttrace.watchdog.owners import Owners

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Hashable

    from agenttrace.registry import OpenSpan
    from agenttrace.watchdog.tasks import Task


@dataclass(slots=True, eq=False)
class _Held:
    """What one fixture has started."""

    spans: set[OpenSpan] = field(default_factory=set["OpenSpan"])
    tasks: weakref.WeakSet[Task] = field(default_factory=weakref.WeakSet["Task"])
    threads: weakref.WeakSet[threading.Thread] = field(
        default_factory=weakref.WeakSet[threading.Thread]
    )

    def mark(self) -> None:
        """Note in the contexts of the tasks whose they are, for what they start."""
        for task in [*self.tasks]:
            context = tasks.context_of(task)
            if context is not None and context.get(_worker_of) is not self:
                with suppress(RuntimeError):  # another thread is in it just now
                    context.run(_worker_of.set, self)

    def take(self, owners: Owners, spans: Collection[OpenSpan]) -> None:
        """Take those of *spans* that are the work of the fixture's tasks and threads.

        For good: a worker that ends and leaves one open has been the fixture's.
        """
        self.spans.update(span for span in spans if self._has_at_work(owners, span))

    def _has_at_work(self, owners: Owners, span: OpenSpan) -> bool:
        owner = owners.owner_of(span)
        if not owner.certain:
            return False
        if owner.task is not None:
            if owner.task in self.tasks:
                return True
            context = tasks.context_of(owner.task)
            return context is not None and context.get(_worker_of) is self
        # The id of a thread that is over is given to another one.
        return any(
            each.ident == owner.thread and each.is_alive() for each in self.threads
        )


_worker_of: Final[ContextVar[_Held | None]] = ContextVar(
    "agenttrace_worker_of", default=None
)


class Wider:
    """Knows what fixtures of a wider scope have started, from set-up to teardown."""

    def __init__(self) -> None:
        self._held: dict[Hashable, _Held] = {}

    @staticmethod
    def open() -> tuple[OpenSpan, ...]:
        """Return what is open: what was dropped has ended, though nobody has told."""
        PROCESS.sweep()
        return PROCESS.spans.snapshot()

    @contextmanager
    def setting_up(self, fixture: Hashable) -> Generator[None]:
        """Leave to *fixture* what is started meanwhile."""
        spans, running = self.open(), _workers()
        alive = {*threading.enumerate()}
        try:
            yield
        finally:
            held = _Held()
            held.spans = {*self.open()}.difference(
                spans, *(each.spans for each in self._held.values())
            )
            held.tasks.update(_workers().difference(running))
            held.threads.update({*threading.enumerate()}.difference(alive))
            held.mark()
            self._held[fixture] = held

    def torn_down(self, fixture: Hashable) -> set[OpenSpan]:
        """Forget *fixture*, and return what it has left open."""
        held = self._held.pop(fixture, None)
        if held is None:
            return set()
        left = self.open()
        _take([held], left)
        return held.spans.intersection(left)

    def not_theirs(self, spans: Collection[OpenSpan]) -> list[OpenSpan]:
        """Return those of *spans* that are no fixture's."""
        held = [*self._held.values()]
        left = _left_by(held, spans)
        _take(held, left)
        return _left_by(held, left)


def _left_by(held: Collection[_Held], spans: Collection[OpenSpan]) -> list[OpenSpan]:
    return [span for span in spans if not any(span in each.spans for each in held)]


def _take(held: Collection[_Held], spans: Collection[OpenSpan]) -> None:
    """Have each in *held* take what is its own of *spans*."""
    if not spans or not any(each.tasks or each.threads for each in held):
        return
    owners = Owners(threads.stacks(), tasks.all_tasks())
    for each in held:
        each.spans.intersection_update(Wider.open())
        each.take(owners, spans)
        each.mark()


def _workers() -> set[Task]:
    """Return the tasks, but for that in which anyio runs the tests themselves."""
    return {task for task in tasks.all_tasks() if not _runs_tests(task)}


def _runs_tests(task: Task) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return (
        code is not None
        and package_of(code.co_filename) == "anyio"
        and code.co_qualname.startswith("TestRunner.")
    )
