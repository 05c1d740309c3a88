"""A streamed answer in FastAPI: its span ends with the stream, however that ends.

Needs the extra `demo`.  Starts a model server on loopback, so it needs no key; set
`OPENAI_BASE_URL` and `OPENAI_API_KEY` to use another one.  Run it, then in another
terminal:

    curl -N http://127.0.0.1:8000/ask          # read it to the end: ok
    curl -N -m 1 http://127.0.0.1:8000/ask     # leave after a second: abandoned
    agenttrace tree --last 2
"""

import os
from collections.abc import AsyncIterator
from contextlib import nullcontext

import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from openai import AsyncOpenAI

import agenttrace
from agenttrace.asgi import AgenttraceMiddleware
from agenttrace.testing.model_server import ModelServer, text

app = FastAPI()
app.add_middleware(AgenttraceMiddleware)
client: AsyncOpenAI


@agenttrace.agent
async def answer(question: str) -> AsyncIterator[str]:
    stream = await client.chat.completions.create(
        model=os.environ.get("MODEL", "test-model"),
        messages=[{"role": "user", "content": question}],
        stream=True,
    )
    async for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            yield chunk.choices[0].delta.content


@app.get("/ask")
async def ask(question: str = "What is a lighthouse for?") -> StreamingResponse:
    return StreamingResponse(answer(question), media_type="text/plain")


def main() -> None:
    global client  # noqa: PLW0603 - made here, once the server's address is known
    agenttrace.configure(service_name="fastapi-example")
    agenttrace.instrument("openai")
    here = ModelServer(
        lambda _: text("It shows ships where the rocks are. " * 3, gap=0.2)
    )
    with nullcontext() if os.environ.get("OPENAI_BASE_URL") else here:
        client = (
            AsyncOpenAI()
            if os.environ.get("OPENAI_BASE_URL")
            else AsyncOpenAI(base_url=here.base_url, api_key="none needed")
        )
        uvicorn.run(app, port=int(os.environ.get("PORT", "8000")), log_level="warning")


if __name__ == "__main__":
    main()
