"""A session knows the run that broke off in it, and the next one is linked to that."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
from typing import TYPE_CHECKING, Any

from agenttrace.testing import kill_and_recover
from tests.systems.framework import (
    LONG,
    Desk,
    desk,
    framework,
    read,
    server,
    spans,
    tool,
    until_asked,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import NoReturn

    from agenttrace.testing.model_server import ModelServer
    from tests.instrumentation.given import Seen, Spans

__all__ = ["desk", "server", "spans"]


def stored(session: Any) -> dict[str, Any]:  # noqa: ANN401 - the library's
    """Return what a database has of *session*."""
    kept: dict[str, Any] = json.loads(json.dumps(session.to_dict()))
    return kept


def links(seen: Seen) -> list[tuple[int, object]]:
    """Return the span ids that it is linked to, and as what."""
    return [
        (link.context.span_id, (link.attributes or {}).get("agenttrace.link"))
        for link in seen.span.links
    ]


def test_a_run_that_ended_well_leaves_nothing_in_its_session(
    desk: Desk, spans: Spans
) -> None:
    """What the application stores is what it would be without agenttrace."""
    session = framework.AgentSession()
    agent = desk.agent()

    async def work() -> None:
        await agent.run("one", session=session)
        await read(agent.run("two", session=session, stream=True))

    desk.wait(work())

    assert set(stored(session)) == {
        "type",
        "session_id",
        "service_session_id",
        "state",
    }
    assert "agenttrace" not in session.state
    assert all(not span.links for span in spans.all())


def test_a_session_is_a_conversation(server: ModelServer, spans: Spans) -> None:
    """Its runs are found by it, their questions and tools as well."""
    desk = Desk(server, "chat")
    session = framework.AgentSession(session_id="c-17")

    desk.wait(desk.agent().run("one", session=session))
    desk.stop()

    told = [(span.attributes or {}) for span in spans.all()]
    assert [one["gen_ai.conversation.id"] for one in told] == ["c-17", "c-17"]


def test_the_next_run_is_linked_to_the_one_that_broke_off(
    desk: Desk, spans: Spans
) -> None:
    """In the same process with the same session, or with a copy of it."""
    session = framework.AgentSession()

    async def work() -> None:
        task = asyncio.create_task(
            desk.agent("stall=head", name="first").run("?", session=session)
        )
        await until_asked("stall=head")
        task.cancel()
        await asyncio.wait([task])
        kept = copy.deepcopy(session)
        await desk.agent(name="second").run("?", session=session)
        await desk.agent(name="third").run("?", session=session)
        restored = framework.AgentSession.from_dict(stored(kept))
        await desk.agent(name="fourth").run("?", session=restored)

    desk.wait(work())

    first = spans.named("invoke_agent first")
    assert first.ending == ("cancelled", "cancel")
    assert first.span.context is not None
    broken = [(first.span.context.span_id, "resumed")]
    assert links(spans.named("invoke_agent second")) == broken
    assert links(spans.named("invoke_agent third")) == []
    assert links(spans.named("invoke_agent fourth")) == broken
    assert len({span.context.trace_id for span in spans.all() if span.context}) == 4


def test_a_second_run_beside_the_first_goes_on_with_nothing(
    desk: Desk, spans: Spans
) -> None:
    """What runs has not broken off."""
    session = framework.AgentSession()
    agent = desk.agent(LONG)

    async def work() -> None:
        await asyncio.gather(
            agent.run("one", session=session), agent.run("two", session=session)
        )

    desk.wait(work())

    assert all(not span.links for span in spans.all())


def test_a_second_run_beside_a_stream_of_another_task_goes_on_with_nothing(
    desk: Desk, spans: Spans
) -> None:
    """Between two updates nobody is at work in the first, and it goes on."""
    session = framework.AgentSession()
    has_begun, may_go_on = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async for _ in desk.agent(LONG).run("one", session=session, stream=True):
            has_begun.set()
            await may_go_on.wait()

    async def work() -> None:
        reading = asyncio.create_task(first())
        await has_begun.wait()
        await desk.agent(name="second").run("two", session=session)
        may_go_on.set()
        await reading

    desk.wait(work())

    assert links(spans.named("invoke_agent second")) == []


def test_a_session_outlives_the_process_that_was_killed(
    server: ModelServer, spans: Spans, tmp_path: Path
) -> None:
    """The broken run is told as lost, and the one that goes on leads to it."""
    kept = tmp_path / "session.json"

    def work(die: Callable[[], NoReturn]) -> None:
        desk = Desk(server, "chat")
        session = framework.AgentSession(session_id="c-18")

        @tool
        def look_up() -> str:
            """Store what there is, as one does before something that takes long."""
            kept.write_text(json.dumps(session.to_dict()))
            die()

        agent = desk.agent("tool=look_up", tools=[look_up])
        desk.wait(agent.run("hello", session=session))

    lost = kill_and_recover(work)
    session = framework.AgentSession.from_dict(json.loads(kept.read_text()))
    desk = Desk(server, "chat")
    desk.wait(desk.agent(name="heir").run("go on", session=session))
    desk.stop()

    broken = lost.span("invoke_agent keeper")
    assert broken.outcome == "lost"
    assert lost.span("execute_tool look_up").outcome == "lost"
    heir = spans.named("invoke_agent heir")
    assert heir.ending == ("ok", "return")
    assert heir["conversation.id"] == "c-18"
    assert links(heir) == [(int(broken.span_id, 16), "resumed")]


def test_workers_run_each_job_for_itself(desk: Desk, spans: Spans) -> None:
    """Several take from one queue; what one has failed in, another goes on with."""
    jobs: asyncio.Queue[tuple[str, str, dict[str, Any]]] = asyncio.Queue()
    failed: list[int] = []

    async def worker() -> None:
        while True:
            name, model, given = await jobs.get()
            session = framework.AgentSession.from_dict(given)
            try:
                await desk.agent(model, name=name).run("?", session=session)
            except Exception:  # whatever it was, it is tried again, once
                if name.endswith("-again"):
                    raise
                failed.append(1)
                jobs.put_nowait((f"{name}-again", "ok", stored(session)))
            finally:
                jobs.task_done()

    async def work() -> None:
        for number, model in enumerate(("ok", "err=400", "ok", "ok")):
            session = framework.AgentSession(session_id=f"c-{number}")
            jobs.put_nowait((f"job{number}", model, stored(session)))
        workers = [asyncio.create_task(worker()) for _ in range(2)]
        await jobs.join()
        for one in workers:
            one.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*workers)

    desk.wait(work())

    runs = {
        span.name: span for span in spans.all() if span.name.startswith("invoke_agent")
    }
    assert failed == [1]
    assert len(runs) == 5
    assert all(span.parent is None for span in runs.values())
    assert spans.traces() == 5
    broken = spans.named("invoke_agent job1")
    again = spans.named("invoke_agent job1-again")
    assert broken.ending == ("error", "exception")
    assert broken.span.context is not None
    assert links(again) == [(broken.span.context.span_id, "resumed")]
    assert again["conversation.id"] == broken["conversation.id"] == "c-1"
    assert sum(len(span.links) for span in runs.values()) == 1
