"""What test suites import: tools to run agents against and to look at their spans.

    from agenttrace.testing import capture_spans

    with capture_spans() as spans:
        triage("the weather")
    spans.assert_all_closed()
    assert spans.span("invoke_agent triage").outcome == "ok"

Under pytest the fixture `agenttrace_spans` is the same (`agenttrace.pytest_plugin`).
`agenttrace.testing.model_server` is a model to run agents against.

Nothing is imported before it is asked for, and pytest not at all.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from agenttrace.errors import LeakedSpanWarning
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
    "Broken": "agenttrace.testing.conforming",
    "CapturedLink": "agenttrace.testing.spans",
    "CapturedSpan": "agenttrace.testing.spans",
    "CapturedSpans": "agenttrace.testing.capture",
    "FreshRuntime": "agenttrace.testing.runtimes",
    "Hang": "agenttrace.testing.hanging",
    "LeakedSpanWarning": "agenttrace.errors",
    "ManualClock": "agenttrace.testing.clock",
    "Promise": "agenttrace.testing.conforming",
    "Report": "agenttrace.testing.conforming",
    "Tokens": "agenttrace.testing.spans",
    "TracedTestCase": "agenttrace.testing.cases",
    "capture_spans": "agenttrace.testing.capture",
    "conformance": "agenttrace.testing.conforming",
    "examine": "agenttrace.testing.conforming",
    "fresh_runtime": "agenttrace.testing.runtimes",
    "kill_and_recover": "agenttrace.testing.killing",
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


def __getattr__(name: str) -> object:
    """Import a name when it is first asked for (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
