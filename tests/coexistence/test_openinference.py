"""OpenInference's instrumentation of openai, on Phoenix's provider and on ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.coexistence.given import LONGEST, run

if TYPE_CHECKING:
    from pathlib import Path

TRACES: Final = "/v1/traces"
PHOENIX: Final = """
from phoenix.otel import register
register(endpoint=TRACES, protocol="http/protobuf", batch=True, verbose=False)
"""
CALLS: Final = """
from openai import OpenAI
from openinference.instrumentation.openai import OpenAIInstrumentor
from agenttrace.testing.model_server import ModelServer, text

OpenAIInstrumentor().instrument()
with ModelServer(lambda request: text("Hello to you.")) as server:
    client = OpenAI(base_url=server.base_url, api_key="unused", max_retries=0)
    message = {"role": "user", "content": "Hello"}
    with agenttrace.span("plan"):
        client.chat.completions.create(model="m", messages=[message])
        stream = client.chat.completions.create(
            model="m", messages=[message], stream=True
        )
        for chunk in stream:
            pass
        del stream
"""


@pytest.mark.parametrize("order", ["they first", "we first"])
def test_their_model_calls_are_children_of_our_steps(
    tmp_path: Path, order: str
) -> None:
    """Whoever has their instrumentation keeps it, and gains outcomes."""
    configure = "agenttrace.configure()\n"
    setup = PHOENIX + configure if order == "they first" else configure

    ran = run(tmp_path, setup + CALLS, own=order == "we first")

    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert ran.seconds < LONGEST
    assert len(ran.traces()) == 1
    assert ran.tree(TRACES) == {
        "plan": ("", "ok"),
        "ChatCompletion": ("plan", "ok"),
    }
    assert len(ran.sent[TRACES]) == 3


def test_phoenix_can_still_exchange_its_default_processor(tmp_path: Path) -> None:
    """It looks for that among the provider's processors by identity."""
    ran = run(
        tmp_path,
        """
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from phoenix.otel import register
        provider = register(
            endpoint=TRACES, protocol="http/protobuf", batch=False, verbose=False
        )
        agenttrace.configure()
        provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(TRACES)))
        with agenttrace.span("plan"):
            pass
        """,
        own=False,
    )

    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert ran.tree(TRACES) == {"plan": ("", "ok")}
