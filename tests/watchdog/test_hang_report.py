"""The hang report itself: what is in it, what is never in it, and that it comes."""

from __future__ import annotations

import asyncio
import linecache
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider

import agenttrace
from agenttrace.testing.runtimes import fresh_runtime
from agenttrace.watchdog import frames
from agenttrace.watchdog.cancelling import cancel_all
from agenttrace.watchdog.causes import Cause, wait_of
from agenttrace.watchdog.finding import Link
from agenttrace.watchdog.frames import (
    MAX_FRAMES,
    Frame,
    Whose,
    innermost,
    read_sources,
    told,
)
from agenttrace.watchdog.investigation import Investigation
from agenttrace.watchdog.report import MAX_TEXT, HangReport, describe
from tests.watchdog.hangs import PATIENCE, hang_of, open_span, running

if TYPE_CHECKING:
    from pathlib import Path
    from types import CodeType

    from agenttrace.testing.runtimes import FreshRuntime

_SECRET = "sk-" + "0123456789"


async def never(secret: str) -> None:
    assert secret
    await asyncio.Event().wait()


def code_of(file: str, function: str = "function") -> CodeType:
    """Return the code of a function that stands in *file*."""
    namespace: dict[str, Any] = {}
    exec(compile(f"def {function}(): pass", file, "exec"), namespace)  # noqa: S102 - of our own making
    code: CodeType = namespace[function].__code__
    return code


@pytest.mark.usefixtures("traced")
def test_a_report_is_told_as_attributes_and_as_text() -> None:
    """Backends show the one, people read the other: both name cause and place."""

    async def hangs() -> None:
        with agenttrace.span("outer"), agenttrace.span("inner"):
            agenttrace.heartbeat("page 4 of 10", progress=0.4)
            await never("x")

    with running(hangs):
        report = hang_of("inner", "awaiting_nothing", "never")
    values = report.attributes()

    assert values["agenttrace.hang.cause"] == "awaiting_nothing"
    assert values["agenttrace.hang.rule"] == "silence"
    assert values["agenttrace.hang.idle"] == 61.0
    assert values["agenttrace.hang.limit"] == 60.0
    assert values["agenttrace.hang.note"] == "page 4 of 10"
    assert values["agenttrace.hang.progress"] == 0.4
    assert values["code.function.name"] == "never"
    assert values["code.file.path"] == __file__
    assert values["code.line.number"] == never.__code__.co_firstlineno + 2
    assert "await asyncio.Event().wait()" in str(values["code.stacktrace"])
    assert all(isinstance(value, str | int | float | bool) for value in values.values())
    text = report.text()
    assert "outer / inner: no progress for 61.0 s" in text
    assert "awaiting_nothing: it waits for an event that nobody has set" in text
    assert "progress 0.4, note 'page 4 of 10'" in text


@pytest.mark.usefixtures("traced")
def test_no_value_of_a_variable_is_told() -> None:
    """Arguments are prompts and keys: a report goes to places where they must not."""

    async def hangs() -> None:
        local = _SECRET
        with agenttrace.span("secret"):
            await asyncio.create_task(never(local))

    with running(hangs):
        report = hang_of("secret", "awaiting_nothing", "never")

    assert _SECRET not in report.text()
    assert _SECRET not in str(report.attributes())
    assert _SECRET not in repr(report)


@pytest.mark.usefixtures("traced")
def test_a_deep_stack_is_told_in_bounds() -> None:
    """Its outermost and its innermost lines, and nothing in between."""

    async def deeper(levels: int) -> None:
        if levels:
            await deeper(levels - 1)
        else:
            await never("x")

    async def hangs() -> None:
        with agenttrace.span("deep"):
            await deeper(300)

    with running(hangs):
        report = hang_of("deep", "awaiting_nothing", "never")

    assert len(report.links[0].frames) == MAX_FRAMES
    assert report.links[0].frames[0].function.endswith("hangs")
    assert len(report.text()) <= MAX_TEXT
    assert len(str(report.attributes()["code.stacktrace"])) <= MAX_TEXT


def test_the_task_of_a_span_is_cancelled_with_the_message(traced: FreshRuntime) -> None:
    """The span ends as cancelled, and the application hears why."""
    heard: list[str] = []

    async def hangs() -> None:
        try:
            with agenttrace.span("hung"):
                await never("x")
        except asyncio.CancelledError as error:
            heard.append(str(error))

    with running(hangs) as run:
        hang_of("hung", "awaiting_nothing", "never")
        span = open_span("hung")
        assert span is not None
        assert cancel_all([(span, "no progress for 60 s")])
        wait_until(run.loop.is_closed)

    assert heard == ["no progress for 60 s"]
    (told_span,) = traced.exported()
    assert told_span.attributes is not None
    assert told_span.attributes["agenttrace.outcome"] == "cancelled"


