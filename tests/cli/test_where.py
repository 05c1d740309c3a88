"""`agenttrace where` shows the stack of an open span of a process that lives."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

from agenttrace.live import Live
from agenttrace.settings import INSTANCES
from agenttrace.watchdog.questions import DIRECTORY
from tests.cli.given import COMMAND, DIES, TIME_LIMIT, die, environment, run

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from agenttrace.live import Process

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows has no locks that a crash frees"
)
BEGIN = """
import asyncio, ctypes, json, os, sys, threading, time
import agenttrace

def begin(**settings):
    settings = {"on_stuck": "off", **settings}
    return agenttrace.configure(
        service_name="shop", state_dir=sys.argv[1], **settings
    )

def ready(said=None):
    print(json.dumps(said), flush=True)

def wait():
    sys.stdin.readline()
"""
CHAIN = """
    async def search():
        with agenttrace.span("search"):
            ready()
            await asyncio.Event().wait()

    async def think():
        with agenttrace.span("think"):
            await search()

    begin()
    asyncio.run(think())
"""
STEP = """
    begin()
    with agenttrace.span("run"), agenttrace.span("step"):
        ready()
        wait()
"""
PATIENT = ("--timeout", "60")
"""It is over as soon as there is an answer, also on a slow machine."""


@contextmanager
def working(
    state_dir: Path, source: str, *options: str
) -> Generator[tuple[subprocess.Popen[str], Any]]:
    """Run a process until it is `ready`; also return what it has said."""
    with subprocess.Popen(
        [sys.executable, "-c", BEGIN + dedent(source), str(state_dir), *options],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def asked(state_dir: Path, target: object, *options: str) -> tuple[int, Any]:
    """Run `where --json` to its end: exit code, and what it says of processes."""
    ran = run(
        *("where", str(target), "--json", "--state-dir", str(state_dir)),
        *(options or PATIENT),
    )
    return ran.returncode, json.loads(ran.stdout)["processes"]


def asked_until(state_dir: Path, target: object, **said: object) -> tuple[int, Any]:
    """Ask until that is said of the first span.

    A process that has said that it is ready is so a moment later.
    """
    give_up_at = time.monotonic() + TIME_LIMIT
    while True:
        code, found = asked(state_dir, target)
        steps = found[0]["steps"]
        if steps and said.items() <= steps[0].items():
            return code, found
        assert time.monotonic() < give_up_at, found


def until(state_dir: Path, is_so: Callable[[Process], bool]) -> None:
    """Wait until it is so of the process that has its files in *state_dir*."""
    live = Live(state_dir)
    give_up_at = time.monotonic() + TIME_LIMIT
    while not any(map(is_so, live.look().processes)):
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


def nothing_is_left(state_dir: Path) -> bool:
    return not (state_dir / INSTANCES / DIRECTORY).exists()


def test_the_await_chain_of_a_task_is_shown_down_to_where_it_waits(
    tmp_path: Path,
) -> None:
    """What a debugger would show, of a process that nobody has stopped."""
    with working(tmp_path, CHAIN) as (process, _):
        code, [found] = asked_until(tmp_path, process.pid, cause="awaiting_nothing")

    search, think = found["steps"]
    assert (code, found["state"], found["service"]) == (0, "answered", "shop")
    assert (search["path"], search["cause"]) == ("think / search", "awaiting_nothing")
    assert (search["function"], search["certain"]) == ("search", True)
    assert re.findall(r"in (\w+)\n", search["stacktrace"] + "\n")[:2] == [
        "think",
        "search",
    ]
    assert (think["same_as"], think["stacktrace"]) == (search["span_id"], None)
    assert nothing_is_left(tmp_path)


def test_people_read_it_as_a_hang_report(tmp_path: Path) -> None:
    """In a pipe as in a terminal, without colours."""
    with working(tmp_path, CHAIN) as (process, _):
        asked_until(tmp_path, process.pid, cause="awaiting_nothing")
        ran = run("where", str(process.pid), "--state-dir", str(tmp_path), *PATIENT)

    lines = ran.stdout.splitlines()
    assert lines[0] == f"process {process.pid} (shop), 2 spans open"
    assert lines[2].startswith("think / search: open for ")
    assert lines[3].startswith("  cause      awaiting_nothing: ")
    assert any(re.search(r"File .*, in search", line) for line in lines)
    assert "\x1b" not in ran.stdout
    assert ran.stderr == ""


def test_a_thread_is_shown_at_the_lock_that_it_waits_for(tmp_path: Path) -> None:
    """Agents work in threads as well."""
    with working(
        tmp_path,
        """
        stock = threading.Lock()

        def reserve():
            with agenttrace.span("reserve"):
                ready()
                with stock:
                    pass

        begin()
        stock.acquire()
        threading.Thread(target=reserve, name="clerk").start()
        wait()
        """,
    ) as (process, _):
        _, [found] = asked_until(tmp_path, process.pid, cause="lock")

    [step] = found["steps"]
    assert step["function"] == "reserve"
    assert step["waits_for"] == ["thread clerk"]


def test_work_that_was_handed_to_a_thread_is_followed_there(tmp_path: Path) -> None:
    """The coroutine says only that it waits for somebody."""
    with working(
        tmp_path,
        """
        def reserve():
            ready()
            stock.acquire()

        async def order():
            with agenttrace.span("order"):
                await asyncio.to_thread(reserve)

        stock = threading.Lock()
        stock.acquire()
        begin()
        asyncio.run(order())
        """,
    ) as (process, _):
        _, [found] = asked_until(tmp_path, process.pid, cause="lock")

    [step] = found["steps"]
    assert step["function"] == "reserve"
    assert [each.split()[0] for each in step["waits_for"]] == ["task", "thread"]


def test_a_blocked_loop_is_blamed_on_who_blocks_it(tmp_path: Path) -> None:
    """The one that is asked for is innocent, and suspended."""
    with working(
        tmp_path,
        """
        async def innocent():
            with agenttrace.span("innocent"):
                await asyncio.sleep(0)
                await asyncio.sleep(0.01)

        async def culprit():
            await asyncio.sleep(0)
            ready()
            time.sleep(600)

        async def main():
            await asyncio.gather(innocent(), culprit())

        begin()
        asyncio.run(main())
        """,
    ) as (process, _):
        _, [found] = asked_until(tmp_path, process.pid, cause="event_loop_blocked")

    [step] = found["steps"]
    assert step["function"] == "culprit"


def test_one_span_is_named_by_the_beginning_of_its_id(tmp_path: Path) -> None:
    """As it is copied from a dashboard, in whichever process it is."""
    with working(tmp_path, STEP) as (process, _), working(tmp_path, STEP):
        _, [all_of_it] = asked(tmp_path, process.pid)
        step, top = all_of_it["steps"]
        _, of_span = asked(tmp_path, step["span_id"][:14].upper())
        _, of_trace = asked(tmp_path, step["trace_id"][:30])

    assert step["trace_id"] == top["trace_id"]
    assert [each["pid"] for each in of_span] == [process.pid]
    assert [each["name"] for each in of_span[0]["steps"]] == ["step"]
    assert [each["name"] for each in of_trace[0]["steps"]] == ["step", "run"]


def test_a_beginning_that_several_have_is_no_name(tmp_path: Path) -> None:
    """To show one of them would be to show the wrong one."""
    with working(
        tmp_path,
        """
        begin()
        spans = [agenttrace.span(f"step {at}") for at in range(40)]
        entered = [span.__enter__().get_span_context() for span in spans]
        first = [format(each.span_id >> 60, "x") for each in entered]
        # There are more of them than digits.
        ready(max("abcdef0123456789", key=first.count))
        wait()
        """,
    ) as (_, digit):
        ran = run("where", digit, "--state-dir", str(tmp_path))

    assert ran.returncode == 2
    assert f"Several ids begin with '{digit}'" in ran.stderr
    assert f"span {digit}" in ran.stderr


def test_a_span_that_was_judged_is_still_shown(tmp_path: Path) -> None:
    """It is the one that people come for; its backend has it as failed by now."""
    with working(
        tmp_path,
        """
        def overdue():
            with agenttrace.span("overdue", max_duration=0.01):
                while not runtime.status().counts["spans_overdue"]:
                    time.sleep(0.01)
                ready()
                wait()

        runtime = begin(on_stuck="fail", stuck_hooks=[])
        with agenttrace.span("run"):
            overdue()
        """,
    ) as (process, _):
        _, [found] = asked_until(tmp_path, process.pid, function="wait")

    judged = {each["name"]: each["judged"] for each in found["steps"]}
    assert judged == {"run": False, "overdue": True}
    told = next(each for each in found["steps"] if each["judged"])
    assert told["function"] == "wait"


def test_where_nothing_is_open_nobody_is_asked(tmp_path: Path) -> None:
    """It does not tick, and would never answer."""
    with working(tmp_path, "begin()\nready()\nwait()") as (process, _):
        code, [found] = asked(tmp_path, process.pid)

    assert (code, found["state"], found["steps"]) == (1, "idle", [])
    assert found["message"] == "no span is open in it"


def test_where_all_was_judged_it_is_said_where_to_look(tmp_path: Path) -> None:
    """Such a process rests: there is nothing more that it could judge."""
    with working(
        tmp_path,
        """
        runtime = begin(on_stuck="fail")
        with agenttrace.span("run", max_duration=0.01):
            while not runtime.status().counts["spans_overdue"]:
                time.sleep(0.01)
            ready()
            wait()
        """,
    ) as (process, _):
        until(tmp_path, lambda seen: bool(seen.forest.judged))
        code, [found] = asked(tmp_path, process.pid)

    assert (code, found["state"]) == (1, "idle")
    assert "1 span was judged and not come back" in found["message"]


def test_a_process_that_is_stopped_is_called_stopped(tmp_path: Path) -> None:
    """It needs no second to find that out, and no question."""
    with working(tmp_path, STEP) as (process, _):
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        code, [found] = asked(tmp_path, process.pid)
        ran = run("where", str(process.pid), "--state-dir", str(tmp_path))

    assert (code, found["state"], found["paths"]) == (3, "stopped", ["run / step"])
    assert f"kill -CONT {process.pid}" in ran.stdout
    assert "  open       run / step" in ran.stdout


DUMPS = "gil_dump_after=1, loop_blocked_after=0.25"
"""It is the event loop monitor that has them written."""
HOLDS = """
    keeps_the_gil = ctypes.PyDLL(None)

    def holds():
        ready()
        while True:
            keeps_the_gil.usleep(900_000_000)

    begin(SETTINGS)
    with agenttrace.span("run"):
        while not sys.modules.get("agenttrace.runtime.questions"):
            time.sleep(0.01)
        time.sleep(0.5)
        holds()
