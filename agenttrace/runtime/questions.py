"""Looks whether somebody asks this process where its open spans are, and has it said.

At every tick, by one `stat` of a directory that is there only while somebody asks.
What is said, and all that is needed for it, is imported then.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

from agenttrace import safety
from agenttrace.journal.process import of_process
from agenttrace.lazy import no_fork

if TYPE_CHECKING:
    from pathlib import Path

    from agenttrace.registry import OpenSpans
    from agenttrace.watchdog.questions import Box

DIRECTORY: Final = "questions"
"""As `watchdog.questions` has it, which is not imported before it is needed."""
_LOOKS: Final = 10
"""At how many ticks the directory is listed after it has changed: what came in the same
instant as a listing has not changed its time."""
_BUDGET: Final = 0.2
"""Seconds of one tick that go into answers: the ticker has others to serve, and what is
judged in the same tick has half a second more."""


class Questions:
    """Answers what is asked of one process.

    Args:
        directory: Where processes have their files.
        instance: The name of a journal of this one.
        spans: The open spans.

    Attributes:
        answered: How many questions were.
    """

    __slots__ = ("_left", "_path", "_prefix", "_seen", "_spans", "answered")

    def __init__(self, directory: Path, instance: str, spans: OpenSpans) -> None:
        self.answered = 0
        self._path = str(directory / DIRECTORY)
        self._prefix = of_process(instance) + "."
        self._spans = spans
        self._seen = (0, 0)
        self._left = 0

    def tick(self) -> None:
        """Answer what is asked, if anything is.  Called by the ticker."""
        try:
            facts = os.stat(self._path, follow_symlinks=False)  # noqa: PTH116 - at every tick
        except OSError:  # nobody asks
            return
        seen = facts.st_ino, facts.st_mtime_ns
        if seen != self._seen:
            self._seen, self._left = seen, _LOOKS
        if self._left:
            self._left -= 1
            self._look()

    def _look(self) -> None:
        try:
            names = os.listdir(self._path)  # noqa: PTH208 - names are enough
        except OSError:
            return
        if not any(name.startswith(self._prefix) for name in names):
            return
        with no_fork():
            from agenttrace.watchdog.questions import (  # noqa: PLC0415 - see above
                Box,
            )
        try:
            box = Box(self._path)
        except OSError:  # not ours, or gone by now
            return
        with box:
            self._answer_all(box)

    def _answer_all(self, box: Box) -> None:
        with no_fork():  # it may take longer than there is time for answers
            from agenttrace.watchdog import (  # noqa: PLC0415 - see above
                answers,  # noqa: F401  # pyright: ignore[reportUnusedImport] - see above
                questions,
            )

        deadline = time.monotonic() + _BUDGET
        for name in box.names():
            parts = questions.parts_of(name)
            if parts is None or not name.startswith(self._prefix):
                continue
            if box.is_stale(name):
                box.remove(name)
            elif parts[2] == questions.ASK:
                if time.monotonic() >= deadline:
                    self._left = _LOOKS  # at the next tick
                    return
                self._answer(box, name, *parts[:2], deadline)

    def _answer(
        self, box: Box, name: str, process: str, nonce: str, deadline: float
    ) -> None:
        from agenttrace.watchdog import questions  # noqa: PLC0415 - see above

        taken = questions.name_of(process, nonce, questions.TAKEN)
        try:
            box.rename(name, taken)
        except OSError:  # who has asked has gone
            return
        try:
            asked = box.get(taken, questions.LARGEST_QUESTION)
            if asked is None:
                return
            with no_fork():
                from agenttrace.watchdog.answers import (  # noqa: PLC0415 - see above
                    answer_to,
                )
            said = answer_to(asked, self._spans, deadline)
            if said is not None and box.has(taken):
                box.put(questions.name_of(process, nonce, questions.ANSWER), said)
                self.answered += 1
        except OSError:  # a disk that is full: who has asked is told by the silence
            return
        except (
            TypeError,
            ValueError,
        ) as error:  # others are to be answered all the same
            safety.swallow("answer", error)
        finally:
            box.remove(taken)
