"""A streamed run of the OpenAI Agents SDK in FastAPI, which stops with its listener.

Needs the extra `demo`.  Starts a model server on loopback, so it needs no key; set
`OPENAI_BASE_URL` and `OPENAI_API_KEY` to use another one.  Run it, then in another
terminal:

    curl -N http://127.0.0.1:8000/ask          # read it to the end: ok
    curl -N -m 1 http://127.0.0.1:8000/ask     # leave after a second: the run stops
    agenttrace tree --last 2
"""

import os
from collections.abc import AsyncIterator
from contextlib import nullcontext

import uvicorn
from agents import Agent, Runner, function_tool, set_default_openai_client
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from openai import AsyncOpenAI

import agenttrace
from agenttrace.testing.model_server import ModelServer, Reply, Request, text, tool_call

app = FastAPI()


@function_tool
async def look_up(topic: str) -> str:
    """Look a topic up."""
    return f"{topic}: it shows ships where the rocks are"


agent = Agent(
    name="keeper", model=os.environ.get("MODEL", "test-model"), tools=[look_up]
)


async def answer(question: str) -> AsyncIterator[str]:
    result = Runner.run_streamed(agent, question)
    async for event in result.stream_events():
        if event.type != "raw_response_event":
            continue
        if event.data.type == "response.output_text.delta":
            yield event.data.delta


@app.get("/ask")
async def ask(question: str = "What is a lighthouse for?") -> StreamingResponse:
    return StreamingResponse(answer(question), media_type="text/plain")


def model(request: Request) -> Reply:
    if not request.tool_results:
        return tool_call("look_up", {"topic": "lighthouse"})
    return text("It shows ships where the rocks are. " * 3, gap=0.2)


def main() -> None:
    agenttrace.configure(
        service_name="agents-example", on_abandon="cancel", vendor_export=False
    )
    agenttrace.instrument()
    here = ModelServer(model)
    with nullcontext() if os.environ.get("OPENAI_BASE_URL") else here:
        if not os.environ.get("OPENAI_BASE_URL"):
            client = AsyncOpenAI(base_url=here.base_url, api_key="none needed")
            set_default_openai_client(client, use_for_tracing=False)
        uvicorn.run(app, port=int(os.environ.get("PORT", "8000")), log_level="warning")


if __name__ == "__main__":
    main()
