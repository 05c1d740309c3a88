"""Follows a hang from the task or thread of a span to what it waits for in the end.

One investigation is one look at the process: who waits for whom, as far as that can be
seen, and at the end of it a cause.  It takes no lock, asks no loop anything and waits
for nothing but itself: where a loop is in the middle of a step, it looks again for a
moment, to tell a loop that is blocked from one that is at work.

What is held here when its owner lets go of it is freed here, on our thread: variables
with the frame of a function that returns, a result with its task.  So as little as can
be is held while it waits: the one callback that it waits for, and the tasks that it is
in the middle of.  Between waits a look takes a millisecond or two, in which that may
happen to any frame; there is no other way to look.
"""

from __future__ import annotations

import asyncio
import math
import time
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from agenttrace.watchdog import chains, tasks, threads
from agenttrace.watchdog.causes import Cause, is_purposeful, wait_of
from agenttrace.watchdog.chains import State
from agenttrace.watchdog.finding import (
    WEAK,
    Finding,
    Link,
    concluded,
    doing,
    is_enough,
    most_telling,
    name_of,
)
from agenttrace.watchdog.runqueue import RunQueue
from agenttrace.watchdog.upstream import (
    Upstream,
    add_awaited,
    is_given,
    resolve,
    upstream_of,
)

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import FrameType

    from agenttrace.watchdog.causes import Wait
    from agenttrace.watchdog.chains import Chain
    from agenttrace.watchdog.frames import Line
    from agenttrace.watchdog.owners import Owner
    from agenttrace.watchdog.tasks import Task

_MAX_LINKS: Final = 8
"""How many tasks and threads one chain of waiting is followed through."""
_MAX_BRANCHES: Final = 6
"""How many of those it waits for at once are looked into."""
_PATIENCE: Final = 0.05
"""Seconds that one step of a loop takes before the loop counts as blocked."""
_PAUSE: Final = 0.002
BUDGET: Final = 0.3
"""Seconds that an investigation may take: it may be one of many."""
_ATTEMPTS: Final = round(BUDGET / _PAUSE)
"""The same by number of pauses: the clock may be one that somebody has stopped."""