@pytest.mark.usefixtures("traced")
def test_a_task_that_has_left_the_span_is_not_cancelled() -> None:
    """Between the verdict and the loop's turn it may have gone on to other work."""
    done = threading.Event()
    go_on: list[asyncio.Event] = []
    survived: list[bool] = []

    async def hangs() -> None:
        go_on.append(asyncio.Event())
        with agenttrace.span("late"):
            await go_on[0].wait()
            # Whatever is asked of the loop now has to wait for this.
            done.wait()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        survived.append(True)

    with running(hangs, asyncio.new_event_loop, done.set) as run:
        hang_of("late", "awaiting_nothing", "hangs")
        span = open_span("late")
        assert span is not None
        run.loop.call_soon_threadsafe(go_on[0].set)
        hang_of("late", "event_loop_blocked", "hangs")
        assert cancel_all([(span, "too late")])
        done.set()
        wait_until(run.loop.is_closed)

    assert survived == [True]


@pytest.mark.usefixtures("traced")
def test_a_thread_cannot_be_cancelled() -> None:
    """Python has no way to, and to say so is better than to pretend."""
    done = threading.Event()

    def hangs() -> None:
        with agenttrace.span("thread"):
            done.wait()

    thread = threading.Thread(target=hangs)
    thread.start()
    try:
        hang_of("thread", "awaiting_nothing", "hangs")
        span = open_span("thread")
        assert span is not None
        assert not cancel_all([(span, "never")])
    finally:
        done.set()
        thread.join(PATIENCE)


def test_a_span_of_another_provider_is_described() -> None:
    """Adopted spans hang like any other."""
    provider = TracerProvider()
    tracer = provider.get_tracer("theirs")

    async def hangs() -> None:
        with tracer.start_as_current_span("adopted"):
            await never("x")

    with fresh_runtime(tracer_provider=provider), running(hangs):
        report = hang_of("adopted", "awaiting_nothing", "never")

    assert report.certain


def test_a_report_is_made_whatever_goes_wrong() -> None:
    """It says less then; the verdict does not wait for it."""

    class Broken:
        name, operation = "broken", None
        trace_id, span_id = b"\0" * 16, b"\1" * 8
        note, progress, last_beat = None, None, 0
        thread_id = 0

        def path(self) -> str:
            return self.name

        @property
        def parent(self) -> object:
            message = "gone"
            raise RuntimeError(message)

    span: Any = Broken()
    with fresh_runtime(swallows=["hang report"]):
        report = describe(span, idle=1.0, limit=1.0, rule="silence", now=time.time_ns())

    assert report.cause is Cause.UNKNOWN
    assert report.attributes()["agenttrace.hang.certain"] is False


@pytest.mark.usefixtures("traced")
def test_what_a_debugger_looks_at_is_left_alone() -> None:
    """Variables are not asked for where a tracing tool would write them back."""
    done = threading.Event()

    def hangs() -> None:
        sys.settrace(lambda _frame, _event, _argument: None)
        with agenttrace.span("traced"):
            done.wait()
        sys.settrace(None)

    thread = threading.Thread(target=hangs)
    thread.start()
    try:
        hang_of("traced", "awaiting_nothing", "hangs")
    finally:
        done.set()
        thread.join(PATIENCE)


@pytest.mark.usefixtures("traced")
def test_a_clock_that_stands_still_does_not_keep_a_report_for_ever() -> None:
    """Tests stop clocks, and forget a loop that is blocked meanwhile."""
    done = threading.Event()

    async def blocks() -> None:
        with agenttrace.span("blocked"):
            done.wait()

    with running(blocks, asyncio.new_event_loop, done.set):
        hang_of("blocked", "event_loop_blocked", "blocks")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "monotonic", lambda: 1.0)
            span = open_span("blocked")
            assert span is not None
            report = describe(span, idle=1.0, limit=1.0, rule="silence", now=0)

    assert report.cause is Cause.EVENT_LOOP_BLOCKED


def test_a_source_that_is_no_file_is_not_read(tmp_path: Path) -> None:
    """A pipe would be read for ever."""
    pipe = tmp_path / "pipe.py"
    os.mkfifo(pipe)
    frame = Frame(code_of(str(pipe)), 1)

    frames.read_sources([frame])

    assert frame.source == ""


def test_a_line_of_a_file_is_read(tmp_path: Path) -> None:
    """Without its indentation, and not the whole of a very long one."""
    file = tmp_path / "long.py"
    file.write_text("first\n    second = '" + "x" * 1000 + "'\n")
    frame = Frame(code_of(str(file)), 2)

    frames.read_sources([frame])

    assert frame.source.startswith("second = 'xxx")
    assert len(frame.source) < 200


