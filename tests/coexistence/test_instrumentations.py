"""OpenTelemetry's own instrumentations, on our provider and beside another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.coexistence.given import LONGEST, run

if TYPE_CHECKING:
    from pathlib import Path

TRACES: Final = "/v1/traces"
THEIR_PROVIDER: Final = """
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(
    BatchSpanProcessor(OTLPSpanExporter(TRACES))
)
"""
MODES: Final = {"own": "", "attached": THEIR_PROVIDER}


@pytest.mark.parametrize("mode", MODES)
def test_log_records_carry_the_ids_of_our_spans(tmp_path: Path, mode: str) -> None:
    """From a log line to its trace is the way most people come."""
    ran = run(
        tmp_path,
        MODES[mode]
        + """
agenttrace.configure()
import logging
from opentelemetry.instrumentation.logging import LoggingInstrumentor
LoggingInstrumentor().instrument(inject_trace_context=True)

class Printing(logging.Handler):
    def emit(self, record):
        print(record.otelTraceID, record.otelSpanID, record.otelTraceSampled)

logger = logging.getLogger("app")
logger.addHandler(Printing())
with agenttrace.span("plan"):
    logger.warning("hello")
""",
        own=mode == "own",
    )

    (span,) = ran.sent[TRACES]
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == f"{span.trace_id} {span.span_id} True\n"


@pytest.mark.parametrize("mode", MODES)
def test_requests_of_http_clients_are_children_and_carry_the_trace(
    tmp_path: Path, mode: str
) -> None:
    """The header they send is what ties the other service's spans to ours."""
    ran = run(
        tmp_path,
        MODES[mode]
        + """
agenttrace.configure()
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "http"  # the stable names
import httpx
import requests
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor
RequestsInstrumentor().instrument()
HTTPXClientInstrumentor().instrument()

class Service(BaseHTTPRequestHandler):
    def do_GET(self):
        print(self.headers["traceparent"].split("-")[2])
        self.send_response(404)
        self.end_headers()

    def log_message(self, *arguments):
        pass

service = HTTPServer(("127.0.0.1", 0), Service)
threading.Thread(target=service.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{service.server_port}"
with agenttrace.span("requests"):
    requests.get(url)
with agenttrace.span("httpx"):
    httpx.get(url)
service.shutdown()
""",
        own=mode == "own",
    )

    assert (ran.code, ran.err) == (0, "")
    assert ran.seconds < LONGEST
    spans = ran.sent[TRACES]
    outer = {span.name: span.span_id for span in spans if not span.parent_id}
    inner = {span.parent_id: span for span in spans if span.parent_id}
    assert outer.keys() == {"requests", "httpx"}
    assert ran.out.split() == [
        inner[outer["requests"]].span_id,
        inner[outer["httpx"]].span_id,
    ]
    assert {span.attributes["agenttrace.outcome"] for span in inner.values()} == {
        "error"
    }
    assert {span.attributes["error.type"] for span in inner.values()} == {"404"}


@pytest.mark.parametrize("mode", MODES)
def test_a_web_frameworks_server_span_is_the_parent_of_what_it_runs(
    tmp_path: Path, mode: str
) -> None:
    """FastAPI has a server span already; there must not be a second one."""
    ran = run(
        tmp_path,
        MODES[mode]
        + """
agenttrace.configure()
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

app = FastAPI()

@agenttrace.agent
async def stream():
    for word in ("a", "b"):
        yield word

@app.get("/stream")
async def answer():
    return StreamingResponse(stream())

FastAPIInstrumentor.instrument_app(app, exclude_spans=["receive", "send"])

async def call():
    import httpx
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
        print((await client.get("/stream")).text)

asyncio.run(call())
""",
        own=mode == "own",
    )

    assert (ran.code, ran.out, ran.err) == (0, "ab\n", "")
    assert len(ran.traces()) == 1
    assert ran.tree(TRACES) == {
        "GET /stream": ("", "ok"),
        "invoke_agent stream": ("GET /stream", "ok"),
    }
