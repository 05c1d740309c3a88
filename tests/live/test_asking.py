"""Who asks another process, and goes before it has answered."""

from __future__ import annotations

import itertools
import os
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from agenttrace.live import asking
from agenttrace.watchdog import questions

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

PROCESS = "7-0123456789ab"
OURS = {asking.__file__, questions.__file__}
ASK = asking.ask.__code__
CLEARS_UP = max(line for *_, line in ASK.co_lines() if line)
"""The last line."""


class CtrlC:
    """Raises `KeyboardInterrupt` at one line of all that come before the clearing up.

    Args:
        at: At which of them, from 0.
    """

    def __init__(self, at: int) -> None:
        self.has_come = False
        self._left = at
        self._is_over = False

    def __call__(self, frame: FrameType, event: str, _value: object) -> CtrlC | None:
        """Look at a line.  Called by the interpreter."""
        code = frame.f_code
        self._is_over |= code is questions.forget.__code__
        if self._is_over or self.has_come or code.co_filename not in OURS:
            return None
        if event == "line" and (code is not ASK or frame.f_lineno != CLEARS_UP):
            self._left -= 1
            if self._left < 0:
                self.has_come = True
                raise KeyboardInterrupt
        return self


def ask_with(ctrl_c: CtrlC, directory: Path) -> None:
    """Ask, and be interrupted."""
    sys.settrace(ctrl_c)
    try:
        asking.ask(directory, PROCESS, None, timeout=0)
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)


# A file that is open where it comes is closed by nobody but the end of the process.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_leaves_no_question_behind_wherever_it_comes(tmp_path: Path) -> None:
    """Also where the question has been put, and who puts it does not know yet."""
    for at in itertools.count():
        ctrl_c = CtrlC(at)
        # What a tracer raises in an `except` is what its thread handles from then on.
        thread = threading.Thread(target=ask_with, args=(ctrl_c, tmp_path))
        thread.start()
        thread.join()
        assert os.listdir(tmp_path) == []  # noqa: PTH208 - names are enough
        if not ctrl_c.has_come:
            assert at > 20
            return