"""


def test_c_code_that_keeps_the_gil_is_said_to_and_what_would_show_it(
    tmp_path: Path,
) -> None:
    """Nothing in the process can answer, and whoever asks is not left to wait."""
    with working(tmp_path, HOLDS.replace("SETTINGS", "")) as (process, _):
        until(tmp_path, lambda seen: seen.is_frozen)
        code, [found] = asked(tmp_path, process.pid, "--timeout", "1")

    assert (code, found["state"], found["dump"]) == (3, "silent", None)
    assert "C code keeps the GIL" in found["message"]
    assert "AGENTTRACE_GIL_DUMP_AFTER" in found["message"]
    assert nothing_is_left(tmp_path)


def test_the_stacks_that_faulthandler_has_written_are_shown(tmp_path: Path) -> None:
    """They are all that there is of a process whose GIL is held."""
    with working(tmp_path, HOLDS.replace("SETTINGS", DUMPS)) as (
        process,
        _,
    ):
        until(tmp_path, lambda seen: seen.is_frozen)
        dumps = (tmp_path / INSTANCES).glob("*.dump")
        dump = next(dumps)
        give_up_at = time.monotonic() + TIME_LIMIT
        while b"in holds" not in dump.read_bytes():
            assert time.monotonic() < give_up_at
            time.sleep(0.05)
        code, [found] = asked(tmp_path, process.pid, "--timeout", "1")
        ran = run(
            *("where", str(process.pid), "--timeout", "1"),
            *("--state-dir", str(tmp_path)),
        )

    assert (code, found["state"]) == (3, "silent")
    assert "in holds" in found["dump"]
    assert "in holds" in ran.stdout


def test_of_a_dead_process_it_is_said_who_delivers_its_spans(tmp_path: Path) -> None:
    """Its stack is gone with it; its spans are not."""
    pid = die(tmp_path, DIES, OTEL_TRACES_EXPORTER="console")

    code, [found] = asked(tmp_path, pid)

    assert (code, found["state"], found["open"]) == (1, "dead", 2)
    assert "agenttrace recover" in found["message"]


def test_a_span_of_a_dead_process_is_found(tmp_path: Path) -> None:
    """Who has its id knows no pid."""
    with working(tmp_path, STEP) as (process, _):
        _, [alive] = asked(tmp_path, process.pid)
        process.kill()
        process.wait(TIME_LIMIT)
        code, [found] = asked(tmp_path, alive["steps"][0]["span_id"])

    assert (code, found["state"], found["pid"]) == (1, "dead", process.pid)


def test_of_a_process_without_a_journal_it_is_said_why_that_may_be(
    tmp_path: Path,
) -> None:
    """It may be the wrong directory, or the wrong setting."""
    with working(
        tmp_path,
        """
        begin(durable=False)
        with agenttrace.span("run"):
            ready()
            wait()
        """,
    ) as (process, _):
        ran = run("where", str(process.pid), "--state-dir", str(tmp_path))

    assert ran.returncode == 1
    assert f"Process {process.pid} keeps no journal in {tmp_path}" in ran.stderr
    assert "durable=False" in ran.stderr
    assert "--state-dir" in ran.stderr


@pytest.mark.parametrize(
    ("target", "code", "said"),
    [
        ("four", 2, "neither a process id nor"),
        ("", 2, "neither a process id nor"),
        ("999999999", 1, "There is no process 999999999"),
        ("00000000000000000001", 1, "No open span or run has an id that begins with"),
        ("abc", 1, "No open span or run has an id that begins with 'abc'"),
    ],
)
def test_what_stands_for_nothing_is_told_in_one_line(
    target: str, code: int, said: str, tmp_path: Path
) -> None:
    """A typing error is not to look like an error of ours."""
    ran = run("where", target, "--state-dir", str(tmp_path))

    assert (ran.returncode, ran.stdout) == (code, "")
    assert said in ran.stderr


def test_a_forked_child_answers_for_itself(tmp_path: Path) -> None:
    """Its parent's spans are none of its own."""
    with working(
        tmp_path,
        """
        begin()
        with agenttrace.span("in the parent"):
            time.sleep(0.5)
            child = os.fork()
            if not child:
                with agenttrace.span("in the child"):
                    ready(os.getpid())
                    wait()
                    os._exit(0)
            os.waitpid(child, 0)
        """,
    ) as (process, child):
        _, [of_child] = asked(tmp_path, child)
        _, [of_parent] = asked(tmp_path, process.pid)

    assert [each["name"] for each in of_child["steps"]] == ["in the child"]
    assert [each["name"] for each in of_parent["steps"]] == ["in the parent"]


