"""`agenttrace top` shows what is open in processes that live, whatever they are at."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from agenttrace.cli.group import group
from agenttrace.cli.top_table import short
from agenttrace.live import Live
from agenttrace.settings import INSTANCES
from tests.cli.given import (
    COMMAND,
    DIES,
    TIME_LIMIT,
    die,
    environment,
    run,
    terminal,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from agenttrace.live import Picture

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows has no locks that a crash frees"
)
WORKS = """
    import sys
    import agenttrace
    from agenttrace import semconv

    agent = {semconv.GEN_AI_AGENT_NAME: "research"}
    runtime = agenttrace.configure(service_name=sys.argv[2], state_dir=sys.argv[1])
    with agenttrace.span("run"):
        with agenttrace.span("think", operation="invoke_agent", attributes=agent):
            # Past its limit as soon as anybody looks.
            with agenttrace.span("search", heartbeat_timeout=1e-6) as step:
                REST
                print("ready", flush=True)
                sys.stdin.readline()
"""
JUDGED = """
                from agenttrace.api.verbs import current_record
                from agenttrace.model import EndedBy, Ending, Outcome
                ending = Ending(Outcome.STUCK, EndedBy.WATCHDOG)
                assert runtime.spans.judge(current_record(), ending)
                runtime.flush()
"""
FORKED = """
                import os
                ours, theirs = os.pipe()
                if os.fork() == 0:
                    child = agenttrace.span("in the child")
                    child.__enter__()
                    os.write(theirs, b"!")
                    sys.stdin.readline()
                    os._exit(0)
                os.read(ours, 1)
"""
STARTED_BEFORE = """
                import time
                from opentelemetry import trace
                later = time.time_ns() + 3_600_000_000_000
                tracer = trace.get_tracer("app")
                kept = tracer.start_span("before it was set back", start_time=later)
"""
MANY = """
                import contextvars
                others = [agenttrace.span(f"other {at}") for at in range(100)]
                for other in others:
                    contextvars.Context().run(other.__enter__)
