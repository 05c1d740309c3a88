"""A streamed answer in Django: its span ends with the stream, however that ends.

Needs the extras `django` and `demo`.  Starts a model server on loopback, so it needs no
key; set `OPENAI_BASE_URL` and `OPENAI_API_KEY` to use another one.  Run it, then in
another terminal:

    curl -N http://127.0.0.1:8000/ask/          # read it to the end: ok
    curl -N -m 1 http://127.0.0.1:8000/ask/     # leave after a second: abandoned
    agenttrace tree --last 2
"""

import os
from collections.abc import AsyncIterator
from contextlib import nullcontext

import django
import uvicorn
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, StreamingHttpResponse
from django.urls import path
from openai import AsyncOpenAI

import agenttrace
from agenttrace.testing.model_server import ModelServer, text

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    INSTALLED_APPS=["agenttrace.django"],
    MIDDLEWARE=["agenttrace.django.middleware.AgenttraceMiddleware"],
    AGENTTRACE={"SERVICE_NAME": "django-example", "INSTRUMENT": ["django", "openai"]},
    ROOT_URLCONF=__name__,
    SECRET_KEY="an example has no secrets",  # noqa: S106 - see its value
)
django.setup()

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


async def ask(request: HttpRequest) -> StreamingHttpResponse:
    question = request.GET.get("question", "What is a lighthouse for?")
    return StreamingHttpResponse(answer(question), content_type="text/plain")


urlpatterns = [path("ask/", ask)]


def main() -> None:
    global client  # noqa: PLW0603 - made here, once the server's address is known
    here = ModelServer(
        lambda _: text("It shows ships where the rocks are. " * 3, gap=0.2)
    )
    with nullcontext() if os.environ.get("OPENAI_BASE_URL") else here:
        client = (
            AsyncOpenAI()
            if os.environ.get("OPENAI_BASE_URL")
            else AsyncOpenAI(base_url=here.base_url, api_key="none needed")
        )
        uvicorn.run(
            get_asgi_application(),
            port=int(os.environ.get("PORT", "8000")),
            log_level="warning",
            lifespan="off",
        )


if __name__ == "__main__":
    main()
