"""What a page has of a run already is not told again, unless it is another thing."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from agenttrace import semconv
from agenttrace.delivery.otlp import frame_of
from agenttrace.delivery.senders import Delivered
from agenttrace.delivery.senders.store import StoreSender
from agenttrace.delivery.store import FILE_NAME, Reader
from agenttrace.view import Runs
from agenttrace.view.ended import Ended
from tests.delivery.given import span_data

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agenttrace.delivery.store import Node
    from agenttrace.model import SpanData

TRACE = b"\x01" * 16
ROOT = span_data("invoke_agent clerk")._replace(trace_id=TRACE)


def step(name: str, tokens: int = 0) -> SpanData:
    """Return a step beneath the root."""
    told = {semconv.GEN_AI_USAGE_INPUT_TOKENS: tokens} if tokens else {}
    return span_data(name)._replace(
        trace_id=TRACE, parent_id=ROOT.span_id, attributes=told
    )


class Store:
    """A store that spans are put into, and what is read of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sender = StoreSender(path)
        self.ended = Ended(TRACE.hex(), itertools.count(1))

    def put(self, *spans: SpanData) -> None:
        assert isinstance(self.sender.send(frame_of(spans), 10), Delivered)
        self.ended.read(Reader(self.path))

    def since(self, have: str | None) -> tuple[str, bool, set[str]]:
        version, is_whole, nodes = self.ended.since(have)
        return version, is_whole, names(nodes)


def names(nodes: list[Node]) -> set[str]:
    return {node.span.name for node in nodes}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Return a store with a root and a step of it."""
    found = Store(tmp_path / FILE_NAME)
    found.put(ROOT, step("search"))
    yield found
    found.sender.close()


def test_only_what_is_new_is_told(store: Store) -> None:
    """Ten thousand spans are megabytes, and one more comes every second."""
    first, is_whole, every = store.since(None)
    nothing = store.since(first)
    store.put(step("answer"))
    second, *more = store.since(first)

    assert (is_whole, every) == (True, {"invoke_agent clerk", "search"})
    assert nothing == (first, False, set())
    assert more == [False, {"answer"}]
    assert store.since(second) == (second, False, set())
    assert store.since(None)[2] == {"invoke_agent clerk", "search", "answer"}


def test_who_is_told_the_tokens_of_others_is_told_anew(store: Store) -> None:
    """A root that keeps the sum it had would be wrong for as long as it is shown."""
    first, _, _ = store.since(None)
    store.put(step("chat", tokens=7))

    _, is_whole, nodes = store.ended.since(first)

    assert not is_whole
    assert {node.span.name: node.tokens[0] for node in nodes} == {
        "chat": 7,
        "invoke_agent clerk": 7,
    }


def test_a_run_that_began_anew_is_told_whole(store: Store) -> None:
    """The store evicts runs, and a damaged file is another one: spans have gone."""
    first, _, _ = store.since(None)
    store.sender.close()
    for each in store.path.parent.iterdir():
        each.unlink()
    store.sender = StoreSender(store.path)
    store.put(ROOT, step("other"), step("more"))

    version, is_whole, told = store.since(first)

    assert version != first
    assert is_whole
    assert told == {"invoke_agent clerk", "other", "more"}


@pytest.mark.parametrize("have", ["", "9.1", "1", "1.x", "x", "²", "1.²"])
def test_a_version_that_there_never_was_has_nothing(store: Store, have: str) -> None:
    """It comes from a page, which may be that of another day."""
    assert store.since(have)[1:] == (True, {"invoke_agent clerk", "search"})


@pytest.mark.parametrize("length", [5, 16, 32])
def test_a_part_of_a_trace_id_leads_to_all_of_the_run(
    store: Store, length: int
) -> None:
    """A run that is shown without its steps looks like one that did nothing."""
    runs = Runs(store.path.parent)

    run = runs.run(TRACE.hex()[:length])
    step = runs.span(TRACE.hex()[:length], ROOT.span_id.hex())

    assert run is not None
    assert {each["name"] for each in run["spans"]} == {"invoke_agent clerk", "search"}
    assert step is not None
    assert step["ended"]["name"] == "invoke_agent clerk"


def test_a_part_of_a_trace_id_that_there_is_not_leads_nowhere(store: Store) -> None:
    """Hexadecimal digits have a partner; what somebody has copied may have none."""
    runs = Runs(store.path.parent)

    assert runs.run("abc") is None
    assert runs.span("abc", ROOT.span_id.hex()) is None