def test_after_exec_the_new_program_answers(tmp_path: Path) -> None:
    """It has the pid of the one before, whose journal is that of a dead process."""
    with working(
        tmp_path,
        """
        if len(sys.argv) == 2:
            begin()
            agenttrace.span("before").__enter__()
            again = [sys.executable, *sys.orig_argv[1:], "again"]
            os.execv(sys.executable, again)
        begin()  # and recovers what was before, which may be seen meanwhile
        with agenttrace.span("after"):
            ready()
            wait()
        """,
    ) as (process, _):
        _, [found, *_] = asked_until(tmp_path, process.pid, name="after")

    assert [each["name"] for each in found["steps"]] == ["after"]


def test_a_process_that_was_configured_again_answers_for_all_its_spans(
    tmp_path: Path,
) -> None:
    """They stand in two journals, and it is one process."""
    with working(
        tmp_path,
        """
        begin()
        with agenttrace.span("old"):
            begin()
            with agenttrace.span("new"):
                ready()
                wait()
        """,
    ) as (process, _):
        _, [found] = asked(tmp_path, process.pid)

    assert [each["name"] for each in found["steps"]] == ["new", "old"]


def test_a_process_that_is_attached_answers(tmp_path: Path) -> None:
    """Spans of other libraries are open spans as well."""
    with working(
        tmp_path,
        """
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        trace.set_tracer_provider(TracerProvider())
        begin()
        with trace.get_tracer("of another library").start_as_current_span("theirs"):
            with agenttrace.span("ours"):
                ready()
                wait()
        """,
    ) as (process, _):
        code, [found] = asked_until(tmp_path, process.pid, function="wait")

    assert code == 0
    assert {each["name"] for each in found["steps"]} == {"ours", "theirs"}
    assert {each["function"] for each in found["steps"]} == {"wait"}