"""


def source(rest: str = "") -> str:
    return dedent(WORKS.replace("\n                REST", rest.rstrip()))


@contextmanager
def working(
    state_dir: Path, rest: str = "", service: str = "worker", **settings: str
) -> Generator[subprocess.Popen[str]]:
    """Run a process that has three steps open, each part of the one before.

    *settings* are variables that it finds in its environment.
    """
    with subprocess.Popen(
        [sys.executable, "-c", source(rest), str(state_dir), service],
        # What is judged, the tests judge.
        env=environment(AGENTTRACE_ON_STUCK="off", **settings),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def once(state_dir: Path, *options: str) -> tuple[int, Any]:
    """Run `top --once --json` to its end: exit code, and what it prints."""
    ran = run("top", "--once", "--json", "--state-dir", str(state_dir), *options)
    assert ran.stderr == ""
    return ran.returncode, json.loads(ran.stdout)


def until(live: Live, is_so: Callable[[Picture], bool]) -> Picture:
    """Look until it is so."""
    give_up_at = time.monotonic() + TIME_LIMIT
    while not is_so(picture := live.look()):
        assert time.monotonic() < give_up_at, picture
        time.sleep(0.05)
    return picture


def names(runs: list[dict[str, Any]]) -> list[Any]:
    """Return the names of steps, each with those beneath it."""
    return [[step["name"], *names(step["children"])] for step in runs]


def test_the_steps_of_a_process_are_told_with_their_limits(tmp_path: Path) -> None:
    """Which step is open, for how long, how idle, and how close to its limit."""
    with working(tmp_path) as process:
        code, told = once(tmp_path)

    [found] = told["processes"]
    assert (code, told["dead"], told["unreadable"]) == (0, [], [])
    assert (found["pid"], found["service"]) == (process.pid, "worker")
    assert names(found["runs"]) == [["run", ["think", ["search"]]]]
    [top] = found["runs"]
    [think] = top["children"]
    [search] = think["children"]
    assert (think["operation"], think["agent"]) == ("invoke_agent", "research")
    assert (think["waiting"], think["heartbeat_timeout"]) == (True, 300.0)
    assert think["pressure"] == 0
    assert (search["waiting"], search["judged"]) == (False, False)
    assert 0 < search["idle"] <= search["open"]
    assert search["pressure"] > 1
    assert (top["parent_id"], think["parent_id"]) == (None, top["span_id"])


def test_a_limit_of_the_settings_is_the_one_that_is_shown(tmp_path: Path) -> None:
    """A bar that is half empty when the verdict comes would be a lie."""
    with working(
        tmp_path,
        AGENTTRACE_HEARTBEAT_TIMEOUT="invoke_agent=20",
        AGENTTRACE_MAX_DURATION="900",
    ):
        _, told = once(tmp_path)

    [top] = told["processes"][0]["runs"]
    [think] = top["children"]
    [search] = think["children"]
    limits = [each["heartbeat_timeout"] for each in (top, think, search)]
    assert limits == [300.0, 20.0, 1e-6]
    assert [each["max_duration"] for each in (top, think, search)] == [900.0] * 3


def test_a_verdict_is_told_while_its_owner_hangs(tmp_path: Path) -> None:
    """The backend has it as stuck; here it can be seen that it still is."""
    with working(tmp_path, JUDGED):
        _, told = once(tmp_path)
        ran = run("top", "--state-dir", str(tmp_path))

    [found] = told["processes"]
    search = found["runs"][0]["children"][0]["children"][0]
    assert (search["judged"], search["verdict"]) == (True, "stuck")
    assert found["judged_count"] == 1
    lines = ran.stdout.splitlines()
    assert ran.returncode == 0
    assert "1 process, 1 run, 3 open steps, 1 judged" in lines[0]
    assert "└─ search" in lines[-1]
    assert lines[-1].endswith("■ stuck")


def test_into_a_pipe_goes_one_line_a_step(tmp_path: Path) -> None:
    """Whoever reads the pipe wants all of it, not 80 columns, and no colours."""
    with working(tmp_path) as process:
        ran = run("top", "--state-dir", str(tmp_path))

    assert ran.returncode == 0
    lines = [line.split() for line in ran.stdout.splitlines()[2:]]
    assert [line[:2] for line in lines] == [
        ["pid", str(process.pid)],
        ["└─", "run"],
        ["└─", "think"],
        ["└─", "search"],
    ]
    assert (lines[0][-1], lines[2][2]) == ("worker", "research")
    assert [line[-1] for line in lines[1:3]] == ["waiting", "waiting"]
    assert lines[3][-2:] == ["past", "limit"]
    assert "\x1b" not in ran.stdout


def test_a_process_that_is_stopped_is_frozen(tmp_path: Path) -> None:
    """Its own watchdog is stopped as well; only somebody else can tell."""
    live = Live(tmp_path)
    with working(tmp_path) as process:
        until(live, lambda picture: not picture.processes[0].is_frozen)
        process.send_signal(signal.SIGSTOP)

        after = until(live, lambda picture: picture.processes[0].is_frozen)
        _, told = once(tmp_path, "--stuck-only")
        process.send_signal(signal.SIGCONT)
        until(live, lambda picture: not picture.processes[0].is_frozen)

    assert after.processes[0].silence > 3
    assert told["processes"][0]["frozen"]


def test_a_directory_that_cannot_be_listed_is_told(tmp_path: Path) -> None:
    """On a damaged disk nobody is seen, which does not mean that nobody is there."""
    directory = tmp_path / INSTANCES
    directory.symlink_to(INSTANCES)  # which root cannot list either

    _, told = once(tmp_path)
    ran = run("top", "--state-dir", str(tmp_path))

    [unreadable] = told["unreadable"]
    assert unreadable == {
        "pid": None,
        "instance": str(directory),
        "reason": "Too many levels of symbolic links",
    }
    assert f"({directory}: {unreadable['reason']})" in ran.stdout


def test_a_clock_that_was_set_back_hides_no_process_that_is_stopped(
    tmp_path: Path,
) -> None:
    """A start that is still to come says nothing of who is alive now."""
    live = Live(tmp_path)
    with working(tmp_path, STARTED_BEFORE) as process:
        until(live, lambda picture: not picture.processes[0].is_frozen)
        process.send_signal(signal.SIGSTOP)

        after = until(live, lambda picture: picture.processes[0].is_frozen)
        process.send_signal(signal.SIGCONT)

    assert len(after.processes[0].forest.steps) == 4
    assert after.processes[0].silence > 3


def test_a_forked_child_is_a_process_of_its_own(tmp_path: Path) -> None:
    """Its steps are its own; what is open in its parent is not open in it."""
    with working(tmp_path, FORKED) as process:
        _, told = once(tmp_path)

    found = {each["pid"]: each for each in told["processes"]}
    ours = found.pop(process.pid)
    [theirs] = found.values()
    assert names(ours["runs"]) == [["run", ["think", ["search"]]]]
    assert names(theirs["runs"]) == [["in the child"]]
    search = ours["runs"][0]["children"][0]["children"][0]
    assert theirs["runs"][0]["parent_id"] == search["span_id"]


def test_the_dead_are_left_to_recovery(tmp_path: Path) -> None:
    """Their open steps are no more; what became of them is told elsewhere."""
    pid = die(tmp_path, DIES)

    code, told = once(tmp_path)
    ran = run("top", "--once", "--state-dir", str(tmp_path))
    recovered = run("recover", "--json", "--state-dir", str(tmp_path))

    [dead] = told["dead"]
    assert (code, ran.returncode) == (1, 1)
    assert (told["processes"], dead["pid"], dead["open"]) == ([], pid, 2)
    assert "1 process has died with 2 open steps: agenttrace recover" in ran.stdout
    assert json.loads(recovered.stdout)["lost"] == 2
    assert once(tmp_path)[1]["dead"] == []


def test_one_that_dies_under_the_eyes_of_it_is_told(tmp_path: Path) -> None:
    """What was kept of its journal is not told any more."""
    live = Live(tmp_path)
    with working(tmp_path) as process:
        before = live.look()
        process.kill()
        process.wait(TIME_LIMIT)

    after = live.look()

    assert [each.pid for each in before.processes] == [process.pid]
    assert [each.pid for each in before.dead] == []
    assert list(after.processes) == []
    assert [(each.pid, each.open) for each in after.dead] == [(process.pid, 3)]


def test_a_step_that_has_ended_is_gone_at_the_next_look(tmp_path: Path) -> None:
    """It is live: nothing that is over is kept."""
    live = Live(tmp_path)
    with working(tmp_path) as process:
        before = live.look()
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.close()
        assert process.wait(TIME_LIMIT) == 0

    assert len(before.processes[0].forest.steps) == 3
    assert list(live.look().processes) == []


def test_services_and_what_is_stuck_can_be_chosen(tmp_path: Path) -> None:
    """On a host with a hundred workers most of them are somebody else's, and well."""
    with working(tmp_path, JUDGED, "stuck"), working(tmp_path, FORKED, "other"):
        one = once(tmp_path, "--service", "other")[1]
        nobody = once(tmp_path, "--service", "nobody")
        stuck = once(tmp_path, "--stuck-only")[1]

    assert {each["service"] for each in one["processes"]} == {"other"}
    assert (nobody[0], nobody[1]["processes"]) == (1, [])
    kept = {
        (each["service"], step["name"])
        for each in stuck["processes"]
        for step in each["runs"]
        # On a machine that is busy enough, one that is well may be frozen.
        if step["name"] != "in the child" or not each["frozen"]
    }
    assert kept == {("stuck", "run"), ("other", "run")}