def test_the_interpreters_own_frames_are_told_at_the_end_alone() -> None:
    """Between two lines of the application's they say nothing."""
    application = code_of("/srv/app.py", "handler")
    machinery = asyncio.Runner.run.__code__
    ours = HangReport.text.__code__

    found = told(
        [(machinery, 1), (application, 2), (machinery, 3), (ours, 4), (application, 5)]
    )
    at_the_end = told([(application, 1), (ours, 2), (machinery, 3)])

    assert [frame.line for frame in found] == [2, 5]
    assert [frame.line for frame in at_the_end] == [1, 3]


def test_the_innermost_line_is_the_applications() -> None:
    """Of an application that is installed like a library, that one's."""
    library = code_of("/x/site-packages/shop/basket.py")
    plumbing = code_of("/x/site-packages/httpx/_client.py")
    application = code_of("/srv/app.py")

    lines = [Frame(code, 1) for code in (application, library, plumbing)]

    assert innermost(lines) is lines[0]
    assert innermost(lines[1:]) is lines[1]
    assert innermost(lines[2:]) is lines[2]
    assert innermost([]) is None


def test_a_library_that_is_served_by_a_network_library_waits_for_itself() -> None:
    """The handler of a web server stands beneath the server's frames."""
    server = code_of("/x/site-packages/aiohttp/web.py")
    library = code_of("/x/site-packages/shop/basket.py")

    in_the_client = wait_of([(library, 1), (server, 1)])
    in_the_handler = wait_of([(server, 1), (library, 1)])

    assert in_the_client is not None
    assert in_the_client.cause is Cause.NETWORK_WAIT
    assert in_the_handler is None


def test_a_client_between_two_attempts_sleeps() -> None:
    """It has had an answer, and does not wait for the network."""
    client = code_of("/x/site-packages/openai/_base_client.py")
    sleep = asyncio.sleep.__code__

    on_a_loop = wait_of([(client, 1), (sleep, 1)])
    in_a_thread = wait_of([(client, 1)], "sleep")

    assert on_a_loop is not None
    assert in_a_thread is not None
    assert (on_a_loop.cause, in_a_thread.cause) == (Cause.SLEEP, Cause.SLEEP)


@given(st.text(max_size=80))
def test_every_file_name_is_somebodys(file: str) -> None:
    """Code is compiled under all kinds of names."""
    assert frames.whose(file) in Whose
    assert isinstance(frames.short(file), str)


def test_nothing_of_it_is_imported_before_it_is_needed() -> None:
    """Start-up is paid by everybody, a hang report by few."""
    program = (
        "import sys, agenttrace; agenttrace.configure(durable=False);"
        "agenttrace.instrument();"
        "print([name for name in sys.modules if 'agenttrace.watchdog' in name])"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE * 2,
        env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
    )

    assert "watchdog.report" not in done.stdout
    assert "watchdog.ticker" in done.stdout


def wait_until(true: Any) -> None:  # noqa: ANN401 - asked for its truth
    """Wait until `true()` is.

    Raises:
        AssertionError: It never was.
    """
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("<ipython-input-3-0af3>", "wait()"),
        ("/tmp/ipykernel_17/123.py", "wait()"),  # noqa: S108 - as it is called
        ("<attrs generated hold>", ""),
        ("<prompt 17>", ""),
    ],
)
def test_lines_are_told_of_code_that_somebody_wrote(file: str, text: str) -> None:
    """What a program has written may quote what it was made from."""
    line = "wait()\n"
    linecache.cache[file] = (len(line), None, [line], file)
    frame = Frame(compile(line, file, "exec"), 1)
    try:
        read_sources([frame])
    finally:
        del linecache.cache[file]

    assert frame.source == text


def test_a_name_takes_one_line() -> None:
    """It is the application's, and may look like a part of the report."""
    link = Link("task", "a\n  cause      none\x0b" + "b" * 500, [])

    assert str(link).startswith("task a cause none b")
    assert len(str(link)) < 150


def test_a_loop_is_not_told_as_blocked_for_want_of_time_to_look() -> None:
    """One that is only busy was, by a look that had used up its time."""
    entered, go = threading.Event(), threading.Event()
    found: list[asyncio.Task[None] | None] = []

    async def step() -> None:
        found.append(asyncio.current_task())
        entered.set()
        go.wait(60)

    thread = threading.Thread(target=lambda: asyncio.run(step()))
    thread.start()
    try:
        assert entered.wait(60)
        [task] = found
        assert task is not None
        finding = Investigation(time.monotonic()).task(task)
    finally:
        go.set()
        thread.join()

    assert finding.cause is not Cause.EVENT_LOOP_BLOCKED
