"""What belongs to fixtures of a wider scope than one test, and is no test's leak.

A span that was started in the set-up of such a fixture is the fixture's, until that has
been torn down.  So is what its tasks and threads are in: a worker that begins one piece
of work after the other has always some span open, and a test that ends cannot wait.

It knows no pytest; whose set-up it is, and when it is over, it is told.
"""

from __future__ import annotations

import threading
import weakref
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agenttrace.runtime.process import PROCESS
from agenttrace.watchdog import tasks, threads
from agenttrace.watchdog.frames import Whose, whose
from agenttrace.watchdog.owners import Owners

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Hashable

    from agenttrace.registry import OpenSpan
    from agenttrace.watchdog.tasks import Task


@dataclass(slots=True)
class _Held:
    """What one fixture has started."""

    spans: set[OpenSpan] = field(default_factory=set["OpenSpan"])
    tasks: weakref.WeakSet[Task] = field(default_factory=weakref.WeakSet["Task"])
    threads: weakref.WeakSet[threading.Thread] = field(
        default_factory=weakref.WeakSet[threading.Thread]
    )

    def has_at_work(self, owners: Owners, span: OpenSpan) -> bool:
        """Return whether *span* is the work of a task or thread of the fixture."""
        owner = owners.owner_of(span)
        if not owner.certain:
            return False
        if owner.task is not None:
            return owner.task in self.tasks
        return owner.thread in {each.ident for each in self.threads}


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
            self._held[fixture] = held

    def torn_down(self, fixture: Hashable) -> set[OpenSpan]:
        """Forget *fixture*, and return what it has left open."""
        held = self._held.pop(fixture, None)
        if held is None:
            return set()
        return {*held.spans, *_at_work([held], self.open())}

    def not_theirs(self, spans: Collection[OpenSpan]) -> list[OpenSpan]:
        """Return those of *spans* that are no fixture's."""
        held = [*self._held.values()]
        left = [span for span in spans if not any(span in each.spans for each in held)]
        theirs = _at_work(held, left)
        return [span for span in left if span not in theirs]


def _at_work(held: Collection[_Held], spans: Collection[OpenSpan]) -> set[OpenSpan]:
    """Return those of *spans* that are the work of a task or thread in *held*."""
    if not spans or not any(each.tasks or each.threads for each in held):
        return set()
    owners = Owners(threads.stacks(), tasks.all_tasks())
    return {
        span for span in spans if any(each.has_at_work(owners, span) for each in held)
    }


def _workers() -> set[Task]:
    """Return the tasks that run what somebody has written, and not a test runner.

    In anyio's the tests themselves are run.
    """
    found: set[Task] = set()
    for task in tasks.all_tasks():
        code = getattr(task.get_coro(), "cr_code", None)
        if code is not None and whose(code.co_filename) in (
            Whose.APPLICATION,
            Whose.OURS,
        ):
            found.add(task)
    return found