def test_where_nothing_runs_it_says_so(tmp_path: Path) -> None:
    """A directory that is not there is not made by whoever looks."""
    ran = run("top", "--once", "--state-dir", str(tmp_path / "nowhere"))

    assert ran.returncode == 1
    assert f"No process to show in {tmp_path / 'nowhere'}." in ran.stdout
    assert not (tmp_path / "nowhere").exists()


def test_a_journal_of_another_version_is_told(tmp_path: Path) -> None:
    """One that cannot be read must not hide the others."""
    with working(tmp_path, service="newer"):
        [journal] = (tmp_path / INSTANCES).glob("*.journal")
        with journal.open("r+b") as file:
            file.seek(8)
            file.write(bytes([99]))
        with working(tmp_path) as process:
            code, told = once(tmp_path)

    assert code == 0
    assert [each["pid"] for each in told["processes"]] == [process.pid]
    [unreadable] = told["unreadable"]
    assert unreadable["instance"] == journal.stem
    assert "another version" in unreadable["reason"]


def test_inside_a_live_process_it_costs_that_process_nothing(tmp_path: Path) -> None:
    """Closing any descriptor of its own lock would free it: others then take it over.

    A process of its own, because the one that runs the tests may not keep a journal.
    """
    looks = """
                from click.testing import CliRunner
                from agenttrace.cli.group import group
                for _ in range(2):
                    ran = CliRunner().invoke(group, ["top", "--state-dir", sys.argv[1]])
                    assert ran.exit_code == 0, ran.output
                    assert "search" in ran.output
"""
    with working(tmp_path, looks):
        ran = run("recover", "--state-dir", str(tmp_path))

    assert ran.stdout.startswith("No process has died")


