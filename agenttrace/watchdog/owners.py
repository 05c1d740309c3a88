"""Whose work a span is: the task or the thread that is in it.

Tasks are asked first (`tasks`), then the threads, whose contexts nobody can ask: there
it is the frames that make a span's steps, or the thread that started the span.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Final

from agenttrace.watchdog import chains, tasks, threads
from agenttrace.watchdog.causes import is_purposeful
from agenttrace.watchdog.chains import State
from agenttrace.watchdog.frames import Whose, whose
from agenttrace.watchdog.upstream import upstream_of

if TYPE_CHECKING:
    from types import FrameType

    from agenttrace.registry import OpenSpan
    from agenttrace.watchdog.tasks import Task

_MAX_STEPS: Final = 50
"""How many tasks are looked into for the one that is in a step of a span."""


class Owner:
    """Whose work a span is.

    Attributes:
        task: The task, where it is one.
        thread: Else the id of the thread, where that can be said.
        certain: Whether nobody else comes into question.
        heirs: Tasks that were started below the span.
    """

    __slots__ = ("certain", "heirs", "task", "thread")

    def __init__(self) -> None:
        self.task: Task | None = None
        self.thread: int | None = None
        self.certain = True
        self.heirs: list[Task] = []

    def or_rather(self, task: Task) -> list[Owner]:
        """Return who else it may be: whose work is not known to be that of *task*.

        Whoever has entered a span and is in a step of a stream looks like those that
        were started below it, and which of them is told first is chance.
        """
        if self.task is None:
            return []
        if self.task is not task:
            return [self]
        others: list[Owner] = []
        for heir in self.heirs:
            other = Owner()
            other.task, other.certain = heir, False
            other.heirs = [task, *(each for each in self.heirs if each is not heir)]
            others.append(other)
        return others


class Owners:
    """Finds owners, at one look at the process.

    Args:
        stacks: The innermost frame of every thread.
        all_tasks: Every task.
    """

    def __init__(self, stacks: dict[int, FrameType], all_tasks: list[Task]) -> None:
        self.stacks = stacks
        self.tasks = all_tasks
        self._steps: dict[OpenSpan, int | None] = {}

    def owner_of(self, span: OpenSpan) -> Owner:
        """Return whose work *span* is."""
        owner = self._attendant_of(span) or self._holder_of(span)
        parent = span.parent
        if owner.task is None and owner.thread is None and parent is not None:
            # It is current nowhere: whoever is at work on its parent has started it.
            owner = self._holder_of(parent)
            owner.certain = False
        return owner

    def _attendant_of(self, span: OpenSpan) -> Owner | None:
        """Return who has asked for *span* last, which is current nowhere."""
        attendant: weakref.ReferenceType[Task] | int | None
        attendant = getattr(span, "attendant", None)
        owner = Owner()
        owner.certain = False  # it may ask no more
        if isinstance(attendant, weakref.ReferenceType):
            owner.task = task = attendant()
            return None if task is None or task.done() else owner
        owner.thread = attendant
        own = self.stacks.get(attendant or 0)
        return owner if own and is_purposeful(threads.lines_of(own)) else None

    def _holder_of(self, span: OpenSpan) -> Owner:
        owner = Owner()
        entered, inherited = tasks.those_in(self.tasks, span.span_id)
        owner.heirs = inherited
        if entered:
            owner.task = entered[0]
            owner.certain = len(entered) == 1
            return owner
        for task in inherited[:_MAX_STEPS]:
            if self._is_step_of(task, span):
                owner.task = task
                break
        else:
            self._settle(owner, span)
        owner.heirs = [task for task in inherited if task is not owner.task]
        return owner

    def _settle(self, owner: Owner, span: OpenSpan) -> None:
        """Find the owner of *span* where no task entered it."""
        owner.thread = self._thread_in_step(span)
        if owner.thread is not None:
            return
        own = self.stacks.get(span.thread_id)
        if own is not None and is_purposeful(threads.lines_of(own)):
            main = threads.main_task_in(own)
            if main is None and not any(map(threads.loop_of, threads.outwards(own))):
                # A thread of its own, whoever has taken its context further.  What
                # was started there and made current nowhere may be anybody's.
                owner.thread = span.thread_id
                owner.certain = getattr(span(), "is_block", False) is True
                return
            for task in owner.heirs:
                if task is main:
                    owner.task = task
                    return
        if owner.heirs:
            awaited = {
                id(below)
                for task in owner.heirs[:_MAX_STEPS]
                for below in self._awaited(task)
            }
            roots = [task for task in owner.heirs if id(task) not in awaited]
            owner.task = (roots or owner.heirs)[0]
            # Without scopes nothing tells who entered it, unless there is only one.
            owner.certain = len(owner.heirs) == 1 and not tasks.are_scoped()

    def is_in_step(self, span: OpenSpan, owner: Owner) -> bool:
        """Return whether a step of the stream *span* is under way, by anybody."""
        candidates = [*owner.heirs[:_MAX_STEPS]]
        if owner.task is not None:
            candidates.append(owner.task)
        return self._thread_in_step(span) is not None or any(
            self._is_step_of(task, span) for task in candidates
        )

    def _thread_in_step(self, span: OpenSpan) -> int | None:
        """Return the thread that is in a step of the generator or stream of *span*."""
        if span not in self._steps:
            self._steps[span] = self._find_step(span)
        return self._steps[span]

    def _find_step(self, span: OpenSpan) -> int | None:
        for ident, top in self.stacks.items():
            for frame in threads.outwards(top):
                code = frame.f_code
                if (
                    whose(code.co_filename) is Whose.OURS
                    and "call" in code.co_varnames
                    and getattr(threads.local(frame, "call"), "record", None) is span
                ):
                    return ident
        return None

    def _is_step_of(self, task: Task, span: OpenSpan) -> bool:
        """Return whether *task* is in a step of the generator or stream of *span*."""
        chain = chains.chain_of(task)
        stack: list[FrameType] = []
        if chain.state is State.RUNNING and chain.frame is not None:
            place = threads.thread_in(self.stacks, chain.frame)
            if place is not None:
                stack = list(threads.outwards(place[1]))
        return any(
            getattr(call, "record", None) is span
            for call in chains.calls_in(chain, stack)
        )

    def _awaited(self, task: Task) -> list[Task]:
        chain = chains.chain_of(task)
        return upstream_of(chain, task, self.stacks).tasks
