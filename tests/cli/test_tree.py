"""`agenttrace tree` shows what the store holds, to people and to programs."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result
from opentelemetry.trace import StatusCode

from agenttrace import __version__, render, semconv
from agenttrace.cli.group import COMMANDS, group
from agenttrace.delivery.otlp import frame_of
from agenttrace.delivery.senders import Delivered
from agenttrace.delivery.senders.store import StoreSender
from agenttrace.model import (
    Attributes,
    EventData,
    LinkData,
    Outcome,
    ResourceData,
    ScopeData,
    SpanData,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECOND = 1_000_000_000
NOON = 1_700_000_000
TRIAGE, BROKEN, ELSEWHERE = (bytes([first]) * 16 for first in (0xA1, 0xB2, 0xC3))
_ids = count(1)


def span(  # noqa: PLR0913 - one argument per thing that is shown
    trace: bytes,
    name: str,
    *,
    parent: bytes = b"",
    start: float = 0,
    seconds: float = 1,
    outcome: str | None = "ok",
    ended_by: str = "return",
    message: str = "",
    attributes: Attributes | None = None,
) -> SpanData:
    """Make a span that starts *start* seconds after noon."""
    ending = {semconv.OUTCOME: outcome, semconv.ENDED_BY: ended_by} if outcome else {}
    started = NOON * SECOND + round(start * SECOND)
    return SpanData(
        trace_id=trace,
        span_id=next(_ids).to_bytes(8, "big"),
        parent_id=parent,
        name=name,
        start_time=started,
        end_time=started + round(seconds * SECOND),
        attributes=ending | dict(attributes or {}),
        status=StatusCode.ERROR if message else StatusCode.UNSET,
        status_message=message,
        resource=ResourceData({semconv.SERVICE_NAME: "support"}),
        scope=ScopeData("agenttrace", "1.0"),
    )


def triage() -> list[SpanData]:
    """Make a run that went well."""
    root = span(TRIAGE, "invoke_agent triage", seconds=2.306)
    chat = span(
        TRIAGE,
        "chat gpt-5",
        parent=root.span_id,
        start=0.1,
        seconds=1.2,
        attributes={
            semconv.GEN_AI_USAGE_INPUT_TOKENS: 1812,
            semconv.GEN_AI_USAGE_OUTPUT_TOKENS: 90,
            semconv.GEN_AI_RESPONSE_MODEL: "gpt-5-2025-08-07",
            semconv.ITEMS: 12,
        },
    )
    query = span(
        TRIAGE,
        "GET /search",
        parent=chat.span_id,
        start=0.2,
        seconds=0.31,
        outcome=None,
    )
    return [query, chat, root]


def broken() -> list[SpanData]:
    """Make a run whose step got stuck, and whose other step failed on the way up."""
    root = span(
        BROKEN,
        "invoke_agent triage",
        start=60,
        seconds=35,
        outcome="error",
        ended_by="exception",
        message="RateLimitError: slow down",
        attributes={semconv.ERROR_TYPE: "openai.RateLimitError"},
    )
    stuck = span(
        BROKEN,
        "execute_tool crawl",
        parent=root.span_id,
        start=61,
        seconds=30,
        outcome="stuck",
        ended_by="watchdog",
        message="no progress for 30 s (limit 30 s)",
        attributes={semconv.ERROR_TYPE: "stuck"},
    )
    failed = span(
        BROKEN,
        "chat gpt-5",
        parent=root.span_id,
        start=92,
        outcome="error",
        ended_by="exception",
        message="RateLimitError: slow down\nrequest 7",
        attributes={semconv.ERROR_TYPE: "openai.RateLimitError"},
    )
    return [stuck, failed, root]


@pytest.fixture
def keep(tmp_path: Path) -> Callable[[list[SpanData]], None]:
    """Return what puts spans into the store."""

    def put(spans: list[SpanData]) -> None:
        store = StoreSender(tmp_path / "traces.db")
        assert store.send(frame_of(spans), 10) == Delivered()
        store.close()

    return put


@pytest.fixture
def show(tmp_path: Path) -> Callable[..., Result]:
    """Return what runs `agenttrace tree` on that store."""

    def run(*args: str) -> Result:
        return CliRunner().invoke(group, ["tree", "--state-dir", str(tmp_path), *args])

    return run


def tree_of(result: Result) -> list[str]:
    """Return the lines of the tree without the headline, which tells local time."""
    assert result.exit_code == 0
    return result.stdout.splitlines()[1:]


def loaded(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def test_a_run_is_drawn_with_all_that_is_known_of_its_steps(
    keep: Callable[[list[SpanData]], None], show: Callable[..., Result]
) -> None:
    """How it ended, how long, tokens, items and model: without opening a dashboard."""
    keep(triage())

    result = show()

    assert tree_of(result) == [
        "└── ✓ invoke_agent triage  2.31 s  1,812 in / 90 out tokens",
        (
            "    └── ✓ chat gpt-5  1.20 s  1,812 in / 90 out tokens  12 items"
            "  gpt-5-2025-08-07"
        ),
        "        └── · GET /search  310 ms",
    ]
    assert result.stdout.startswith(f"{TRIAGE.hex()[:8]} · 2023-11-1")
    assert " · support · 3 spans" in result.stdout


def test_what_went_wrong_stands_where_it_happened_and_only_there(
    keep: Callable[[list[SpanData]], None], show: Callable[..., Result]
) -> None:
    """An exception passes through every span on its way up; one line tells it."""
    keep(broken())

    result = show()

    assert tree_of(result) == [
        "└── ✗ invoke_agent triage  error (exception)  35.0 s",
        "    ├── ■ execute_tool crawl  stuck (watchdog)  30.0 s",
        "    │   └── ↳ stuck: no progress for 30 s (limit 30 s)",
        "    └── ✗ chat gpt-5  error (exception)  1.00 s",
        "        └── ↳ openai.RateLimitError: slow down",
    ]
    assert " · 3 errors" in result.stdout


def test_the_newest_run_stands_next_to_the_prompt(
    keep: Callable[[list[SpanData]], None], show: Callable[..., Result]
) -> None:
    """After five trees the first one has scrolled away."""
    keep(triage() + broken())

    result = show()
    last = show("--last", "1")

    assert result.stdout.index(TRIAGE.hex()[:8]) < result.stdout.index(BROKEN.hex()[:8])
    assert last.stdout == result.stdout[result.stdout.index(BROKEN.hex()[:8]) :]


def test_one_run_is_shown_by_the_beginning_of_its_id(
    keep: Callable[[list[SpanData]], None], show: Callable[..., Result]
) -> None:
    """The headline shows eight digits; those must be enough to ask again."""
    keep(triage() + broken())

    result = show(TRIAGE.hex()[:8])

    assert result.exit_code == 0
    assert "GET /search" in result.stdout
    assert "crawl" not in result.stdout


def test_runs_are_chosen_by_service_and_outcome(
    keep: Callable[[list[SpanData]], None], show: Callable[..., Result]
) -> None:
    """`--outcome stuck` finds the run although its root only says `error`."""
    keep(triage() + broken())

    assert "crawl" in show("--outcome", "stuck", "--service", "support").stdout
    assert "crawl" not in show("--outcome", "ok").stdout
    assert show("--service", "sales").exit_code == 1


def test_a_run_whose_root_is_missing_is_drawn_all_the_same(
    keep: Callable[[list[SpanData]], None], show: Callable[..., Result]
) -> None:
    """It goes on, or its caller is another service; its steps are real."""
    keep([span(ELSEWHERE, "execute_tool search", parent=b"elsewher")])

    result = show()

    assert "(root not here yet)" in result.stdout
    assert tree_of(result) == ["└── ✓ execute_tool search  1.00 s  (parent elsewhere)"]


def test_events_are_told_in_one_short_line_each(
    keep: Callable[[list[SpanData]], None], show: Callable[..., Result]
) -> None:
    """An exception that was survived explains the retry that follows it."""
    step = span(TRIAGE, "execute_tool search")
    survived = {
        semconv.EXCEPTION_TYPE: "KeyError",
        semconv.EXCEPTION_MESSAGE: "'q'\nand more",
    }
    events = [
        EventData(step.start_time + SECOND // 100, semconv.EXCEPTION_EVENT, survived),
        *(EventData(step.start_time, f"retry {number}", {}) for number in range(4)),
    ]
    keep([step._replace(events=events)])

    assert tree_of(show())[1:] == [
        "    ├── ∙ KeyError: 'q'  at +10 ms",
        "    ├── ∙ retry 0  at +0 ms",
        "    ├── ∙ retry 1  at +0 ms",
        "    └── … 2 more events",
    ]


def test_where_a_step_hangs_and_what_blocks_a_loop_is_told_with_its_line(
    keep: Callable[[list[SpanData]], None], show: Callable[..., Result]
) -> None:
    """Whoever reads that a step is stuck asks for nothing but the place next."""
    place = {
        semconv.CODE_FUNCTION_NAME: "reserve",
        semconv.CODE_FILE_PATH: "/srv/app/shop/stock.py",
        semconv.CODE_LINE_NUMBER: 13,
    }
    hang = {
        semconv.HANG_CAUSE: "lock",
        semconv.HANG_EXPLANATION: "it waits for a lock",
        **place,
    }
    step = span(TRIAGE, "execute_tool order", outcome="stuck", ended_by="watchdog")
    told = EventData(step.end_time, semconv.HANG, hang)
    nameless = EventData(step.end_time, semconv.HANG, {})
    block = span(
        TRIAGE,
        semconv.LOOP_BLOCKED,
        parent=step.span_id,
        outcome=None,
        attributes=place,
    )
    keep([step._replace(events=[told, nameless]), block])

    assert tree_of(show())[1:] == [
        (
            "    ├── ∙ lock: it waits for a lock, in reserve (app/shop/stock.py:13)  "
            "at +1.00 s"
        ),
        "    ├── ∙ agenttrace.hang  at +1.00 s",
        "    └── · agenttrace.event_loop.blocked  1.00 s",
        "        └── ∙ in reserve (app/shop/stock.py:13)",
    ]


def test_of_a_huge_run_the_failures_are_drawn_and_the_rest_is_counted(
    keep: Callable[[list[SpanData]], None], show: Callable[..., Result]
) -> None:
    """The one step in 300 that failed is what somebody looks for."""
    root = span(TRIAGE, "invoke_workflow bulk", seconds=400)
    steps = [
        span(TRIAGE, f"step {number}", parent=root.span_id, start=number)
        for number in range(300)
    ]
    lost = {semconv.OUTCOME: "lost", semconv.ENDED_BY: "recovery"}
    steps[250] = steps[250]._replace(attributes=lost)
    keep([root, *steps])

    short, full = tree_of(show()), tree_of(show("--all"))

    drawn = 1 + render.SIBLINGS + 1
    assert len(short) == drawn + 2
    assert short[-3:] == [
        f"    ├── … {250 - render.SIBLINGS} more",
        "    ├── † step 250  lost (recovery)  1.00 s",
        "    └── … 49 more",
    ]
    assert len(full) == 301


def test_spans_that_were_not_even_read_are_counted(
    keep: Callable[[list[SpanData]], None], show: Callable[..., Result]
) -> None:
    """A run that went in circles all night must not take minutes to draw."""
    keep([span(TRIAGE, "step", start=number) for number in range(2100)])

    assert "100 more spans were not read: --all shows them." in show().stdout


def test_text_from_spans_is_shown_and_never_obeyed(
    keep: Callable[[list[SpanData]], None], show: Callable[..., Result]
) -> None:
    """A model's output must not move the cursor, or colour what is not its own."""
    keep([span(TRIAGE, "plan [red]a\x1b[31mb\n\u202ec[/red]")])

    (line,) = tree_of(show())

    assert line == "└── ✓ plan [red]a?[31mb ?c[/red]  1.00 s"


