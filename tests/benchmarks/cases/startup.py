"""What importing, configuring and instrumenting add to `import openai`.

In fresh processes, with the byte code cached: CPU time, from the moment that openai has
been imported until the first span could be started.  OpenTelemetry's SDK imports psutil
where it happens to be installed; our tests need it, users of agenttrace do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.benchmarks import harness, servers

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM: Final = """
import sys, time
import openai
sys.modules["psutil"] = None
began = time.process_time_ns()
import agenttrace
runtime = agenttrace.configure(service_name="benchmark")
agenttrace.instrument()
took = time.process_time_ns() - began
status = runtime.status()
assert status.mode == "own" and status.destinations == ("otlp",), status
assert status.safe_context, status
with agenttrace.span("first"):
    pass
assert runtime.flush(60)
print(took / 1e6)
"""


def measure(rounds: int) -> Iterator[harness.Figure]:
    """Yield the milliseconds."""
    with servers.receiver() as receiver:
        endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}
        samples = [
            float(harness.run("-c", PROGRAM, more=endpoint))
            for _ in range(rounds * 3 + 1)
        ]
    # The first one has written the byte code.
    yield harness.figure("startup", samples[1:])


if __name__ == "__main__":
    harness.main(measure)
