"""Questions to a process are files: they are not believed, and cost nothing."""

from __future__ import annotations

import contextvars
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

import agenttrace
from agenttrace.registry import OpenSpans
from agenttrace.runtime import questions as asked
from agenttrace.runtime.process import PROCESS
from agenttrace.runtime.questions import Questions
from agenttrace.watchdog.answers import MOST, answer_to
from agenttrace.watchdog.questions import (
    ANSWER,
    ASK,
    DIRECTORY,
    LARGEST_QUESTION,
    STALE,
    VERSION,
    Box,
    forget,
    name_of,
    parts_of,
)

if TYPE_CHECKING:
    from pathlib import Path

    from agenttrace.testing.runtimes import FreshRuntime

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="nobody is asked on Windows: it has no journals"
)
OURS = "7-0123456789ab"
INSTANCE = OURS + "0000"
OTHER = "8-0123456789ab"
NONCE = "0123456789abcdef"
QUESTION: dict[str, Any] = {"version": VERSION, "spans": None}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the directory of the questions."""
    box = tmp_path / DIRECTORY
    box.mkdir(mode=0o700)
    return box


@pytest.fixture
def answering(tmp_path: Path) -> Questions:
    """Return what answers for the process `OURS`, which has nothing open."""
    return Questions(tmp_path, INSTANCE, OpenSpans())


def put(path: Path, said: object = QUESTION, process: str = OURS) -> Path:
    """Put a question, and return where its answer comes."""
    with Box(path) as box:
        box.put(name_of(process, NONCE, ASK), said)
    return path / name_of(process, NONCE, ANSWER)


def test_both_sides_know_the_directory_by_the_same_name() -> None:
    """It is written twice, so that a process need not import what asks."""
    assert asked.DIRECTORY == DIRECTORY


def test_a_question_is_answered_and_gone(path: Path, answering: Questions) -> None:
    """What stays would be answered again."""
    answer = put(path)

    answering.tick()

    told = json.loads(answer.read_bytes())
    assert (told["version"], told["pid"], told["steps"]) == (VERSION, os.getpid(), [])
    assert os.listdir(path) == [answer.name]  # noqa: PTH208 - names
    assert answer.stat().st_mode & 0o777 == 0o600


def test_who_is_not_asked_leaves_it_alone(path: Path, answering: Questions) -> None:
    """All processes of a state directory look into the same one."""
    put(path, process=OTHER)

    answering.tick()

    assert os.listdir(path) == [name_of(OTHER, NONCE, ASK)]  # noqa: PTH208 - names


def test_a_question_is_seen_that_has_not_changed_the_directorys_time(
    path: Path, answering: Questions
) -> None:
    """Clocks of file systems are coarse: two changes may have the same time."""
    at = path.stat().st_mtime_ns
    answering.tick()
    answer = put(path)
    os.utime(path, ns=(at, at))

    answering.tick()

    assert answer.exists()


@pytest.mark.parametrize(
    "said",
    [
        *([], "text", {}, {"version": VERSION + 1}, {"version": VERSION, "spans": 7}),
        {"version": VERSION, "spans": ["f" * 16], "much": "x" * LARGEST_QUESTION},
    ],
)
def test_what_is_no_question_is_removed_and_not_answered(
    said: object, path: Path, answering: Questions
) -> None:
    """Anything may write a file."""
    put(path, said)

    answering.tick()

    assert os.listdir(path) == []  # noqa: PTH208 - names


@pytest.mark.parametrize("text", ["{", "[" * 50_000, "\udc80"])
def test_what_is_no_json_is_removed(
    text: str, path: Path, answering: Questions
) -> None:
    """Half of a file, nested without end, or not even text."""
    name = path / name_of(OURS, NONCE, ASK)
    name.write_bytes(text.encode(errors="surrogatepass"))

    answering.tick()

    assert os.listdir(path) == []  # noqa: PTH208 - names


def test_links_pipes_and_directories_are_no_questions(
    path: Path, answering: Questions, tmp_path: Path
) -> None:
    """What a link leads to is read by nobody, and opening a pipe waits for nobody."""
    secret = tmp_path / "secret"
    secret.write_text(json.dumps(QUESTION))
    (path / name_of(OURS, NONCE[::-1], ASK)).symlink_to(secret)
    os.mkfifo(path / name_of(OURS, NONCE, ASK))
    (path / name_of(OURS, "f" * 16, ASK)).mkdir()

    answering.tick()

    assert not list(path.glob(f"*.{ANSWER}"))
    assert json.loads(secret.read_text()) == QUESTION


def test_a_link_in_place_of_the_directory_is_not_followed(
    tmp_path: Path, answering: Questions
) -> None:
    """Nor is a directory that others may write to."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    put(elsewhere)
    (tmp_path / DIRECTORY).symlink_to(elsewhere)
    answering.tick()
    (tmp_path / DIRECTORY).unlink()
    elsewhere.rename(tmp_path / DIRECTORY)
    (tmp_path / DIRECTORY).chmod(0o770)
    answering.tick()

    assert answering.answered == 0