def test_json_tells_every_run_as_nested_spans(
    keep: Callable[[list[SpanData]], None], show: Callable[..., Result]
) -> None:
    """Whatever a script asks of a run must not need another query."""
    keep(triage() + broken())

    newest, oldest = loaded(show("--json"))

    assert (newest["outcome"], newest["error_count"]) == ("error", 3)
    assert oldest["trace_id"] == TRIAGE.hex()
    assert (oldest["input_tokens"], oldest["output_tokens"]) == (1812, 90)
    assert oldest["start"] == "2023-11-14T22:13:20+00:00"
    assert oldest["start_ns"] == NOON * SECOND
    assert oldest["duration"] == 2.306
    (root,) = oldest["spans"]
    (chat,) = root["children"]
    (query,) = chat["children"]
    assert [each["name"] for each in (root, chat, query)] == [
        "invoke_agent triage",
        "chat gpt-5",
        "GET /search",
    ]
    assert chat["parent_id"] == root["span_id"]
    assert root["parent_id"] is None
    assert chat["start"] == "2023-11-14T22:13:20.100000+00:00"
    assert chat["attributes"][semconv.ITEMS] == 12
    assert (root["outcome"], root["ended_by"]) == ("ok", "return")
    assert (query["outcome"], query["service"]) == (None, "support")


