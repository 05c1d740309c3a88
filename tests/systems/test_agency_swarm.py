"""Agencies of Agency Swarm that answer over HTTP, in all of its ways."""

from __future__ import annotations

import asyncio
import sys
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from openai import AsyncOpenAI

import agenttrace
from agenttrace.asgi import AgenttraceMiddleware
from agenttrace.testing import capture_spans
from agenttrace.testing.garbage import collect_garbage
from agenttrace.testing.model_server import ModelServer, Reply, Request, text, tool_call
from tests.context.runners import RUNNERS
from tests.context.serving import PATIENCE, Service, served
from tests.examples.test_examples import ask_twice, outcomes_of
from tests.instrumentation.given_agents import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from agenttrace.testing import CapturedSpan, CapturedSpans

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what it brings along, at import
    agency_swarm: Any = pytest.importorskip(
        "agency_swarm",
        reason="Agency Swarm is in an environment of its own: the extra `systems`",
    )
agents: Any = pytest.importorskip("agents")

pytestmark = [
    pytest.mark.usefixtures("nothing_left"),
    # Agencies keep no hold of the clients that they are given, nor close them.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.skipif(sys.version_info < (3, 12), reason="so says Agency Swarm 1.x"),
]


def says(request: Request) -> Reply | None:
    """Answer for the agent whose name is the model's, by what it has heard so far."""
    if not request.wants_answer:
        return None
    asks = {"Manager": ["Planner", "Writer"], "Writer": ["Planner"]}
    left = asks.get(request.model, [])[len(request.tool_results) :]
    if request.model == "Silent":
        return text("a b c d e f g h i j", chunks=10, stall="mid")
    if not left:
        return text(f"{request.model} is done")
    message = {
        "recipient_agent": left[0],
        "message": "secret",
        "additional_instructions": "",
    }
    return tool_call("send_message", message)


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Have clients that nobody closed be collected here, where nothing is said of it.

    Else another test is told, or pytest as it ends: whoever comes when the collector
    does, which is another one on each Python.
    """
    yield
    collect_garbage()


@pytest.fixture(scope="module")
def models() -> Iterator[ModelServer]:
    with ModelServer(says) as running:
        yield running


@pytest.fixture
def spans() -> Iterator[CapturedSpans]:
    """Capture what comes of it."""
    agents.set_trace_processors([])
    agenttrace.instrument("agency-swarm", "openai-agents", "openai")
    with capture_spans() as captured:
        yield captured
    agenttrace.uninstrument()


def agency(models: ModelServer, *names: str) -> Any:  # noqa: ANN401 - an Agency
    """Return an agency of new agents, whose client is for the loop that runs it."""
    client = AsyncOpenAI(
        base_url=models.base_url,
        api_key="unused",
        max_retries=0,
        timeout=PATIENCE,
        # Nobody can close the client of a loop that is closed: it keeps nothing.
        default_headers={"Connection": "close"},
    )
    made = {
        name: agency_swarm.Agent(
            name=name,
            description=name,
            instructions="Help.",
            model=agents.OpenAIResponsesModel(model=name, openai_client=client),
        )
        for name in names
    }
    flows = [("Manager", "Planner"), ("Manager", "Writer"), ("Writer", "Planner")]
    return agency_swarm.Agency(
        made[names[0]],
        communication_flows=[
            (made[sender], made[recipient])
            for sender, recipient in flows
            if sender in made
        ],
        name="Desk",
    )


def desk(models: ModelServer) -> Any:  # noqa: ANN401 - an Agency
    return agency(models, "Manager", "Planner", "Writer")


@pytest.fixture
def service(models: ModelServer) -> Iterator[Service]:
    """Serve an agency in each of the ways that it can be asked."""
    app = FastAPI()
    app.add_middleware(AgenttraceMiddleware)

    @app.get("/response")
    async def response() -> str:
        return str((await desk(models).get_response("hello")).final_output)

    @app.get("/sync")
    def sync() -> str:
        return str(desk(models).get_response_sync("hello").final_output)

    @app.get("/sync-in-loop")
    async def sync_in_loop() -> str:
        return str(desk(models).get_response_sync("hello").final_output)

    async def words(asked: Any) -> AsyncIterator[str]:  # noqa: ANN401 - a stream
        async for _ in asked.get_response_stream("hello"):
            yield "event\n"

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(words(desk(models)))

    @app.get("/stalled")
    async def stalled() -> StreamingResponse:
        return StreamingResponse(words(agency(models, "Silent")))

    @app.get("/over")
    async def over() -> str:
        await until(lambda: not any(map(_is_of_run, agenttrace.open_spans())))
        return "over"

    with served(app, RUNNERS[0]) as running:
        yield running


def _is_of_run(span: Any) -> bool:  # noqa: ANN401 - an open span
    return not span.name.startswith(("GET", "fastapi"))  # the framework's own


def agent_of(span: CapturedSpan) -> str | None:
    """Return the agent that *span* was made in the run of."""
    above = span.parent
    while above is not None and not above.name.startswith("invoke_agent"):
        above = above.parent
    return None if above is None else above.attributes["gen_ai.agent.name"]


@pytest.mark.parametrize("path", ["/response", "/sync", "/sync-in-loop", "/stream"])
def test_a_chain_of_agents_is_one_tree(
    service: Service, spans: CapturedSpans, path: str
) -> None:
    """Manager, planner, back, writer, who asks the planner again: in each way."""
    service.read(path)
    service.read("/over")

    spans.assert_all_closed()
    workflow = spans.span("invoke_workflow Desk")
    run = [span for span in spans if span.trace_id == workflow.trace_id]
    assert {span.outcome for span in run if span.outcome} == {"ok"}
    assert [
        (span.attributes["gen_ai.agent.name"], agent_of(span))
        for span in run
        if span.name.startswith("invoke_agent")
    ] == [
        ("Manager", None),
        ("Planner", "Manager"),
        ("Writer", "Manager"),
        ("Planner", "Writer"),
    ]
    messages = [span for span in run if span.name == "execute_tool send_message"]
    assert [
        (
            span.attributes["agenttrace.message.from"],
            span.attributes["agenttrace.message.to"],
            agent_of(span),
        )
        for span in messages
    ] == [
        ("Manager", "Planner", "Manager"),
        ("Manager", "Writer", "Manager"),
        ("Writer", "Planner", "Writer"),
    ]
    assert len([span for span in run if span.name.startswith("chat ")]) == 7
    assert not any("secret" in str(span.attributes) for span in spans)


def test_only_the_tool_that_sends_a_message_says_for_whom(
    models: ModelServer, spans: CapturedSpans
) -> None:
    """An application may ask on behalf of an agent, in a span of its own."""
    planner = agency(models, "Planner").agents["Planner"]

    with agenttrace.span("own"):
        planner.get_response("hello", sender_name="Manager").close()

    assert "agenttrace.message.from" not in spans.span("own").attributes


def test_a_client_that_goes_away_stops_the_run_that_streams_for_it(
    service: Service, spans: CapturedSpans
) -> None:
    """Agency Swarm alone lets it go on, for nobody, for as long as the model does."""
    service.leave("/stalled")
    service.read("/over")

    for name in ("invoke_workflow Desk", "invoke_agent Silent"):
        span = spans.span(name)
        assert (span.outcome, span.ended_by) == ("abandoned", "disconnect")


@pytest.mark.parametrize(
    ("how", "outcome", "ended_by"),
    [
        ("closed", "abandoned", "close"),
        ("dropped", "abandoned", "gc"),
        ("cancelled", "cancelled", "cancel"),
    ],
)
def test_a_stream_that_is_left_says_how(
    models: ModelServer, how: str, outcome: str, ended_by: str
) -> None:
    """To the run it looks like a cancellation in each case."""
    agents.set_trace_processors([])

    async def main() -> None:
        stream = agency(models, "Silent").get_response_stream("hello")
        count = 0
        async for _ in stream:
            count += 1
            if count == 3 and how == "cancelled":
                stream.cancel()
            elif count == 3:
                break
        if how == "closed":
            await stream.aclose()
        del stream
        async with asyncio.timeout(PATIENCE):
            while agenttrace.open_spans():
                collect_garbage()
                await asyncio.sleep(0.01)

    with agenttrace.configure(on_abandon="cancel"):
        agenttrace.instrument("agency-swarm", "openai-agents", "openai")
        with capture_spans() as spans:
            asyncio.run(main())
        agenttrace.uninstrument()

    for name in ("invoke_workflow Desk", "invoke_agent Silent"):
        span = spans.span(name)
        assert (span.outcome, span.ended_by) == (outcome, ended_by)


def test_taken_out_it_leaves_the_library_as_it_was() -> None:
    """The very functions, and no wrapper of ours below."""
    kind: dict[str, object] = agency_swarm.Agent.__dict__
    before = kind["get_response"]

    agenttrace.instrument("agency-swarm")
    during = kind["get_response"]
    agenttrace.uninstrument("agency-swarm")

    assert during is not before
    assert kind["get_response"] is before


@pytest.mark.timeout(180)
def test_the_example_tells_a_read_stream_from_one_that_was_left() -> None:
    """What `docs/how-to/trace-agency-swarm.md` says that its reader will see."""
    whole, errors = ask_twice("agency_with_fastapi.py")

    assert "It shows ships" in whole
    assert "Failed to detach" not in errors
    name, service = "invoke_workflow Desk", "agency-example"
    assert outcomes_of(name, service) == {"ok", "abandoned"}
