"""Plays all cases of one factory, each on a stage of its own, and makes the report."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections import Counter
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final

from agenttrace.testing.conforming import coroutines, plain, processes
from agenttrace.testing.conforming.promises import Broken, Promise, Report
from agenttrace.testing.conforming.reading import is_value
from agenttrace.testing.conforming.stage import LEFT, OK, Stage
from agenttrace.testing.conforming.steps import Steps
from agenttrace.testing.conforming.subjects import ASYNC, is_stream, kind_of, name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    Factory = Callable[[], Any]

UNDISTURBED: Final = "nothing happens to it"
_MOST_LEAVING: Final = 5
"""Items after which a stream is left in turn."""

_logger: Final = logging.getLogger(__name__)
_one_at_a_time: Final = threading.RLock()
"""Held while a case is played: what is put in place to hear is of the process."""


class Baseline:
    """What an undisturbed run is, for the others to be compared with.

    Attributes:
        suspensions: How often it hands over to the event loop.
        items: How many items it yields.
        is_stream: Whether it is read item by item.
        is_in_block: Whether that is in the block of a context manager, which is left
            once, where it was entered.
        tree: Its spans, drawn; None where that is another one each time.
        names: How many spans of each name it has; None likewise.
    """

    def __init__(self) -> None:
        self.suspensions = 0
        self.items = 0
        self.is_stream = False
        self.is_in_block = False
        self.tree: str | None = None
        self.names: Counter[str] | None = None

    def see(self, stage: Stage, read: object) -> None:
        """Note what *read* is, which was read on *stage*."""
        self.is_stream = is_stream(read) and not is_value(stage)
        self.is_in_block = stage.was_in_block
        self.items = stage.items if self.is_stream else 0

    def leaving_points(self) -> list[int]:
        """Return the items after which it is left."""
        return evenly(self.items, _MOST_LEAVING)

    def left_after(self, items: int) -> frozenset[str]:
        """Return how it may have ended that is left after *items*.

        The last one may have been all, and a block that is left has come to its end.
        """
        return LEFT | OK if self.is_in_block or items == self.items else LEFT

    def same(self, stage: Stage, times: int = 1) -> None:
        """Expect the run of *stage* to have the same spans, *times* over."""
        stage.all_end(OK)
        if times == 1:
            stage.tree = self.tree
        elif self.names is not None:
            stage.names = Counter(
                {name: times * number for name, number in self.names.items()}
            )


class Playing:
    """One examination.

    Args:
        factory: Makes runs.
        name: What the report calls it; None takes the factory's own name.
        tree: What its spans have to be, as `assert_tree` takes it.
        most_points: Suspensions that are tried at most.
        patience: Seconds that work which goes on is given to come to its end.
        leave_out: Parts of names of cases that are left out.
    """

    def __init__(  # noqa: PLR0913 - the arguments of `examine`
        self,
        factory: Factory,
        *,
        name: str | None,
        tree: str | None,
        most_points: int,
        patience: float,
        leave_out: Collection[str],
    ) -> None:
        self._factory = factory
        self._tree = tree
        self._most_points = most_points
        self._patience = patience
        self._leave_out = (leave_out,) if isinstance(leave_out, str) else leave_out
        self._reads_iterables = True
        self.report = Report(name or name_of(factory))

    def play_all(self) -> Report:
        """Play every case and return the report."""
        # A call as well: what it leaves current is gone afterwards.
        is_async = copy_context().run(kind_of, self._factory) == ASYNC
        found = self._undisturbed(is_async=is_async)
        if found is None:
            return self.report
        for case, play in self._cases(found, is_async=is_async):
            if not any(part in case for part in self._leave_out):
                self._play(case, play)
        return self.report

    def _cases(
        self, found: Baseline, *, is_async: bool
    ) -> Iterator[tuple[str, Callable[[Stage], Any]]]:
        if is_async:
            points = evenly(found.suspensions, self._most_points)
            yield from coroutines.cases(self._factory, found, points)
        else:
            yield from plain.cases(self._factory, found)
        yield from processes.cases(self._factory, found, is_async=is_async)

    def _undisturbed(self, *, is_async: bool) -> Baseline | None:
        """Play an undisturbed run, twice; None where it is not worth going on."""
        found, steps = Baseline(), Steps()

        async def play(stage: Stage) -> None:
            read = await coroutines.drive(stage, self._factory, steps)
            found.see(stage, read)

        def play_plain(stage: Stage) -> None:
            found.see(stage, plain.drive(stage, self._factory))

        first = self._play(UNDISTURBED, play if is_async else play_plain)
        found.suspensions = steps.count
        self._reads_iterables = found.is_stream
        if self.report.broken:
            return None
        if not first.tops():
            self._broken(
                Promise.TRACED,
                "no span was started beneath the caller's: either nothing traces the "
                "run, or its spans are in traces of their own",
            )
            return None
        for span in first.tops():
            if (span.outcome or "ok") not in OK:
                self._broken(
                    Promise.TRUTH,
                    f"{span.name!r} says it ended as {span.outcome!r}, and nothing "
                    "has happened to it",
                )
        if self._tree is not None:
            difference = first.compared(self._tree)
            if difference is not None:
                self._broken(
                    Promise.TREE,
                    f"its tree is another one (- expected, + found):\n\n{difference}",
                )
        second = self._play(UNDISTURBED, play if is_async else play_plain)
        if first.drawn() == second.drawn():
            found.tree, found.names = first.drawn(), first.counted()
        else:
            self.report.skipped.append(
                "to compare trees: they differ from run to run, undisturbed"
            )
        return found

    def _broken(self, promise: Promise, what: str) -> None:
        self.report.broken.append(Broken(promise, UNDISTURBED, "", what))

    def _play(self, case: str, play: Callable[[Stage], Any]) -> Stage:
        _logger.info("%s: when %s", self.report.name, case)
        stage = Stage(case, self._patience)
        stage.reads_iterables = self._reads_iterables
        with _one_at_a_time, stage.watching():
            if inspect.iscoroutinefunction(play):
                _run(stage, play)
            else:
                # What it leaves current there is gone afterwards.
                copy_context().run(_guarded, stage, play)
        if case not in self.report.cases:
            self.report.cases.append(case)
        if stage.skipped:
            self.report.cases.remove(case)
            self.report.skipped.append(f"{case}: {stage.skipped}")
        else:
            self.report.broken += stage.broken
        return stage


def evenly(number: int, most: int) -> list[int]:
    """Return at most *most* of the numbers 1 to *number*, the ends among them.

    >>> evenly(3, 5), evenly(100, 4)
    ([1, 2, 3], [1, 34, 67, 100])
    """
    if number <= most:
        return list(range(1, number + 1))
    if most == 1:
        return [1]
    return [1 + round(i * (number - 1) / (most - 1)) for i in range(most)]


def _guarded(stage: Stage, play: Callable[[Stage], Any]) -> None:
    """Play, and note what comes out that the case did not expect."""
    try:
        play(stage)
    except Exception as error:  # noqa: BLE001 - whatever the run raises is its own
        stage.breaks(Promise.THROUGH, f"{error!r} comes out of the run")


def _run(stage: Stage, play: Callable[[Stage], Any]) -> None:
    """Play on an event loop, and judge what is open before that is torn down."""

    async def main() -> None:
        task = asyncio.create_task(play(stage))
        await asyncio.wait([task], timeout=stage.hang_after)
        if not task.done():
            stage.breaks(
                Promise.THROUGH, f"it has not come to an end in {stage.hang_after:g} s"
            )
            task.cancel()
            await asyncio.wait([task], timeout=stage.patience)
        if task.done() and not task.cancelled() and task.exception() is not None:
            error = task.exception()
            stage.breaks(Promise.THROUGH, f"{error!r} comes out of the run")
        await stage.quiet()
        await _end_others(stage)

    with asyncio.Runner() as runner:
        runner.run(main())


async def _end_others(stage: Stage) -> None:
    """Cancel what is left, as the end of the loop does, and wait for some time.

    The end of the loop would wait for ever for a task that takes no cancellation.
    """
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        _, others = await asyncio.wait(others, timeout=stage.hang_after)
    for task in others:
        stage.breaks(Promise.THROUGH, f"cancelled, {task.get_name()} goes on")
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 - as `gather` has it
        asyncio._unregister_task(task)  # noqa: SLF001 - documented