def test_json_is_one_object_a_line_for_each_look(tmp_path: Path) -> None:
    """A program follows it like a log, and ends it when it has seen enough."""
    with (
        working(tmp_path) as process,
        subprocess.Popen(
            [*COMMAND, "top", "--json", "--every", "0.1", "--state-dir", str(tmp_path)],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        ) as top,
    ):
        assert top.stdout is not None
        told = [json.loads(top.stdout.readline()) for _ in range(3)]
        top.send_signal(signal.SIGTERM)
        _, errors = top.communicate(timeout=TIME_LIMIT)

    assert [each["processes"][0]["pid"] for each in told] == [process.pid] * 3
    assert told[0]["time"] < told[1]["time"] < told[2]["time"]
    assert (top.returncode, errors) == (0, "")


@pytest.mark.parametrize("end", ["q", signal.SIGINT, signal.SIGTERM])
def test_a_terminal_is_filled_again_and_again_and_left_as_it_was(
    tmp_path: Path, end: str | signal.Signals
) -> None:
    """Whoever quits has the lines of before, and sees what is typed."""
    with working(tmp_path) as process, terminal(tmp_path) as there:
        there.read_until(f"pid {process.pid}")
        while_it_runs = there.modes()
        there.shown = ""
        there.read_until("q quits")  # drawn once more
        process.kill()
        there.read_until("has died with 3 open steps")
        if isinstance(end, signal.Signals):
            there.process.send_signal(end)
        else:
            there.press(end)
        code = there.end()
        afterwards = there.modes()

    assert code == 0
    assert while_it_runs != there.before
    assert afterwards == there.before
    # The cursor is there again, and the lines of before.
    assert there.shown.rstrip().endswith("\x1b[?25h\x1b[?1049l")
    assert "Traceback" not in there.shown


def test_it_stops_and_goes_on_like_any_other(tmp_path: Path) -> None:
    """Ctrl-Z gives the shell a terminal that it can use."""
    with working(tmp_path) as process, terminal(tmp_path) as there:
        there.read_until(f"pid {process.pid}")
        there.press("x\x1a")  # a key that means nothing goes before
        there.read_until("\x1b[?1049l")
        _, status = os.waitpid(there.process.pid, os.WUNTRACED)
        while_it_stops = there.modes()
        there.shown = ""
        there.process.send_signal(signal.SIGCONT)
        there.read_until(f"pid {process.pid}")
        there.press("q")
        code = there.end()

    assert os.WIFSTOPPED(status)
    assert while_it_stops == there.before
    assert code == 0


def test_a_small_terminal_shows_what_is_most_urgent(tmp_path: Path) -> None:
    """A hundred others that are well do not push it off the screen."""
    with working(tmp_path, MANY), terminal(tmp_path, 9, 60) as there:
        there.read_until("and 99 more")
        there.press("q")
        code = there.end()

    assert code == 0
    assert "103 open steps" in there.shown
    assert "search" in there.shown


def test_an_interval_that_cannot_be_meant_is_refused() -> None:
    """Looking all the time would be a load of its own."""
    result = CliRunner().invoke(group, ["top", "--every", "0"])

    assert result.exit_code == 2


def test_no_time_is_wider_than_its_column() -> None:
    """A table that moves sideways cannot be read while it lives."""
    said = [short(10**at * factor) for at in range(-3, 8) for factor in (1, 5.97, 9.99)]

    assert max(map(len, said)) <= 7
    assert short(59.6) == "1m00s"
    assert short(3599.7) == "1h00m"
