"""`agenttrace demo` in a process of its own, as whoever tries agenttrace runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

from agenttrace import semconv
from agenttrace.delivery.store import FILE_NAME, Node, Reader, build_forest
from agenttrace.testing.model_server import ModelServer, Reply, Request, text, tool_call
from tests.delivery.collector import Collector
from tests.delivery.collector import Reply as Answer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from agenttrace.model import SpanData

TIME_LIMIT = 60
COMMAND = (sys.executable, "-m", "agenttrace.cli", "demo")
SPANS = 39
OF_THE_FIRST = 12
"""Spans of the run that finishes, which comes first."""
OUTCOMES = {
    "finishes": "ok",
    "reader_leaves": "abandoned",
    "cancelled": "cancelled",
    "cut": "error",
    "retried": "ok",
    "hangs": "stuck",
    "blocks": "ok",
    "killed": "lost",
}
NOBODY = "http://127.0.0.1:9"
THERE = "http://there/{trace_id}?theme=dark"
BLOCKS = "ping_router"
"""The tool that blocks the event loop."""

# The real command, that has but the first run to play: what is asked of the account is
# the same of one run as of eight.
FIRST_ALONE = """
    import sys
    from agenttrace.cli import main
    from agenttrace.demo import scenarios

    scenarios.SCENARIOS = scenarios.SCENARIOS[:1]
    sys.argv = ["agenttrace", "demo", *sys.argv[1:]]
    sys.exit(main())
"""
# With something done between the run and its account.
MEDDLING = """
    import sqlite3
    from agenttrace import demo

    close = demo.close

    def meddle(played, screen):
        with sqlite3.connect(played.store) as store:
            store.execute("DELETE FROM spans WHERE name = 'execute_tool find_order'")
        store.close()
        return close(played, screen)

    demo.close = meddle
"""
# With something else in the store that began after the run.
BESIDE = """
    import agenttrace
    from agenttrace import demo

    close = demo.close

    def write_beside(played, screen):
        agenttrace.configure(state_dir=played.store.parent)
        with agenttrace.span("somebody else's"):
            pass
        agenttrace.shutdown()
        return close(played, screen)

    demo.close = write_beside
"""
WITHOUT = """
    import sys
    from agenttrace.cli import main

    sys.modules[sys.argv.pop()] = None
    sys.argv = ["agenttrace", "demo"]
    sys.exit(main())
"""


def run(
    *arguments: str, command: tuple[str, ...] = COMMAND, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end."""
    return subprocess.run(
        [*command, *arguments],
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **environment},
        capture_output=True,
        encoding="utf-8",
        timeout=TIME_LIMIT,
        check=False,
    )


def as_scripted(spans: Iterable[SpanData]) -> list[SpanData]:
    """Return *spans* without the blocks of the event loop that the machine has made.

    One that is busy holds it up as well, and that is told.  Of the script is the one
    tool that blocks it.
    """
    return [
        span
        for span in spans
        if span.name != semconv.LOOP_BLOCKED
        or span.attributes.get(semconv.CODE_FUNCTION_NAME) == BLOCKS
    ]


def calls_of(run: Node) -> list[Node]:
    """Return the model calls of *run*."""
    return [node for node in run.walk() if node.span.name.startswith("chat ")]


