"""The event loop monitor: tells when a loop was blocked, where, and for how long.

At each tick it looks at the loops (`turns`), and remembers which callback each of them
is in.  One that is still there at the next look, for longer than the limit, blocks its
loop (`blocks`).  What it leaves is a span named `agenttrace.event_loop.blocked`, back
dated to when the block began, below the span that is current in the callback.

Only a loop that is blocked is sent something: a callback that notes when it comes to
run, which is when the block is over.  An idle loop is never woken, and a busy one does
what it would do without us.  uvloop shows too little of itself: there it is sent as
soon as the loop is found in a task's step, to learn whether it gets any further.

The ticker cannot look while C code keeps the GIL.  But the interpreter gives it back in
the very line that called that code, which is where the next look finds it.  That it is
this thread's doing is seen by the CPU time it has taken.

It owns the looks and what is told; rules, verdicts and reports are others' business.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from agenttrace import safety
from agenttrace.lazy import no_fork_at_first
from agenttrace.model import LinkData
from agenttrace.watchdog import turns
from agenttrace.watchdog.blocks import Gap, Rate
from agenttrace.watchdog.pauses import Collections
from agenttrace.watchdog.ticker import INTERVAL
from agenttrace.watchdog.watched import Watched, blamed, current_in, form_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agenttrace.model import SpanData
    from agenttrace.noticed import Later
    from agenttrace.registry import OpenSpans
    from agenttrace.watchdog.backstop import Backstop, Dump
    from agenttrace.watchdog.turns import Sight

LONG: Final = 10.0
_MOST_LINKS: Final = 8
_MOST_SCANNED: Final = 1_000
"""Open spans among which those are looked for that a block keeps waiting."""


class LoopMonitor:
    """Watches the event loops of this process while spans are open.

    Args:
        registry: The open spans, for those that a block keeps waiting.
        emit: Takes what is told.  Whose it is (resource and scope) is for it to say.
        after: Seconds for which a callback may keep its loop from turning.
        backstop: Writes stacks while the GIL is kept, where that is asked for.
        occupied: Returns the seconds that ticks have spent on something else so far:
            by so much the next look is late, and nobody has kept the GIL.
        later: Makes the calls that log, beside the ticker: a handler may hang.
        interval: Seconds between two ticks.
        long: Seconds after which a block that goes on is told, and then each time it
            has doubled.
    """

    def __init__(  # noqa: PLR0913 - keywords, each with a default
        self,
        registry: OpenSpans,
        emit: Callable[[SpanData], None],
        *,
        after: float,
        backstop: Backstop | None = None,
        occupied: Callable[[], float] = float,
        later: Later | None = None,
        interval: float = INTERVAL,
        long: float = LONG,
    ) -> None:
        self._registry = registry
        self._emit = emit
        self._after = after
        self._backstop = backstop
        self._occupied_so_far = occupied
        self._later = later
        self._interval = interval
        self._long = long
        self._collections = Collections()
        # Re-entrant: a signal handler may end everything while it is being ended.
        self._lock = threading.RLock()
        self._is_over = False
        self._rate = Rate()
        self._excused = 0.0
        self._forget()

    def _forget(self) -> None:
        self._watched: dict[int, Watched] = {}
        self._looked: float | None = None
        self._cpu = 0.0
        self._collected = 0.0
        self._occupied = 0.0
        self._threads: dict[int, float | None] = {}
        self._parked: dict[int, tuple[int, int]] = {}
        self._nests: set[tuple[bytes, str]] = set()

    def tick(self) -> None:
        """Look once.  Called by the ticker."""
        with self._lock:
            if not self._is_over:
                self._tick()

    def rest(self) -> None:
        """Tell what there is: no span is open any more."""
        with self._lock:
            self._finish()

    def stop(self) -> None:
        """Tell what there is, and look no more."""
        with self._lock:
            self._is_over = True
            self._finish()
            if self._backstop is not None:
                self._backstop.stop()

    def after_fork(self) -> None:
        """Let go of everything in a child process, which has a monitor of its own."""
        self._lock = threading.RLock()
        self._is_over = True
        self._collections.rest()

    def _finish(self) -> None:
        now = time.monotonic()
        for thread in tuple(self._watched):
            self._end(thread, now)
        self._collections.rest()
        if self._backstop is not None:
            self._backstop.rest()
        self._forget()

    def _tick(self) -> None:
        # First: whoever had to give the GIL back for this is still where it was, but
        # goes on as soon as a system call of ours lets go of it.
        found = turns.look(self._parked)
        now = time.monotonic()
        threads = {thread: turns.cpu_of(thread) for thread in self._of_loops(found)}
        dump = None if self._backstop is None else self._backstop.tick()
        gap = self._gap_until(now, dump)
        for thread in tuple(self._watched):
            if not self._goes_on(thread, found.sights):
                self._end(thread, now)
        for sight in found.sights:
            computed = _more(threads.get(sight.thread), self._threads.get(sight.thread))
            is_culprit = (
                computed is not None and computed >= gap.held / 2
            ) or _is_where(dump, sight)
            watched = self._watched.get(sight.thread)
            if watched is None:
                watched = self._suspect(sight, gap, now, is_culprit=is_culprit)
            elif gap.held > self._after and not is_culprit:
                watched.excused -= gap.held
            if dump is not None and is_culprit:
                watched.dump = dump.stack_of(sight.thread)
            self._judge(sight, watched, now)
        self._looked, self._threads = now, threads
        if found.nests:
            tell = _noting().tell_nests
            safety.guarded("loops.nests", tell, found.nests, self._nests, self._later)
        if found.threads or "uvloop" in sys.modules:
            # A loop of uvloop's is seen in the middle of a step alone, and that may be
            # the step that is kept by a collection.
            self._collections.listen()

    def _of_loops(self, found: turns.Look) -> set[int]:
        """Return the threads of loops: uvloop's are seen only now and then."""
        known = self._threads.keys() | found.threads
        main = threading.main_thread().ident
        if main is not None:
            known.add(main)
        return known

    def _gap_until(self, now: float, dump: Dump | None) -> Gap:
        """Return what the time since the last look was like, and take note of it."""
        cpu, collected = time.process_time(), self._collections.seconds()
        occupied = self._occupied_so_far()
        length = 0.0 if self._looked is None else now - self._looked
        gap = Gap(
            length,
            self._interval,
            ours=occupied - self._occupied,
            cpu=cpu - self._cpu,
            collecting=0.0 if self._looked is None else collected - self._collected,
            # It was written while nothing else could run, and not when it could again.
            is_alive=dump is not None
            and time.time() - dump.at > (length - self._interval) / 4,
        )
        self._excused += gap.excused
        self._cpu, self._collected, self._occupied = cpu, collected, occupied
        return gap

    def _goes_on(self, thread: int, sights: Sequence[Sight]) -> bool:
        """Return whether *thread* is in the same callback as before."""
        watched = self._watched[thread]
        if watched.answered is not None:
            return False
        for sight in sights:
            if sight.thread == thread and sight.mark == watched.mark:
                watched.looks += 1
                return True
        return False

    def _suspect(
        self, sight: Sight, gap: Gap, now: float, *, is_culprit: bool
    ) -> Watched:
        """Begin to watch what was not there at the last look."""
        earliest = now if self._looked is None else self._looked
        has_held = gap.held >= self._after and is_culprit
        if sight.is_first and sight.began is not None:
            began = sight.began
        elif sight.began is not None:
            began = max(sight.began, earliest)
        else:
            # Nobody has looked while ours went on: this need not have been there then.
            earliest = min(earliest + gap.ours, now)
            began = earliest if has_held else (earliest + now) / 2
        excused = self._excused - gap.excused
        if gap.held >= self._after and not is_culprit:
            excused -= gap.held  # another thread kept the GIL
        watched = Watched(
            sight,
            began,
            is_sure=sight.is_first or has_held,
            excused=excused,
            collected=self._collected - gap.collected,
            piece=self._long,
        )
        if not sight.is_exact:
            watched.ask(sight)
        self._watched[sight.thread] = watched
        return watched

    def _judge(self, sight: Sight, watched: Watched, now: float) -> None:
        if watched.stack is None:
            if watched.is_block(now, self._excused, self._after) and self._found_out(
                sight, watched, now
            ):
                watched.stack = sight.stack
                watched.ask(sight)
        elif now - watched.began >= watched.piece:
            self._tell(watched, now, goes_on=True)
            watched.began, watched.excused = now, self._excused
            watched.collected = self._collected
            watched.piece *= 2
            watched.is_told = True

    def _found_out(self, sight: Sight, watched: Watched, now: float) -> bool:
        """Find who blocks, or whom it keeps waiting; return whether there is anybody.

        What a callback did before the span was opened is not the span's.
        """
        span = current_in(sight.context)
        if span is None:
            watched.links = self._waiting(sight.thread)
            return True
        wall = time.time_ns()
        found = blamed(span, wall - int(self._after * 1e9))
        if found is None:
            return False
        watched.parent, started_at, watched.name = found
        watched.earliest = started_at
        watched.began = max(watched.began, now - (wall - started_at) / 1e9)
        return True

    def _end(self, thread: int, now: float) -> None:
        watched = self._watched.pop(thread)
        if watched.stack is None:
            return
        end = watched.answered
        goes_on = end is None and self._is_there(watched)
        end = now if end is None else end
        if watched.lasted(end, self._excused) >= self._after or watched.is_told:
            self._tell(watched, end, goes_on=goes_on)

    def _is_there(self, watched: Watched) -> bool:
        """Return whether the loop is still in that callback."""
        found = turns.look(self._parked)
        return any(sight.mark == watched.mark for sight in found.sights)

    def _waiting(self, thread: int) -> list[LinkData]:
        """Return links to the youngest open spans that *thread* has started.

        For what blocks a loop outside of every span: it keeps these from going on.
        """
        if len(self._registry) > _MOST_SCANNED:
            return []
        waiting = [
            span
            for span in self._registry.snapshot()
            if span.thread_id == thread and span.sampled
        ]
        return [
            LinkData(span.trace_id, span.span_id, is_remote=False, attributes={})
            for span in waiting[-_MOST_LINKS:]
        ]

    def _tell(self, watched: Watched, end: float, *, goes_on: bool) -> None:
        parent = watched.parent
        if parent is None and not watched.links:
            return  # nobody's run was kept waiting
        if parent is not None and not parent.trace_flags.sampled:
            return
        safety.count(safety.Count.LOOPS_BLOCKED)
        seconds = watched.lasted(end, self._excused)
        note = _noting().note_block
        safety.guarded("loops.note", note, watched, seconds, self._later)
        refused = self._rate.refused
        if self._rate.allows(time.monotonic()):
            self._rate.refused = 0
            collected = self._collections.seconds() - watched.collected
            form = form_of(
                watched, end, collected=collected, goes_on=goes_on, untold=refused
            )
            safety.guarded("loops.emit", self._emit, form)


def _noting() -> Any:  # noqa: ANN401 - the module
    with no_fork_at_first("noting"):
        from agenttrace.watchdog import noting  # noqa: PLC0415 - most loops turn
    return noting


def _is_where(dump: Dump | None, sight: Sight) -> bool:
    """Return whether *dump* found the callback in the line where it is now.

    Whoever only waits while keeping the GIL takes no CPU time.
    """
    stack = None if dump is None else dump.stack_of(sight.thread)
    if not stack or not sight.stack:
        return False
    return stack.partition("\n")[0].strip() == sight.stack[0].as_dumped()


def _more(now: float | None, then: float | None) -> float | None:
    return None if now is None or then is None else now - then
