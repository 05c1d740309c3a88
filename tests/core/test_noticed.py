"""What is noticed of an application is told once for each place, and never content."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as some

from agenttrace.noticed import (
    MOST,
    Kind,
    Notice,
    from_json,
    note,
    noticed,
    set_aside,
    to_json,
)
from agenttrace.testing.runtimes import fresh_runtime
from tests.core.programs import run

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


def test_what_is_noticed_again_is_counted_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A line that blocks its loop does so at every request."""
    with fresh_runtime(), caplog.at_level(logging.INFO, "agenttrace"):
        for _ in range(3):
            note(Kind.LOOP_BLOCKED, "app.py:3 in search", span="tool", detail="for 2 s")
        [found] = noticed()

    assert found == Notice("loop_blocked", "app.py:3 in search", "tool", "for 2 s", 3)
    [record] = [each for each in caplog.records if "noticed" in each.message]
    assert record.levelno == logging.INFO
    assert "app.py:3 in search" in record.message


def test_where_a_handler_of_the_log_may_hang_another_thread_logs_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The ticker is stopped by nobody: it notes, and has it said."""
    calls: list[tuple[str, Callable[[], object]]] = []

    def later(site: str, call: Callable[[], object]) -> None:
        calls.append((site, call))

    with fresh_runtime(), caplog.at_level(logging.INFO, "agenttrace"):
        note(Kind.LOOP_BLOCKED, "a.py:1 in f", later=later)
        before = [each.message for each in caplog.records]
        [(site, say)] = calls
        say()

    assert site == "noticed"
    assert not any("noticed" in message for message in before)
    assert any("a.py:1 in f" in each.message for each in caplog.records)


def test_there_is_room_for_so_many_and_the_first_are_kept() -> None:
    """Code that is made up as it goes has any number of lines."""
    with fresh_runtime():
        for number in range(MOST + 5):
            note(Kind.NO_TIMEOUT, f"app.py:{number} in ask")
        found = noticed()

    assert len(found) == MOST
    assert found[0].place == "app.py:0 in ask"


texts = some.text(max_size=20)


@given(some.lists(some.tuples(some.sampled_from(Kind), texts, texts, texts)))
def test_what_is_written_is_what_is_read(
    given_: list[tuple[Kind, str, str, str]],
) -> None:
    """Names of functions and spans are the application's, and may be anything."""
    bring_back = set_aside()
    try:
        for kind, place, span, detail in given_:
            note(kind, place, span=span, detail=detail)
        written, found = to_json(), noticed()
    finally:
        bring_back()

    assert from_json(written) == list(found)


@given(some.text() | some.sampled_from(["[1]", "{}", '[{"kind": 1}]', "[null, [[]]]"]))
def test_what_cannot_be_read_is_nothing(text: str) -> None:
    """The file is another process's, and it may be writing it."""
    assert all(isinstance(each, Notice) for each in from_json(text))


SLOWLY = """
    import importlib, sys, threading
    from importlib.machinery import PathFinder
    import agenttrace

    begun, go = threading.Event(), threading.Event()

    class Slow:
        def __init__(self, loader):
            self.loader = loader

        def create_module(self, spec):
            return self.loader.create_module(spec)

        def exec_module(self, module):
            begun.set()
            go.wait(60)
            self.loader.exec_module(module)

    class Finder:
        def find_spec(self, name, path=None, target=None):
            spec = None
            if name == "agenttrace.noticed":
                spec = PathFinder.find_spec(name, path)
                spec.loader = Slow(spec.loader)
            return spec

    sys.meta_path.insert(0, Finder())
    with agenttrace.configure() as runtime:
        args = ["agenttrace.noticed"]
        threading.Thread(target=importlib.import_module, args=args).start()
        begun.wait(60)
        threading.Timer(0.2, go.set).start()
        runtime._pipeline.rest()
        print(runtime.status().guard_hits)
"""


def test_what_is_imported_at_the_moment_is_waited_for() -> None:
    """The ticker finds the module before it has anything in it."""
    ran = run(SLOWLY)

    assert (ran.out.strip(), ran.err) == ("{}", "")
