"""The account of the demo: what it holds against a run, and what it does not."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

from agenttrace import Outcome
from agenttrace.delivery.store import Reader, Run
from agenttrace.demo import backend
from agenttrace.demo.account import Account, Act, Entry, Sent, latest_with
from agenttrace.demo.scenarios import SCENARIOS
from agenttrace.demo.tally import Started

FIRST = Started("a" * 32, "1" * 16, "invoke_agent triage")
CALLS = [Started("a" * 32, str(number) * 16, "chat demo-model") for number in (2, 3, 4)]
SENT = Sent("http://127.0.0.1:4318/v1/traces", 4, None)
SCENARIO = next(each for each in SCENARIOS if each.expected is Outcome.OK)


def entry(*started: Started, missing: tuple[Started, ...] = ()) -> Entry:
    """Make the entry of a run that is not in the store."""
    return Entry(
        act=Act(SCENARIO, started),
        run=None,
        forest=(),
        missing=missing,
        scripted=True,
    )


def account(*entries: Entry, sent: Sent | None = None) -> Account:
    """Make an account of *entries*."""
    return Account(
        store=Path("traces.db"),
        entries=entries,
        latest=len(entries),
        sent=sent,
        store_error="database is locked",
        swallowed={},
    )


def test_a_run_with_all_its_spans_has_no_problem() -> None:
    """The other tests would pass with an account that always complains."""
    whole = account(entry(FIRST, *CALLS))

    assert whole.closes
    assert (whole.started, whole.found) == (4, 4)


def test_missing_spans_are_named_and_the_store_may_say_why() -> None:
    """A number tells that something is wrong; a name tells where to look."""
    torn = account(entry(FIRST, *CALLS, missing=(CALLS[0],)))

    assert (torn.started, torn.found) == (4, 3)
    lost = f"span {CALLS[0].span_id} (chat demo-model)"
    assert torn.problems() == [
        f"{SCENARIO.title}: {lost} is not in the store",
        "the store said: database is locked",
    ]


def test_a_run_that_left_no_span_is_a_problem() -> None:
    """Nothing started and nothing missing would add up, too."""
    assert entry().problems() == ["no span has started"]


def test_a_run_in_pieces_is_a_problem() -> None:
    """All spans may arrive, and yet nobody finds the run."""
    elsewhere = replace(CALLS[0], trace_id="b" * 32)

    assert entry(FIRST, elsewhere, *CALLS[1:]).problems() == ["is spread over 2 traces"]


def test_one_span_per_attempt_is_a_problem() -> None:
    """A retry must not look like another question to the model."""
    attempts = [*CALLS, replace(CALLS[0], span_id="5" * 16)]

    assert entry(FIRST, *attempts).problems() == ["has 4 model calls, not 3"]


def test_what_a_real_model_does_is_its_own_business() -> None:
    """It may answer without the tool, and with as many calls as it likes."""
    unscripted = replace(entry(FIRST, CALLS[0]), scripted=False)

    assert unscripted.problems() == []


def test_an_endpoint_must_have_acknowledged_all() -> None:
    """The store is no witness for what another place has."""
    spans = (FIRST, *CALLS)

    taken = account(entry(*spans), sent=Sent("http://there", 4, None))
    refused = account(entry(*spans), sent=Sent("http://there", 3, "status 400"))

    assert taken.closes
    assert refused.problems() == ["http://there acknowledged 3 of 4 spans (status 400)"]


def test_what_agenttrace_swallowed_of_itself_is_told() -> None:
    """The guard keeps the application alive; here it would hide our own fault."""
    hurt = replace(account(entry(FIRST, *CALLS)), swallowed={"chat.result": 2})

    assert hurt.problems() == ["agenttrace itself failed at chat.result, 2 times"]


def test_no_link_is_shown_where_nothing_answers_for_it() -> None:
    """What stands behind an endpoint is not known: a guess needs a witness."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        port = nobody.getsockname()[1]
        acts = [entry(FIRST).act]

        found = backend.look(SENT, acts, None, jaeger_port=port)
        given = backend.look(SENT, acts, f"http://127.0.0.1:{port}/trace/{{trace_id}}")

    assert found is None
    assert given is not None
    assert (given.url("a"), given.found) == (f"http://127.0.0.1:{port}/trace/a", {})
    assert backend.look(None, acts, "http://there/{trace_id}") is None


def test_the_latest_runs_are_as_many_as_it_has_where_the_store_cannot_say(
    tmp_path: Path,
) -> None:
    """A hint is no reason to show no account."""
    damaged = tmp_path / "traces.db"
    damaged.write_bytes(b"no database" * 1000)
    run = Run("a" * 32, "run", None, 1, 1.0, Outcome.OK, 1, 0, (None, None))
    entries = [replace(entry(FIRST), run=run)]

    for store in (damaged, tmp_path / "gone.db"):
        assert latest_with(entries, Reader(store)) == 1
