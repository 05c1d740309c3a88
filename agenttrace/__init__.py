"""agenttrace: every span of an agent run reaches the dashboard, closed, with the truth.

    import agenttrace

    agenttrace.configure(service_name="support")
    agenttrace.instrument()

Importing this package imports nothing but names: neither OpenTelemetry's SDK nor any
library that can be instrumented.  It must stay so for another reason too: the entry
point `opentelemetry_context` loads `agenttrace.context.scope`, and with it this file,
while OpenTelemetry itself is still being imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agenttrace.lazy import exports

if TYPE_CHECKING:
    from agenttrace.api import (
        agent,
        background,
        bind,
        carrier,
        carry,
        continue_trace,
        heartbeat,
        hold,
        span,
        tool,
        traced,
        workflow,
    )
    from agenttrace.api.resuming import checkpoint, resume
    from agenttrace.context.environment import environ
    from agenttrace.errors import (
        AgenttraceError,
        MissingExtraError,
        SettingError,
        StuckSpanWarning,
        UnknownInstrumentationError,
    )
    from agenttrace.instrumentation import instrument, uninstrument
    from agenttrace.model import EndedBy, Outcome
    from agenttrace.recovery import Recovered
    from agenttrace.registry import OpenSpan
    from agenttrace.runtime import (
        Runtime,
        configure,
        flush,
        open_spans,
        recover,
        shutdown,
    )

__version__ = "0.1.0"

_HOMES: Final = {
    "agent": "api",
    "background": "api",
    "bind": "api",
    "carrier": "api",
    "carry": "api",
    "checkpoint": "api.resuming",
    "continue_trace": "api",
    "environ": "context.environment",
    "heartbeat": "api",
    "hold": "api",
    "resume": "api.resuming",
    "span": "api",
    "tool": "api",
    "traced": "api",
    "workflow": "api",
    "AgenttraceError": "errors",
    "MissingExtraError": "errors",
    "SettingError": "errors",
    "StuckSpanWarning": "errors",
    "UnknownInstrumentationError": "errors",
    "instrument": "instrumentation",
    "uninstrument": "instrumentation",
    "EndedBy": "model",
    "Outcome": "model",
    "OpenSpan": "registry",
    "Recovered": "recovery",
    "Runtime": "runtime",
    "configure": "runtime",
    "flush": "runtime",
    "open_spans": "runtime",
    "recover": "runtime",
    "shutdown": "runtime",
}

__all__ = [
    "AgenttraceError",
    "EndedBy",
    "MissingExtraError",
    "OpenSpan",
    "Outcome",
    "Recovered",
    "Runtime",
    "SettingError",
    "StuckSpanWarning",
    "UnknownInstrumentationError",
    "__version__",
    "agent",
    "background",
    "bind",
    "carrier",
    "carry",
    "checkpoint",
    "configure",
    "continue_trace",
    "environ",
    "flush",
    "heartbeat",
    "hold",
    "instrument",
    "open_spans",
    "recover",
    "resume",
    "shutdown",
    "span",
    "tool",
    "traced",
    "uninstrument",
    "workflow",
]

__getattr__ = exports(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
