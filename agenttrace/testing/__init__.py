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
    from agenttrace.testing.runtimes import FreshRuntime, fresh_runtime
    from agenttrace.testing.spans import CapturedLink, CapturedSpan, Tokens

_HOMES: Final = {
    "CapturedLink": "spans",
    "CapturedSpan": "spans",
    "CapturedSpans": "capture",
    "FreshRuntime": "runtimes",
    "Tokens": "spans",
    "capture_spans": "capture",
    "fresh_runtime": "runtimes",
}

__all__ = [
    "CapturedLink",
    "CapturedSpan",
    "CapturedSpans",
    "FreshRuntime",
    "LeakedSpanWarning",
    "Tokens",
    "capture_spans",
    "fresh_runtime",
]

__getattr__ = exports(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
