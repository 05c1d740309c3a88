"""What importing, configuring and instrumenting add to `import openai`.

In fresh processes, with the byte code cached: CPU time, from the moment that openai has
been imported until the first span could be started, beside what the SDK with its
exporter takes for the same (ADR 9).  OpenTelemetry's SDK imports psutil
where it happens to be installed; our tests need it, users of agenttrace do not.
"""

from __future__ import annotations

import os
from statistics import median
from typing import TYPE_CHECKING, Final

from tests.benchmarks import harness, servers

if TYPE_CHECKING:
    from collections.abc import Iterator

START: Final = """
import sys, time
import openai
sys.modules["psutil"] = None
began = time.process_time_ns()
"""
OURS: Final = f"""{START}
import agenttrace
runtime = agenttrace.configure(service_name="benchmark")
agenttrace.instrument()
print((time.process_time_ns() - began) / 1e6)
status = runtime.status()
assert status.mode == "own" and status.destinations == ("otlp",), status
assert status.safe_context, status
with agenttrace.span("first"):
    pass
assert runtime.flush(60)
"""
THEIRS: Final = f"""{START}
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
provider = TracerProvider(resource=Resource.create({{"service.name": "benchmark"}}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
print((time.process_time_ns() - began) / 1e6)
"""


def measure(rounds: int) -> Iterator[harness.Figure]:
    """Yield what ours takes of what the SDK's does."""
    with servers.receiver() as receiver:
        more = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "AGENTTRACE_STATE_DIR": os.environ["AGENTTRACE_STATE_DIR"],
        }
        # The round of warming up writes the byte code.
        ours, theirs = harness.in_turns(
            rounds * 2,
            lambda: float(harness.run("-c", OURS, more=more)),
            lambda: float(harness.run("-c", THEIRS, more=more)),
        )
    yield harness.Figure(
        "startup",
        harness.ratios(ours, theirs),
        f"{median(ours):.1f} ms; the SDK with its exporter, and no instrumentation: "
        f"{median(theirs):.1f} ms",
    )


if __name__ == "__main__":
    harness.main(measure)