def test_json_says_whatever_an_attribute_can_be(
    keep: Callable[[list[SpanData]], None], show: Callable[..., Result]
) -> None:
    """A single NaN or byte string would make the whole output unreadable."""
    step = span(
        TRIAGE,
        "step",
        attributes={
            "nan": float("nan"),
            "raw": b"\x00\xff",
            "nested": {"a": (1, None)},
        },
    )
    events = [EventData(step.start_time, "event", {"n": 1})]
    links = [LinkData(BROKEN, b"12345678", False, {})]  # noqa: FBT003 - a record
    keep([step._replace(events=events, links=links)])

    ((told,),) = (run["spans"] for run in loaded(show("--json")))

    said = {key: told["attributes"][key] for key in ("nan", "raw", "nested")}
    assert said == {"nan": "nan", "raw": "AP8=", "nested": {"a": [1, None]}}
    assert told["events"][0]["attributes"] == {"n": 1}
    assert told["links"][0]["trace_id"] == BROKEN.hex()


def test_json_of_a_very_deep_run_can_be_read_by_readers_that_recurse(
    keep: Callable[[list[SpanData]], None], show: Callable[..., Result]
) -> None:
    """Python's own reader fails at a thousand levels; no span may be left out."""
    chain = [span(TRIAGE, "step 0")]
    for number in range(1, 1500):
        above = chain[-1].span_id
        chain.append(span(TRIAGE, f"step {number}", parent=above, start=number))
    keep(chain)

    result = show("--json")

    assert len(loaded(result)[0]["spans"]) == 1
    assert result.stdout.count('"span_id"') == 1500