def test_nobody_is_answered_who_has_gone_for_long(
    path: Path, answering: Questions
) -> None:
    """A process that was stopped finds what was asked meanwhile."""
    answer = put(path)
    old = time.time() - 2 * STALE
    os.utime(path / name_of(OURS, NONCE, ASK), (old, old))

    answering.tick()

    assert not answer.exists()
    assert os.listdir(path) == []  # noqa: PTH208 - names


def test_a_tick_without_a_question_is_one_look_for_a_directory(
    tmp_path: Path, answering: Questions
) -> None:
    """It comes five times a second, for as long as a span is open."""
    missing = str(tmp_path / "missing")

    def seconds(call: Any) -> float:  # noqa: ANN401 - of any make
        begun = time.perf_counter()
        for _ in range(2_000):
            call()
        return time.perf_counter() - begun

    def stat() -> None:
        os.path.exists(missing)  # noqa: PTH110 - what is compared

    ratio = min(seconds(answering.tick) / seconds(stat) for _ in range(5))

    assert ratio < 20


def test_what_was_asked_of_a_dead_process_goes_with_its_files(
    path: Path, tmp_path: Path
) -> None:
    """Whoever has asked may have been killed as well."""
    put(path)
    put(path, process=OTHER)

    forget(tmp_path, OURS)
    assert os.listdir(path) == [name_of(OTHER, NONCE, ASK)]  # noqa: PTH208 - names
    forget(tmp_path, OTHER)
    assert not path.exists()
    forget(tmp_path, OTHER)


def test_a_draft_is_no_question() -> None:
    """It is being written."""
    name = name_of(OURS, NONCE, ASK)

    assert parts_of(name) == (OURS, NONCE, ASK)
    assert parts_of(name + ".0a1b2c3d") is None


def test_an_answer_that_cannot_be_written_costs_no_other(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It raised out of the tick, and everybody else got none either."""
    monkeypatch.setenv("AGENTTRACE_STRICT", "0")

    def no_json(*_: object) -> dict[str, object]:
        return {"progress": object()}

    monkeypatch.setattr("agenttrace.watchdog.answers.answer_to", no_json)
    put(path)

    Questions(tmp_path, INSTANCE, OpenSpans()).tick()

    assert os.listdir(path) == []  # noqa: PTH208 - names


def test_a_span_that_ends_meanwhile_was_not_judged(
    traced: FreshRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was told as judged, which says that it had hung."""
    del traced
    with agenttrace.span("step"):
        listed = PROCESS.spans.snapshot()
    spans = OpenSpans()
    monkeypatch.setattr(spans, "snapshot", lambda: listed)

    said = answer_to(QUESTION, spans, time.monotonic() + 60)

    assert len(listed) == 1
    assert said is not None
    assert said["steps"] == []


def test_the_rest_of_many_spans_is_counted(traced: FreshRuntime) -> None:
    """An answer has bounds, in its time as in its length."""
    del traced
    spans = [agenttrace.span(f"step {at}") for at in range(MOST + 5)]
    for span in spans:
        contextvars.Context().run(span.__enter__)

    said = answer_to(QUESTION, PROCESS.spans, time.monotonic() - 1)

    assert said is not None
    steps: Any = said["steps"]
    assert (said["open"], len(steps), said["left_out"]) == (MOST + 5, MOST, 5)
    assert steps[0]["name"] == "step 0"  # silent for longest
    assert steps[0]["explanation"] == "there was no time left to look at it"
    for span in spans:
        contextvars.Context().run(span.__exit__, None, None, None)
