"""What encoding a span costs, as a share of what the SDK's encoder takes for it."""

from __future__ import annotations

import gc
from random import Random
from statistics import median
from time import process_time
from typing import TYPE_CHECKING, TypeVar

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.trace import SpanKind

from agenttrace.delivery.otlp import encode
from agenttrace.delivery.readable import to_readable
from agenttrace.model import ResourceData, ScopeData, SpanData

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

S = TypeVar("S")

SPANS = 500
ROUNDS = 15
LIMIT = 0.30
"""The budget is 0.25 and the aim 0.16; the rest is what two shared cores may add."""

RESOURCE = ResourceData({"service.name": "benchmark"})
SCOPE = ScopeData("agenttrace", "1.0")


def chat_span(random: Random) -> SpanData:
    """Return a model call as it is usually told: ten attributes, three never twice."""
    return SpanData(
        trace_id=random.randbytes(16),
        span_id=random.randbytes(8),
        parent_id=random.randbytes(8),
        name="chat gpt-4o",
        kind=SpanKind.CLIENT,
        start_time=1_800_000_000_000_000_000 + random.randrange(10**9),
        end_time=1_800_000_002_000_000_000 + random.randrange(10**9),
        attributes={
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "gpt-4o",
            "gen_ai.request.temperature": 0.5,
            "gen_ai.request.stream": True,
            "gen_ai.response.id": f"chatcmpl-{random.getrandbits(96):x}",
            "gen_ai.usage.input_tokens": random.randrange(10_000),
            "gen_ai.usage.output_tokens": random.randrange(1_000),
            "server.address": "api.example.com",
            "agenttrace.outcome": "ok",
        },
        resource=RESOURCE,
        scope=SCOPE,
    )


def encode_as_the_sdk(spans: Sequence[ReadableSpan]) -> bytes:
    return encode_spans(spans).SerializeToString()


def seconds_of(encoder: Callable[[Sequence[S]], bytes], spans: Sequence[S]) -> float:
    """Return the CPU time that *encoder* takes for *spans*."""
    gc.collect()
    start = process_time()
    encoder(spans)
    return process_time() - start


def test_encoding_costs_a_fraction_of_what_the_sdk_takes() -> None:
    """The export thread takes its time from the application's event loop."""
    random = Random(17)  # noqa: S311 - no secret, and the same spans on every run
    ours: list[float] = []
    theirs: list[float] = []

    for _ in range(ROUNDS):
        # New spans each time: what a cache may know of them is what it would know.
        spans = [chat_span(random) for _ in range(SPANS)]
        readable = [to_readable(span) for span in spans]
        ours.append(seconds_of(encode, spans))
        theirs.append(seconds_of(encode_as_the_sdk, readable))

    ratio = median(ours) / median(theirs)
    print(f"\n{median(ours) / SPANS * 1e6:.1f} us per span, {ratio:.3f} of the SDK's")  # noqa: T201 - a benchmark says what it measured
    assert ratio < LIMIT