def test_nothing_yet_says_where_it_looked_and_what_to_do(
    show: Callable[..., Result], tmp_path: Path
) -> None:
    """The first thing that a new user sees must lead to the second."""
    result = show()

    assert result.exit_code == 1
    assert f"No runs yet in {tmp_path}" in result.stderr
    assert "agenttrace demo" in result.stderr
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_nothing_found_is_an_empty_list_for_programs(
    keep: Callable[[list[SpanData]], None], show: Callable[..., Result]
) -> None:
    """A script reads the output first and asks for the exit code later."""
    keep(triage())

    results = [show("--json", "ffff"), show("--json", "--outcome", "stuck")]

    assert [result.exit_code for result in results] == [1, 1]
    assert [json.loads(result.stdout) for result in results] == [[], []]
    assert "begins with 'ffff'" in results[0].stderr
    assert "No run" in results[1].stderr


@pytest.mark.parametrize(
    "args", [["--last", "0"], ["--outcome", "fine"], ["ab", "--last", "2"], ["--nope"]]
)
def test_wrong_usage_is_told_as_such(
    show: Callable[..., Result], args: list[str]
) -> None:
    """Exit code 1 means that nothing was found, and scripts rely on it."""
    assert show(*args).exit_code == 2


def test_a_run_that_was_evicted_while_somebody_looks_is_told_as_such(
    keep: Callable[[list[SpanData]], None], show: Callable[..., Result], tmp_path: Path
) -> None:
    """A line that counts three spans, with none beneath it, looks like a fault."""
    keep(triage())
    # Between the account of a run and its spans is where the eviction comes.
    with closing(sqlite3.connect(tmp_path / "traces.db")) as store:
        store.execute("DELETE FROM spans")
        store.commit()

    result = show()

    told = "No span to show: newer runs took their place, or damage."
    assert tree_of(result) == [told]


def test_an_empty_service_is_a_service_that_no_run_has(
    keep: Callable[[list[SpanData]], None], show: Callable[..., Result]
) -> None:
    """It must not be told that the store is empty, and go looking for lost spans."""
    keep(triage())

    alone, beside_an_id = show("--service", ""), show("a1", "--service", "")

    assert alone.exit_code == 1
    assert "is like that" in alone.stderr
    assert beside_an_id.exit_code == 2


def test_more_runs_than_can_be_counted_are_all_runs(
    keep: Callable[[list[SpanData]], None], show: Callable[..., Result]
) -> None:
    """Whoever wants every run types nines until it looks like enough."""
    keep(triage())

    result = show("--json", "--last", "9" * 30)

    assert [run["trace_id"] for run in loaded(result)] == [TRIAGE.hex()]


def test_all_spans_of_what_is_watched_is_wrong_usage(
    show: Callable[..., Result],
) -> None:
    """An option that is taken and then does nothing is looked for as a fault."""
    result = show("--watch", "--all")

    assert (result.exit_code, result.stdout) == (2, "")
    assert "--all does not go with --watch" in result.stderr


@pytest.mark.parametrize("nothing", ["", " "])
def test_an_empty_trace_id_is_wrong_usage(
    keep: Callable[[list[SpanData]], None], show: Callable[..., Result], nothing: str
) -> None:
    """It is a shell variable that is not set, and fits every run there is."""
    keep(triage())

    result = show(nothing)

    assert (result.exit_code, result.stdout) == (2, "")
    assert "TRACE is empty" in result.stderr


