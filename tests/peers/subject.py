"""Examines one instrumentation of openai: `python -m tests.peers.subject NAME`.

It runs in an environment that has that instrumentation, and prints a line of JSON.
Everybody is set up as their documentation says, on a provider of OpenTelemetry's SDK,
to which agenttrace is attached: it watches, and ends nothing that it does not own.  The
client asks the model server on loopback.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

import agenttrace
from agenttrace.testing import examine
from agenttrace.testing.model_server import ModelServer
from tests.delivery.collector import Collector

if TYPE_CHECKING:
    from collections.abc import Callable

    from agenttrace.testing import Report

MODEL: Final = "ok;chunks=4"
MESSAGES: Final[list[Any]] = [{"role": "user", "content": "What is the time?"}]


def _instrumentor(module: str, name: str) -> Callable[[str], str]:
    def set_up(_backend: str) -> str:
        trace.set_tracer_provider(TracerProvider())
        getattr(importlib.import_module(module), name)().instrument()
        return "openai"

    return set_up


def _logfire(_backend: str) -> str:
    logfire: Any = importlib.import_module("logfire")
    logfire.configure(send_to_logfire=False, console=False)
    logfire.instrument_openai()
    return "openai"


def _langfuse(backend: str) -> str:
    langfuse: Any = importlib.import_module("langfuse")
    langfuse.Langfuse(
        public_key="pk-lf-1",
        secret_key="sk-lf-1",  # noqa: S106 - nobody's
        base_url=backend,
    )
    return "langfuse.openai"


def _agenttrace(_backend: str) -> str:
    trace.set_tracer_provider(TracerProvider())
    agenttrace.instrument("openai")
    return "openai"


class Peer(NamedTuple):
    """An instrumentation.

    Args:
        title: What the table calls it.
        package: What is installed.
        set_up: Sets it up, with the address of a backend for those that need one;
            returns the module that has the client.
    """

    title: str
    package: str
    set_up: Callable[[str], str]


PEERS: Final = {
    "agenttrace": Peer("agenttrace", "agenttrace-otel", _agenttrace),
    "genai": Peer(
        "OpenTelemetry (genai)",
        "opentelemetry-instrumentation-genai-openai",
        _instrumentor(
            "opentelemetry.instrumentation.genai.openai", "OpenAIInstrumentor"
        ),
    ),
    "v2": Peer(
        "OpenTelemetry (v2)",
        "opentelemetry-instrumentation-openai-v2",
        _instrumentor("opentelemetry.instrumentation.openai_v2", "OpenAIInstrumentor"),
    ),
    "openinference": Peer(
        "OpenInference",
        "openinference-instrumentation-openai",
        _instrumentor("openinference.instrumentation.openai", "OpenAIInstrumentor"),
    ),
    "openllmetry": Peer(
        "OpenLLMetry",
        "opentelemetry-instrumentation-openai",
        _instrumentor("opentelemetry.instrumentation.openai", "OpenAIInstrumentor"),
    ),
    "logfire": Peer("Logfire", "logfire", _logfire),
    "langfuse": Peer("Langfuse", "langfuse", _langfuse),
}


def calls(openai: Any, url: str) -> dict[str, Callable[[], Any]]:  # noqa: ANN401 - a module that may be another one's
    """Return what is examined: the shapes in which a chat is asked for."""
    options: dict[str, Any] = {"base_url": url, "api_key": "-", "max_retries": 0}
    chat: Any = openai.OpenAI(**options).chat.completions

    def asks() -> object:
        return chat.create(model=MODEL, messages=MESSAGES)

    def streams() -> object:
        return chat.create(model=MODEL, messages=MESSAGES, stream=True)

    def asked() -> Any:  # noqa: ANN401 - the client's own
        # A client for each run: each case has an event loop of its own.
        return openai.AsyncOpenAI(**options).chat.completions

    async def awaits() -> object:
        return await asked().create(model=MODEL, messages=MESSAGES)

    async def awaits_a_stream() -> object:
        return await asked().create(model=MODEL, messages=MESSAGES, stream=True)

    return {
        "create()": asks,
        "create(stream=True)": streams,
        "await create()": awaits,
        "await create(stream=True)": awaits_a_stream,
    }


def told(report: Report) -> dict[str, Any]:
    """Return what is kept of *report*."""
    return {
        "cases": len(report.cases),
        "failed": len({each.case for each in report.broken}),
        "broken": {
            promise.value: [
                f"when {each.case}: {each.what}"
                for each in report.broken
                if each.promise is promise
            ]
            for promise in report.promises
        },
        "skipped": report.skipped,
    }


def main(name: str) -> None:
    """Examine the instrumentation *name* and print what was found."""
    peer = PEERS[name]
    with (
        Collector() as backend,
        ModelServer(ModelServer.by_model_name) as server,
    ):
        openai: Any = importlib.import_module(peer.set_up(backend.base))
        agenttrace.configure()
        found = {
            title: told(examine(call, name=title, leave_out=["forked", "killed"]))
            for title, call in calls(openai, server.base_url).items()
        }
    versions = {
        package: importlib.metadata.version(package)
        for package in (peer.package, "openai", "opentelemetry-sdk")
    }
    sys.stdout.write(json.dumps({"versions": versions, "calls": found}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