def program(
    source: str, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a program that runs the demo."""
    command = (sys.executable, "-c", dedent(source))
    return run(*arguments, command=command, **environment)


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the demo of this module kept its spans."""
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def shown(
    state_dir: Path,
) -> Iterator[tuple[subprocess.CompletedProcess[str], Collector]]:
    """Run the demo once, for all tests that only look.

    Return it, and the Collector that has got its spans as well.
    """
    with Collector() as collector:
        yield (
            run(
                *("--state-dir", str(state_dir), "--trace-url", THERE),
                OTEL_EXPORTER_OTLP_ENDPOINT=collector.base,
            ),
            collector,
        )


@pytest.fixture
def ran(
    shown: tuple[subprocess.CompletedProcess[str], Collector],
) -> subprocess.CompletedProcess[str]:
    """Return the demo as it ran."""
    return shown[0]


@pytest.fixture(scope="module")
def disturbed() -> tuple[subprocess.CompletedProcess[str], int]:
    """Run the demo where much is set that is not meant for it.

    Return it, and how many requests came to the model server of the environment.
    """
    with ModelServer() as somebody:
        ran = run(
            "--json",
            OPENAI_BASE_URL=somebody.base_url,
            OPENAI_API_KEY="a real key",
            HTTP_PROXY=NOBODY,
            ALL_PROXY=NOBODY,
            OTEL_SDK_DISABLED="true",
            OTEL_TRACES_SAMPLER="always_off",
            OTEL_TRACES_EXPORTER="console",
        )
        return ran, len(somebody.requests)


@pytest.fixture
def runs(ran: subprocess.CompletedProcess[str], state_dir: Path) -> list[Node]:
    """Return the runs that the store has, in the order they were played."""
    assert ran.returncode == 0, ran.stderr
    reader = Reader(state_dir / FILE_NAME)
    forests = [
        forest
        for run in reader.runs(100)
        if (forest := build_forest(as_scripted(reader.spans(run.trace_id))))
    ]
    assert {len(forest) for forest in forests} == {1}
    return [forest[0] for forest in reversed(forests)]


def test_the_demo_ends_well_and_quietly(
    ran: subprocess.CompletedProcess[str],
) -> None:
    """Two commands and a minute are what a newcomer gives us."""
    assert (ran.returncode, ran.stderr) == (0, "")
    assert (
        f"Every span is accounted for: {SPANS} started, {SPANS} in the store."
        in ran.stdout
    )
    assert "\x1b" not in ran.stdout


def test_it_tells_where_a_run_waits_while_it_waits(
    ran: subprocess.CompletedProcess[str],
) -> None:
    """That a run is known before it has ended is half of the promise."""
    assert "Still open: invoke_agent research / chat demo-model" in ran.stdout


def test_it_ends_with_the_command_that_shows_the_runs_again(
    ran: subprocess.CompletedProcess[str], state_dir: Path
) -> None:
    """What one has just watched is the first thing to try the other commands on."""
    *_, last = ran.stdout.strip().splitlines()

    command = last.removeprefix("See the runs again: agenttrace ").split()
    again = run(*command, command=COMMAND[:-1])

    assert command[-1] == str(state_dir)
    assert again.returncode == 0
    for name in ("triage", "adviser", "explain", "research", "summarize"):
        assert f"invoke_agent {name}" in again.stdout


def test_that_command_shows_them_where_others_write_as_well(tmp_path: Path) -> None:
    """An application in the same directory does, and so does a loop that is late."""
    ran = program(BESIDE + FIRST_ALONE, "--state-dir", str(tmp_path))

    *_, last = ran.stdout.strip().splitlines()
    command = last.removeprefix("See the runs again: agenttrace ").split()
    again = run(*command, command=COMMAND[:-1])
    assert (ran.returncode, ran.stderr) == (0, "")
    assert command[:3] == ["tree", "--last", "2"]
    assert "invoke_workflow find an order" in again.stdout


def test_each_run_is_in_the_store_with_its_own_outcome(runs: list[Node]) -> None:
    """How a run ended is what the demo is about: closed alone is not enough."""
    assert [(run.span.name, run.outcome) for run in runs] == [
        ("invoke_workflow find an order", "ok"),
        ("invoke_workflow advise on a router", "abandoned"),
        ("invoke_agent research", "cancelled"),
        ("invoke_agent explain", "error"),
        ("invoke_agent summarize", "ok"),
        ("invoke_workflow refund", "cancelled"),
        ("invoke_agent check", "ok"),
        ("invoke_agent nightly", "lost"),
    ]
    for run in runs[:5]:
        assert {node.outcome for node in calls_of(run)} == {run.outcome}


def test_model_calls_and_tool_stand_under_their_agent(runs: list[Node]) -> None:
    """A tree that is wrong is worse than a list."""
    finished = runs[0]

    steps = [
        (
            agent.span.name,
            [step.span.name for turn in agent.children for step in turn.children],
        )
        for agent in finished.children[0].children
    ]
    assert steps == [
        ("invoke_agent triage", ["chat demo-model", "handoff"]),
        (
            "invoke_agent orders",
            ["chat demo-model", "execute_tool find_order", "chat demo-model"],
        ),
    ]
    assert finished.tokens == (191, 36)


def test_what_had_arrived_of_a_broken_answer_is_on_its_span(runs: list[Node]) -> None:
    """An abandoned stream was paid for as far as it came."""
    for run in (runs[1], runs[3]):
        (chat,) = calls_of(run)
        assert chat.span.attributes[semconv.PARTIAL] is True
        assert chat.span.attributes[semconv.OUTPUT_CHARACTERS]
        assert chat.items


def test_a_streamed_run_stops_with_the_client_that_read_it(runs: list[Node]) -> None:
    """What nobody reads any more is not to be paid for."""
    assert {node.ended_by for node in runs[1].walk()} == {"disconnect"}


def test_a_retried_request_is_one_model_call(
    ran: subprocess.CompletedProcess[str], runs: list[Node]
) -> None:
    """Attempts are the client's business; the agent has asked once."""
    assert "the client sent 2 requests" in ran.stdout
    (chat,) = runs[4].children
    assert chat.is_fine


def test_a_sub_agent_that_hangs_is_told_while_it_hangs_and_where(
    ran: subprocess.CompletedProcess[str], runs: list[Node]
) -> None:
    """Deepest blame, the line that waits, and what came of it in the end."""
    run = runs[5]
    (stuck,) = (node for node in run.walk() if node.outcome == "stuck")

    assert (run.ended_by, stuck.ended_by) == ("cancel", "watchdog")
    assert stuck.span.name == "execute_tool ask_manager"
    assert stuck.span.end_time < run.span.end_time
    (hang,) = stuck.span.events
    assert hang.attributes[semconv.HANG_CAUSE] == "awaiting_nothing"
    assert hang.attributes[semconv.CODE_FUNCTION_NAME] == "ask_manager"
    assert [(late.span.name, late.outcome) for late in stuck.children] == [
        ("agenttrace.late_finish: execute_tool ask_manager", "cancelled")
    ]
    told = "stuck: ... / invoke_agent approver / turn 1 / execute_tool ask_manager"
    assert told in ran.stdout
    assert "ask_manager (" in ran.stdout


def test_a_tool_that_blocks_the_loop_is_named(
    ran: subprocess.CompletedProcess[str], runs: list[Node]
) -> None:
    """Its own span is fine: it is everybody else who has waited."""
    (tool,) = runs[6].children
    (blocked,) = tool.children

    assert tool.outcome == "ok"
    assert blocked.span.name == semconv.LOOP_BLOCKED
    assert blocked.span.attributes[semconv.CODE_FUNCTION_NAME] == BLOCKS
    assert "the tool blocked the event loop" in ran.stdout


def test_a_killed_worker_is_recovered_under_its_true_parents(
    ran: subprocess.CompletedProcess[str], runs: list[Node]
) -> None:
    """What was open is lost, and says so; what had ended keeps its own outcome."""
    killed = runs[7]

    assert killed.ended_by == "recovery"
    assert [
        (node.span.name, node.outcome, node.ended_by) for node in killed.children
    ] == [
        ("chat demo-model", "ok", "return"),
        ("execute_tool rebuild_index", "lost", "recovery"),
    ]
    assert "invoke_agent nightly / execute_tool rebuild_index" in ran.stdout
    assert "2 spans were open, 1 had ended and not been sent." in ran.stdout


def test_where_no_journal_can_be_kept_the_killed_worker_is_left_out(
    tmp_path: Path,
) -> None:
    """The other runs need none, and an account without it says why."""
    (tmp_path / "instances").touch()

    ran = run("--state-dir", str(tmp_path))

    assert (ran.returncode, ran.stderr) == (0, "")
    assert "Left out, a worker that is killed: no journal can be kept" in ran.stdout
    assert f"{SPANS - 3} started, {SPANS - 3} in the store." in ran.stdout
    assert "acknowledged" not in ran.stdout  # nobody was named who could have
    assert "\x1b" not in ran.stdout


def test_a_span_that_is_missing_in_the_store_is_named() -> None:
    """An account that cannot fail proves nothing."""
    ran = program(MEDDLING + FIRST_ALONE)

    assert (ran.returncode, ran.stderr) == (1, "")
    _, account = ran.stdout.split("The account does not close")
    assert f": {OF_THE_FIRST} started, {OF_THE_FIRST - 1} in the store." in account
    assert "a run that finishes: span " in account
    assert "(execute_tool find_order) is not in the store" in account
    assert "Every span is accounted for" not in ran.stdout
    (line,) = (
        line for line in ran.stdout.splitlines() if line.startswith("a run that fin")
    )
    assert line.split("ok")[-1].split()[:2] == [str(OF_THE_FIRST), "11"]


def test_an_otlp_endpoint_gets_the_spans_as_well(
    shown: tuple[subprocess.CompletedProcess[str], Collector], runs: list[Node]
) -> None:
    """Whoever has a dashboard wants to see the demo there."""
    ran, collector = shown
    spans = collector.spans()

    assert (ran.returncode, ran.stderr) == (0, "")
    beside = [name for span in spans if (name := span.name).startswith("agenttrace.")]
    assert len({span.span_id for span in spans}) == SPANS + len(beside)
    # A machine that is busy holds the loop up as well, and that is told.
    late = "agenttrace.late_finish: execute_tool ask_manager"
    assert {*beside} == {late, semconv.LOOP_BLOCKED}
    assert {span.resource["service.name"] for span in spans} == {"agenttrace-demo"}
    assert f"{collector.endpoint} acknowledged {len(spans)} spans" in ran.stdout
    for run in runs:  # a block that nothing was open beneath has a trace of its own
        there = THERE.format(trace_id=run.span.trace_id.hex())
        assert f"  {there}\n" in ran.stdout
    assert "jaeger" not in ran.stdout


def test_an_endpoint_that_takes_nothing_keeps_the_account_open() -> None:
    """Spans in the store are no proof that the dashboard has them."""
    with Collector(usual=Answer(400)) as collector:
        ran = program(
            FIRST_ALONE,
            "--json",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.base,
        )

    told = json.loads(ran.stdout)["account"]
    assert (ran.returncode, ran.stderr) == (1, "")
    assert told["closes"] is False
    assert told["in_store"] == OF_THE_FIRST
    assert told["otlp"] == {"to": collector.endpoint, "acknowledged": 0}


def test_nothing_in_the_environment_reaches_into_it(
    disturbed: tuple[subprocess.CompletedProcess[str], int],
) -> None:
    """A question that went to somebody's paid model by surprise would be the end."""
    ran, asked = disturbed

    assert (ran.returncode, ran.stderr) == (0, "")
    assert asked == 0


def test_json_is_one_object_with_runs_and_account(
    disturbed: tuple[subprocess.CompletedProcess[str], int],
) -> None:
    """Programs want what people read, and nothing beside it."""
    told: dict[str, Any] = json.loads(disturbed[0].stdout)

    store = told["account"].pop("store")
    assert {each["name"]: each["outcome"] for each in told["runs"]} == OUTCOMES
    assert all(each["started"] == each["in_store"] > 1 for each in told["runs"])
    assert not any(each["missing"] or each["problems"] for each in told["runs"])
    assert not any(each["url"] or each["in_jaeger"] for each in told["runs"])
    assert told["runs"][0]["input_tokens"] == 191
    assert told["account"] == {
        "closes": True,
        "started": SPANS,
        "in_store": SPANS,
        "problems": [],
        "otlp": None,
    }
    assert store.endswith(FILE_NAME)


def test_a_real_model_is_asked_only_when_it_is_named() -> None:
    """The runs that need an accident are left out: no real model has them on demand."""

    def answer(request: Request) -> Reply | None:
        if not request.wants_answer:
            return None
        if request.text.startswith("Compare"):
            return text("Never said.", stall="head")
        if request.text.endswith("money back."):
            return tool_call("approve", {"input": "12 euros"})
        if request.text == "12 euros":
            return tool_call("ask_manager", {"amount": request.text})
        if request.text.startswith("How"):
            return text("so it goes " * 20, stall="mid")
        return text("so it goes")

    with ModelServer(answer) as model:
        ran = run(
            "--live",
            "their-model",
            "--json",
            OPENAI_BASE_URL=model.base_url,
            OPENAI_API_KEY="theirs",
        )

        models = {exchange.request.model for exchange in model.requests}

    told = json.loads(ran.stdout)
    assert (ran.returncode, ran.stderr) == (0, ""), told["account"]["problems"]
    assert models == {"their-model"}
    assert [each["outcome"] for each in told["runs"]] == [
        "ok",
        "abandoned",
        "cancelled",
        "stuck",
        "ok",
    ]


def test_a_real_model_that_refuses_is_told_in_words() -> None:
    """A wrong key is the most likely mistake, and no reason for a traceback."""
    with ModelServer(ModelServer.by_model_name) as model:
        ran = program(
            FIRST_ALONE,
            "--live",
            "err=401",
            OPENAI_BASE_URL=model.base_url,
            OPENAI_API_KEY="wrong",
        )

    assert (ran.returncode, ran.stderr) == (1, "")
    assert "POST /triage was answered with 500" in ran.stdout
    assert "openai.AuthenticationError" in ran.stdout


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("http://there/traces", "an address with {trace_id} in it"),
        ("there/{trace_id}", "an address with {trace_id} in it"),
        ("http://there/{trace_id}", "left out, as no OTLP endpoint is set"),
    ],
)
def test_a_link_that_would_lead_nowhere_is_refused(template: str, said: str) -> None:
    """Before the first run: nobody waits for eight of them to be told so."""
    ran = run("--trace-url", template)

    assert (ran.returncode, ran.stdout) == (2, "")
    assert said in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_a_real_model_needs_a_key() -> None:
    """The message names the variable, not a class of the client."""
    environment = {**os.environ}
    environment.pop("OPENAI_API_KEY", None)

    ran = subprocess.run(
        [*COMMAND, "--live", "m"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
        check=False,
    )

    assert ran.returncode == 2
    assert "OPENAI_API_KEY" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_store_that_cannot_be_written_is_told_before_the_first_run(
    tmp_path: Path,
) -> None:
    """Fifteen seconds of runs without trees, and a list of lost spans, say less."""
    (tmp_path / "file").touch()
    (tmp_path / "taken" / FILE_NAME).mkdir(parents=True)

    for place in ("file", "file/beneath", "taken"):
        ran = run("--state-dir", str(tmp_path / place))

        assert (ran.returncode, ran.stdout) == (2, "")
        assert f"state_dir='{tmp_path / place}'" in ran.stderr
        assert len(ran.stderr.splitlines()) == 1


@pytest.mark.parametrize("library", ["agents", "fastapi", "uvicorn", "rich", "h11"])
def test_a_missing_extra_is_told_in_one_line(library: str) -> None:
    """It says what to install, before anything else has happened."""
    ran = program(WITHOUT, library)

    assert (ran.returncode, ran.stdout) == (2, "")
    assert 'pip install "agenttrace-otel[demo]"' in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_it_can_be_interrupted(tmp_path: Path) -> None:
    """Ctrl-C ends it at once, and the run that was open is closed like any other."""
    with subprocess.Popen(
        [*COMMAND, "--state-dir", str(tmp_path)],
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "Still open: " in line:
                break

        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIME_LIMIT)

    assert process.returncode == 130
    assert errors.strip() == "Interrupted."
    newest = Reader(tmp_path / FILE_NAME).runs(1)[0]
    assert newest.name == "invoke_agent research"
    assert newest.outcome is not None