def test_an_id_that_fits_many_runs_names_a_few_and_says_what_to_do(
    keep: Callable[[list[SpanData]], None], show: Callable[..., Result]
) -> None:
    """A list that stops without a word reads as if it were all of them."""
    traces = [bytes([0xAB, number]) * 8 for number in range(6)]
    keep([span(trace, "chat") for trace in traces[:5]])
    all_of_them = show("ab")
    keep([span(traces[5], "chat")])

    some_of_them = show("ab")

    named = ", ".join(trace.hex() for trace in traces[:5])
    told = f"Error: 'ab' fits several runs, more digits tell them apart: {named}"
    assert all_of_them.stderr == f"{told}\n"
    assert some_of_them.stderr == f"{told}, ...\n"


def test_a_damaged_store_is_told_in_one_line(
    show: Callable[..., Result], tmp_path: Path
) -> None:
    """A traceback says nothing about what happens next."""
    (tmp_path / "traces.db").write_bytes(b"garbage" * 500)

    result = show()

    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert "cannot be read" in result.stderr


@pytest.mark.parametrize("outcome", Outcome)
def test_every_outcome_is_told_without_colours_and_in_ascii(
    keep: Callable[[list[SpanData]], None], tmp_path: Path, outcome: Outcome
) -> None:
    """Log files, CI and screen readers show neither colours nor symbols."""
    keep([span(TRIAGE, "schön", outcome=outcome.value)])

    result = subprocess.run(
        [sys.executable, "-m", "agenttrace.cli", "tree", "--state-dir", str(tmp_path)],
        env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        capture_output=True,
        check=True,
        timeout=60,
    )

    line = result.stdout.decode("ascii").splitlines()[1]
    assert line.startswith("`-- ")
    assert (outcome.value in line) == (outcome is not Outcome.OK)


def test_the_store_is_found_by_the_environment(
    keep: Callable[[list[SpanData]], None], tmp_path: Path
) -> None:
    """The application and the command line must look in one place."""
    keep(triage())

    result = subprocess.run(
        [sys.executable, "-m", "agenttrace.cli", "tree", "--json"],
        env=os.environ | {"AGENTTRACE_STATE_DIR": str(tmp_path)},
        capture_output=True,
        check=True,
        timeout=60,
    )

    assert json.loads(result.stdout)[0]["trace_id"] == TRIAGE.hex()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device is full")  # noqa: PTH110 - at import
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_an_output_that_does_not_fit_on_the_disk_is_told_in_one_line(
    keep: Callable[[list[SpanData]], None], tmp_path: Path, form: list[str]
) -> None:
    """Traces are redirected to files by people who look for what filled the disk."""
    keep(triage())

    with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device
        result = subprocess.run(
            [
                *(sys.executable, "-m", "agenttrace.cli", "tree", *form),
                *("--state-dir", str(tmp_path)),
            ],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
            text=True,
            timeout=60,
        )

    told = "Error: The output cannot be written: No space left on device\n"
    assert (result.returncode, result.stderr) == (1, told)


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_a_missing_extra_is_told_in_one_line(
    keep: Callable[[list[SpanData]], None], tmp_path: Path, missing: str
) -> None:
    """The core does not bring them, so this is what many users see first."""
    keep(triage())
    program = (
        f"import sys; sys.modules[{missing!r}] = None; "
        f"sys.argv = ['agenttrace', 'tree', '--state-dir', {str(tmp_path)!r}]; "
        "from agenttrace.cli import main; sys.exit(main())"
    )

    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )

    assert result.returncode == 2
    assert 'pip install "agenttrace-otel[cli]"' in result.stderr
    assert "Traceback" not in result.stderr


def test_help_and_version_import_no_command() -> None:
    """Completion and `--help` are what must feel instant."""
    program = (
        "import sys; from agenttrace.cli.group import group\n"
        "try: group(['--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in sys.modules if name == 'rich' or '.store' in name])"
    )

    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )

    assert "Show the last runs as trees." in result.stdout
    assert result.stdout.splitlines()[-1] == "[]"


def test_the_group_knows_its_commands_and_its_version() -> None:
    """Every command that `--help` lists must exist, with the help that it lists."""
    runner = CliRunner()

    assert runner.invoke(group, ["--version"]).output == f"agenttrace {__version__}\n"
    assert runner.invoke(group, ["nope"]).exit_code == 2
    for name in COMMANDS:
        assert runner.invoke(group, [name, "--help"]).exit_code == 0
