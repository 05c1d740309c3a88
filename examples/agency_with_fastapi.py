"""An agency of Agency Swarm in FastAPI: agents that ask each other, and a stream.

Needs Python 3.12 and the extra `systems`.  Starts a model server on loopback, so it
needs no key; set `OPENAI_BASE_URL` and `OPENAI_API_KEY` to use another one.  Run it,
then in another terminal:

    curl http://127.0.0.1:8000/answer          # the manager asks the planner
    curl -N http://127.0.0.1:8000/ask          # the same as a stream: ok
    curl -N -m 1 http://127.0.0.1:8000/ask     # leave after a second: the run stops
    agenttrace tree --last 3
"""

import os
from collections.abc import AsyncIterator
from contextlib import nullcontext

import uvicorn
from agency_swarm import Agency, Agent
from agents import set_default_openai_client
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from openai import AsyncOpenAI

import agenttrace
from agenttrace.asgi import AgenttraceMiddleware
from agenttrace.testing.model_server import ModelServer, Reply, Request, text, tool_call

app = FastAPI()
app.add_middleware(AgenttraceMiddleware)


def agency() -> Agency:
    # New for each request: agents keep the conversation that they are in.
    model = os.environ.get("MODEL", "test-model")
    manager = Agent(name="Manager", description="Answers.", model=model)
    planner = Agent(name="Planner", description="Plans.", model=model)
    return Agency(manager, communication_flows=[(manager, planner)], name="Desk")


@app.get("/answer")
async def answer(question: str = "What is a lighthouse for?") -> str:
    return str((await agency().get_response(question)).final_output)


async def words(question: str) -> AsyncIterator[str]:
    async for event in agency().get_response_stream(question):
        data = getattr(event, "data", None)
        if getattr(data, "type", None) == "response.output_text.delta":
            yield data.delta


@app.get("/ask")
async def ask(question: str = "What is a lighthouse for?") -> StreamingResponse:
    return StreamingResponse(words(question), media_type="text/plain")


def model(request: Request) -> Reply:
    has_planner = "send_message" in str(request.body.get("tools"))
    if has_planner and not request.tool_results:
        message = {
            "recipient_agent": "Planner",
            "message": "What is there to say?",
            "additional_instructions": "",
        }
        return tool_call("send_message", message)
    return text("It shows ships where the rocks are. " * 3, gap=0.2)


def main() -> None:
    agenttrace.configure(service_name="agency-example", vendor_export=False)
    agenttrace.instrument()
    here = ModelServer(model)
    with nullcontext() if os.environ.get("OPENAI_BASE_URL") else here:
        if not os.environ.get("OPENAI_BASE_URL"):
            client = AsyncOpenAI(
                base_url=here.base_url, api_key="none needed", timeout=60
            )
            set_default_openai_client(client, use_for_tracing=False)
        uvicorn.run(app, port=int(os.environ.get("PORT", "8000")), log_level="warning")


if __name__ == "__main__":
    main()