def test_many_who_ask_at_once_are_all_answered(tmp_path: Path) -> None:
    """None of them may take another one's answer, or the directory from under it."""
    with working(tmp_path, STEP) as (process, _):
        options = ("--json", *PATIENT, "--state-dir", str(tmp_path))
        asking = [
            subprocess.Popen(
                [*COMMAND, "where", str(process.pid), *options],
                env=environment(),
                stdout=subprocess.PIPE,
                encoding="utf-8",
            )
            for _ in range(6)
        ]
        said = [each.communicate(timeout=TIME_LIMIT)[0] for each in asking]

    assert [each.returncode for each in asking] == [0] * len(asking)
    for each in said:
        [found] = json.loads(each)["processes"]
        assert [step["name"] for step in found["steps"]] == ["step", "run"]
    assert nothing_is_left(tmp_path)


def test_who_cannot_ask_is_told_why(tmp_path: Path) -> None:
    """The directory may be read-only, or somebody else's; here it is none."""
    with working(tmp_path, STEP) as (process, _):
        (tmp_path / INSTANCES / DIRECTORY).write_text("not a directory")
        code, [found] = asked(tmp_path, process.pid)

    assert (code, found["state"]) == (3, "deaf")
    assert "it cannot be asked through" in found["message"]


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root sees others'"
)
def test_another_users_process_is_not_asked(tmp_path: Path) -> None:
    """It believes nobody else, and files of root's are not to be left with it."""
    with working(tmp_path, STEP) as (process, _):
        for lock in (tmp_path / INSTANCES).glob("*.lock"):
            os.chown(lock, 12345, -1)
        code, [found] = asked(tmp_path, process.pid)

    assert (code, found["state"]) == (3, "deaf")
    assert found["message"] == "it belongs to user 12345: ask as that user"
    assert nothing_is_left(tmp_path)


