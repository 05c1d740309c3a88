"""Who asks another process, and goes before it has answered."""

from __future__ import annotations

import itertools
import os
import resource
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from agenttrace.live import asking
from agenttrace.watchdog import questions

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

PROCESS = "7-0123456789ab"
OURS = {asking.__file__, questions.__file__}
CLEAR_UP = {questions.forget.__code__, questions.Box.withdraw.__code__}


class CtrlC:
    """Raises `KeyboardInterrupt` at one line of all that asking takes.

    Args:
        at: At which of them, from 0.

    Attributes:
        has_come: Whether it has been raised.
        is_late: Whether that was when all that was left was to clear up.
    """

    def __init__(self, at: int) -> None:
        self.has_come = self.is_late = False
        self._left = at

    def __call__(self, frame: FrameType, event: str, _value: object) -> CtrlC | None:
        """Look at a line.  Called by the interpreter."""
        code = frame.f_code
        if self.has_come or code.co_filename not in OURS:
            return None
        self.is_late |= code in CLEAR_UP
        if event == "line":
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
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]
        # An empty directory is the next one's to remove.
        assert ctrl_c.is_late or not list(tmp_path.iterdir())
        if not ctrl_c.has_come:
            assert at > 20
            return


def test_a_question_is_taken_back_where_no_file_can_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process with too many files is one that somebody asks about."""
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    wait = vars(asking)["_wait"]

    # From then on: to put the question takes a descriptor.
    def wait_without_room(*given: Any) -> object:  # noqa: ANN401 - as it is called
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, usual[1]))
        return wait(*given)

    monkeypatch.setattr(asking, "_wait", wait_without_room)
    try:
        asking.ask(tmp_path, PROCESS, None, timeout=0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, usual)

    assert list(tmp_path.rglob("*.ask")) == []


def test_what_others_wait_for_is_not_a_dead_processes(tmp_path: Path) -> None:
    """They may wait for longer than most."""
    box = tmp_path / questions.DIRECTORY
    box.mkdir(mode=0o700)
    question = box / questions.name_of(PROCESS, "0123456789abcdef", questions.ASK)
    question.write_text("{}")
    os.utime(question, (1, 1))

    questions.forget(tmp_path, "8-0123456789ab")

    assert question.exists()