class Investigation:
    """One look at the process.

    Args:
        deadline: Until when it may take (`time.monotonic`), if not for 0.3 s.
    """

    def __init__(self, deadline: float = math.inf) -> None:
        self.deadline = min(time.monotonic() + BUDGET, deadline)
        self.stacks = threads.stacks()
        self.tasks = tasks.all_tasks()
        self._attempts = _ATTEMPTS
        self._names = threads.names()
        self._heirs: list[Task] = []
        self._seen: set[int] = set()  # of threads and of tasks, which are not held
        self._path: list[int] = []  # of these, who waits for what is looked at
        self._loops: dict[int, Finding | None] = {}

    # What it waits for.

    def explain(self, owner: Owner) -> Finding:
        """Return where *owner* hangs, and why."""
        self._heirs = owner.heirs
        if owner.task is not None:
            finding = self.task(owner.task)
            if finding.cause in WEAK:
                return self._among_heirs(owner, finding)
            return finding
        if owner.thread is not None:
            return self.thread(owner.thread)
        return Finding(
            Cause.UNKNOWN, "no task and no thread is at work on it: it was left open"
        )

    def _among_heirs(self, owner: Owner, finding: Finding) -> Finding:
        """Return what those hang in that were started below the span, if that is more.

        Work is often handed to a task by a queue or an event, which tell nothing of
        who is to fill or set them.
        """
        found = [
            each
            for task in owner.heirs[-_MAX_BRANCHES * 5 :]
            if id(task) not in self._seen
            and (each := self.task(task)).cause not in (*WEAK, Cause.SUBTASK)
        ]
        if not found:
            return finding
        best = most_telling(found)
        return Finding(best.cause, best.why, *finding.links, *best.links)

    def task(self, task: Task, depth: int = 0) -> Finding:
        """Return where *task* hangs, and why."""
        with self._at(id(task)):
            return self._task(task, depth)

    def _task(self, task: Task, depth: int) -> Finding:
        chain = chains.chain_of(task)
        if chain.state is State.RUNNING:
            return self._running(task, chain, depth)
        own = Link("task", name_of(task), chain.lines)
        blocked = self._blocked(task)
        if blocked is not None:
            blocked.links.insert(0, own)
            return blocked
        if chain.state is not State.WAITING:
            wait = wait_of(chain.lines)
            if chain.state is State.READY and wait and wait.cause is Cause.SLEEP:
                why = "it polls, without a pause"
                if chain.end is not None:  # of a time there is a future, passed or not
                    why = f"it waits for {wait.what}"
                return Finding(Cause.SLEEP, why, own)
            return Finding(Cause.UNKNOWN, f"its task {chain.state.value}", own)
        upstream = upstream_of(chain, task, self.stacks)
        if not upstream and not upstream.futures:
            add_awaited(task, self.tasks, upstream)
        wait = wait_of(chain.lines, threads.call_in_progress(chain.innermost))
        if depth < _MAX_LINKS and (wait is None or not is_enough(wait)):
            below = self._below(upstream, depth)
            if below is not None:
                below.links.insert(0, own)
                return below
        return self._concluded(wait, upstream, own)

    def _below(self, upstream: Upstream, depth: int) -> Finding | None:
        """Return the most telling of what is waited for, None where nothing is."""
        found: list[Finding] = []
        for task in upstream.tasks:
            if len(found) >= _MAX_BRANCHES or time.monotonic() > self.deadline:
                break
            if id(task) not in self._seen:
                found.append(self.task(task, depth + 1))
        found += [
            self.thread(ident, depth + 1)
            for ident in upstream.threads[:_MAX_BRANCHES]
            if ident not in self._seen
        ]
        if not found:
            return None
        return most_telling(found)

    def _running(self, task: Task, chain: Chain, depth: int) -> Finding:
        """Return what a task is in that is in the middle of a step."""
        place = None
        if chain.frame is not None:
            place = threads.thread_in(self.stacks, chain.frame)
        if place is None:
            # It went on between the two looks.
            return self._once_more(task, depth, chain.lines)
        nested = threads.runs_above(place[1], chain.frame) if chain.frame else []
        if nested:
            return self._nested(task, chain, nested, depth)
        ident, place = place[0], None
        if not self._lasts(ident, chain.frame):
            return self._once_more(task, depth, chain.lines)
        top = self.stacks.get(ident)
        if top is None:
            return self._once_more(task, depth, chain.lines)
        lines = threads.lines_of(top, chain.frame)
        own = Link("task", name_of(task), lines)
        call = threads.call_in_progress(top)
        below = self._below(self._awaited_in(top), depth)
        why = "it runs on the thread of its event loop and does not come back"
        if below is not None:
            own_links = (own, *below.links)
            return Finding(Cause.EVENT_LOOP_BLOCKED, f"{why}: {below.why}", *own_links)
        wait = wait_of(lines, call)
        if wait is not None:
            why = f"it waits for {wait.what} on the thread of its event loop"
        return Finding(Cause.EVENT_LOOP_BLOCKED, why, own)

    def _nested(self, task: Task, chain: Chain, runs: list[Any], depth: int) -> Finding:
        """Return what a task waits for that runs a loop within its own.

        *runs* is what that loop runs for, and then those begun on top of it: done or
        not, it returns when they have.
        """
        own = Link("task", name_of(task), chain.lines)
        upstream = Upstream()
        pending = next((each for each in runs if not each.done()), None)
        resolve([pending], self.stacks, upstream)
        why = "it runs a loop within its loop"
        if pending is not runs[0]:
            why = f"{why}, which is done and waits for one that was begun later"
        below = self._below(upstream, depth) if depth < _MAX_LINKS else None
        if below is None:
            return Finding(Cause.SUBTASK, why, own)
        return Finding(below.cause, f"{why}: {below.why}", own, *below.links)

    def _once_more(self, task: Task, depth: int, lines: list[Line]) -> Finding:
        """Look again at a task that is just making a step."""
        if self._attempts and time.monotonic() < self.deadline:
            self._attempts -= 1
            with self._letting_go():
                time.sleep(_PAUSE)
            return self.task(task, depth)
        own = Link("task", name_of(task), lines)
        return Finding(Cause.UNKNOWN, "it is at work, step by step", own)

    def _awaited_in(self, top: FrameType) -> Upstream:
        found = Upstream()
        awaited = threads.awaited_by(top)
        if awaited:
            resolve(awaited, self.stacks, found)
            for future in found.futures[:_MAX_BRANCHES]:
                # Handed to a coroutine as an argument, as asgiref does it.
                given = [each for each in self.tasks if is_given(each, future)]
                found.tasks += given
                found.queued = found.queued and not given
        return found

    def thread(self, ident: int, depth: int = 0) -> Finding:
        """Return where the thread *ident* hangs, and why."""
        with self._at(ident):
            return self._thread(ident, depth)

    def _thread(self, ident: int, depth: int) -> Finding:
        top = self.stacks.get(ident)
        lines = threads.lines_of(top)
        own = Link("thread", self._names.get(ident, str(ident)), lines)
        # One that somebody waits for may be in a call of the interpreter's own, as
        # `to_thread(queue.get)` is; one that nobody does is idle then.
        if top is None or not (depth or is_purposeful(lines)):
            return Finding(Cause.UNKNOWN, "its thread does nothing, or is gone", own)
        upstream = self._awaited_in(top)
        if depth < _MAX_LINKS:
            below = self._below(upstream, depth)
            if below is not None:
                below.links.insert(0, own)
                return below
        call = threads.call_in_progress(top)
        wait = wait_of(lines, call)
        if wait is None or wait.cause is Cause.SLEEP:
            return Finding(Cause.THREAD, f"its thread {doing(wait, call)}", own)
        return self._concluded(wait, upstream, own)

    @contextmanager
    def _at(self, ident: int) -> Generator[None]:
        """Look at a task or a thread, and at what it waits for."""
        self._seen.add(ident)
        self._path.append(ident)
        try:
            yield
        finally:
            self._path.pop()

    def _concluded(self, wait: Wait | None, upstream: Upstream, own: Link) -> Finding:
        """Return what is to be said where a chain of waiting ends."""
        held = (*map(id, upstream.tasks), *upstream.threads)
        is_circular = any(each in self._path for each in held)
        return concluded(wait, upstream, own, is_circular=is_circular)

    # Loops.

    def _blocked(self, task: Task) -> Finding | None:
        """Return what blocks the loop of *task*, which is suspended, if anything."""
        loop = task.get_loop()
        if id(loop) not in self._loops:
            self._loops[id(loop)] = self._blocker_of(loop, task)
        found = self._loops[id(loop)]
        return None if found is None else Finding(found.cause, found.why, *found.links)

    def _blocker_of(
        self, loop: asyncio.AbstractEventLoop, task: Task
    ) -> Finding | None:
        current = _current_in(loop)
        frame: FrameType | None = None
        if current is not None and current is not task:
            frame = chains.chain_of(current).frame
        ident = getattr(loop, "_thread_id", None)
        if frame is not None:
            place = threads.thread_in(self.stacks, frame)
            ident, place = None if place is None else place[0], None
        elif ident in self.stacks:
            frame = threads.callback_in(self.stacks[ident])
        else:  # uvloop, or a loop that does not run
            ident, frame = threads.callback_of(loop, self.stacks)
        if ident is None or frame is None or not self._lasts(ident, frame):
            return None
        top = self.stacks.get(ident)
        lines = threads.lines_of(top, frame)
        link = Link("callback", f"of {type(loop).__name__}", lines)
        if current is not None:
            link = Link("task", name_of(current), lines)
        wait = wait_of(lines, threads.call_in_progress(top))
        why = f"{link} runs on the thread of its event loop and does not come back"
        if wait is not None:
            why = f"{link} waits for {wait.what} on the thread of its event loop"
        return Finding(Cause.EVENT_LOOP_BLOCKED, why, link)

    def _lasts(self, ident: int, frame: FrameType | None) -> bool:
        """Return whether the thread *ident* stays in the very same call of *frame*.

        It does not where there was too little time left to say so: a loop that is only
        at work is not to be told as blocked.  Nor does the time count in which the
        thread could have gone on, and had no processor.
        """
        if frame is None:
            return False
        now = time.monotonic()
        until, queue = now + _PATIENCE, RunQueue(ident, now)
        turn = threads.turn_of(frame)
        with self._letting_go():
            for _ in range(_ATTEMPTS):
                if not threads.is_beneath(turn, threads.stacks().get(ident)):
                    return False
                now = time.monotonic()
                waited = queue.waited(now)
                if now >= until + waited:
                    break
                # Who has no processor here has none for looking, either.
                if now >= self.deadline + min(waited, BUDGET):
                    return False
                time.sleep(_PAUSE)
        return True

    @contextmanager
    def _letting_go(self) -> Generator[None]:
        """Hold no frames meanwhile, nor tasks that nobody is in the middle of."""
        lists = (self.tasks, self._heirs)
        alive = [[weakref.ref(task) for task in held] for held in lists]
        self.stacks.clear()
        for held in lists:
            held.clear()
        try:
            yield
        finally:
            self.stacks.update(threads.stacks())
            for held, references in zip(lists, alive, strict=True):
                held += [task for each in references if (task := each()) is not None]


def _current_in(loop: asyncio.AbstractEventLoop) -> Task | None:
    try:
        return asyncio.current_task(loop)
    except RuntimeError:
        return None