def test_what_a_heartbeat_said_is_not_told(tmp_path: Path) -> None:
    """Nor is any value: an answer lies on a disk, if only for a moment."""
    with working(
        tmp_path,
        """
        def hold(password):
            agenttrace.heartbeat("s3cret note", progress=0.5)
            ready()
            wait()

        begin()
        with agenttrace.span("run"):
            hold("s3cret")
        """,
    ) as (process, _):
        _, [found] = asked_until(tmp_path, process.pid, function="wait")

    [step] = found["steps"]
    assert (step["function"], step["progress"]) == ("wait", 0.5)
    # The source line of the call is code, and not a value.
    assert "s3cret note" not in json.dumps(found)


def test_a_process_that_is_not_asked_has_nothing_to_do_for_it(tmp_path: Path) -> None:
    """Thousands of open spans are looked at by nobody, and nothing is imported."""
    with working(
        tmp_path,
        """
        import contextvars
        from agenttrace.runtime.process import PROCESS

        begin()
        spans = [agenttrace.span(f"step {at}") for at in range(1_000)]
        for span in spans:
            contextvars.Context().run(span.__enter__)
        ticks = PROCESS.ticker.ticks
        while PROCESS.ticker.ticks < ticks + 5:
            time.sleep(0.01)
        ready([name for name in sys.modules if name.startswith("agenttrace.watchdog")])
        wait()
        """,
    ) as (process, imported):
        assert process.poll() is None

    assert "agenttrace.watchdog.ticker" in imported
    assert "agenttrace.watchdog.questions" not in imported
    assert "agenttrace.watchdog.answers" not in imported


