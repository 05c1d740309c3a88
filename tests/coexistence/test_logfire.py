"""Logfire: a provider of its own that can be exchanged, and wraps the SDK's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.coexistence.given import LONGEST, TREE, run

if TYPE_CHECKING:
    from pathlib import Path

TRACES: Final = "/v1/traces"
SETUP: Final = """
import logfire
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import BatchSpanProcessor

def set_up(*processors):
    logfire.configure(
        send_to_logfire=False, console=False, additional_span_processors=processors
    )
"""


def test_attached_to_logfire_every_span_has_its_outcome(tmp_path: Path) -> None:
    """They configure, we attach: the order that our documentation names."""
    ran = run(
        tmp_path,
        SETUP
        + """
set_up(BatchSpanProcessor(OTLPSpanExporter(TRACES)))
runtime = agenttrace.configure()
work(logfire.span)
print(runtime.status().mode, runtime.status().guard_hits)
""",
        own=False,
    )

    assert (ran.code, ran.out, ran.err) == (0, "attached {}\n", "")
    assert ran.seconds < LONGEST
    assert len(ran.traces()) == 1
    assert ran.tree(TRACES) == TREE
    spans = ran.sent[TRACES]
    assert {span.attributes["gen_ai.conversation.id"] for span in spans} == {"c-1"}


def test_when_logfire_comes_second_the_trace_is_still_one(tmp_path: Path) -> None:
    """Two providers, each with spans of its own; the second cannot be the global one.

    What OTel says of that is the only line on stderr.
    """
    ran = run(
        tmp_path,
        SETUP
        + """
agenttrace.configure()
set_up()  # sends by OTel's variables, as we do
work(logfire.span)
""",
        own=True,
    )

    assert (ran.code, ran.out) == (0, "")
    assert ran.err == "Overriding of current TracerProvider is not allowed\n"
    assert ran.seconds < LONGEST
    assert len(ran.traces()) == 1
    assert ran.tree(TRACES) == {
        name: (parent, None if name.startswith("theirs") else outcome)
        for name, (parent, outcome) in TREE.items()
    }


def test_a_span_that_is_open_at_exit_is_told_once(tmp_path: Path) -> None:
    """Logfire's own exit handler ends what is open, after we have told it."""
    ran = run(
        tmp_path,
        SETUP
        + """
set_up(BatchSpanProcessor(OTLPSpanExporter(TRACES)))
agenttrace.configure()
kept = logfire.span("kept open")
kept.__enter__()
""",
        own=False,
    )

    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert ran.tree(TRACES) == {"kept open": ("", "lost")}
