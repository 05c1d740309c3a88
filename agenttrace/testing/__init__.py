"""What test suites import: tools to run agents against and to look at their spans.

    from agenttrace.testing import capture_spans

    with capture_spans() as spans:
        triage("the weather")
    spans.assert_all_closed()
    assert spans.span("invoke_agent triage").outcome == "ok"

Under pytest the fixture `agenttrace_spans` is the same (`agenttrace.pytest_plugin`).
`agenttrace.testing.model_server` is a model to run agents against.

No tool is imported before it is asked for, and pytest not at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agenttrace.errors import LeakedSpanWarning
from agenttrace.lazy import exports

if TYPE_CHECKING:
    from agenttrace.testing.capture import CapturedSpans, capture_spans
    from agenttrace.testing.cases import TracedTestCase
    from agenttrace.testing.clock import ManualClock
    from agenttrace.testing.conforming import (
        Broken,
        Promise,
        Report,
        conformance,
        examine,
    )
    from agenttrace.testing.hanging import Hang
    from agenttrace.testing.killing import kill_and_recover
    from agenttrace.testing.runtimes import FreshRuntime, fresh_runtime
    from agenttrace.testing.spans import CapturedLink, CapturedSpan, Tokens

_HOMES: Final = {
    "Broken": "conforming",
    "CapturedLink": "spans",
    "CapturedSpan": "spans",
    "CapturedSpans": "capture",
    "FreshRuntime": "runtimes",
    "Hang": "hanging",
    "ManualClock": "clock",
    "Promise": "conforming",
    "Report": "conforming",
    "Tokens": "spans",
    "TracedTestCase": "cases",
    "capture_spans": "capture",
    "conformance": "conforming",
    "examine": "conforming",
    "fresh_runtime": "runtimes",
    "kill_and_recover": "killing",
}

__all__ = [
    "Broken",
    "CapturedLink",
    "CapturedSpan",
    "CapturedSpans",
    "FreshRuntime",
    "Hang",
    "LeakedSpanWarning",
    "ManualClock",
    "Promise",
    "Report",
    "Tokens",
    "TracedTestCase",
    "capture_spans",
    "conformance",
    "examine",
    "fresh_runtime",
    "kill_and_recover",
]

__getattr__ = exports(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