def test_of_a_thousand_open_spans_some_are_told_and_the_rest_is_counted(
    tmp_path: Path,
) -> None:
    """An answer has its bounds; whoever wants another one names it."""
    with working(
        tmp_path,
        """
        import contextvars
        begin()
        spans = [agenttrace.span(f"step {at}") for at in range(1_000)]
        entered = [contextvars.Context().run(span.__enter__) for span in spans]
        ready(format(entered[0].get_span_context().span_id, "016x"))
        wait()
        """,
    ) as (process, first):
        _, [found] = asked(tmp_path, process.pid)
        _, [of_one] = asked(tmp_path, first)

    assert (found["open"], len(found["steps"]), found["left_out"]) == (1000, 100, 900)
    assert [each["name"] for each in of_one["steps"]] == ["step 0"]


def test_recovery_removes_what_was_asked_of_the_dead(tmp_path: Path) -> None:
    """Both may have been killed, who was asked and who has asked."""
    die(tmp_path, DIES, OTEL_TRACES_EXPORTER="console")
    [lock] = (tmp_path / INSTANCES).glob("*.lock")
    box = tmp_path / INSTANCES / DIRECTORY
    box.mkdir(mode=0o700)
    (box / f"{lock.stem[:-4]}.0123456789abcdef.ask").write_text("{}")

    ran = run("recover", "--state-dir", str(tmp_path), OTEL_TRACES_EXPORTER="console")

    assert ran.returncode == 0
    assert nothing_is_left(tmp_path)


def test_ctrl_c_leaves_no_question_behind(tmp_path: Path) -> None:
    """Whoever asks a process that hangs is impatient."""
    with working(tmp_path, HOLDS.replace("SETTINGS", "")) as (process, _):
        until(tmp_path, lambda seen: seen.is_frozen)
        options = (*PATIENT, "--state-dir", str(tmp_path))
        with subprocess.Popen(
            [*COMMAND, "where", str(process.pid), *options],
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as asking:
            box = tmp_path / INSTANCES / DIRECTORY
            give_up_at = time.monotonic() + TIME_LIMIT
            while not (box.exists() and os.listdir(box)):  # noqa: PTH208 - names
                assert time.monotonic() < give_up_at
                time.sleep(0.01)
            asking.send_signal(signal.SIGINT)
            asking.wait(TIME_LIMIT)

    assert nothing_is_left(tmp_path)
