"""The tracing context in the environment of a process, as OpenTelemetry has it there.

Its fields are called what they are called in headers, in capitals: `TRACEPARENT`,
`TRACESTATE`, `BAGGAGE`, or whatever the application's propagators write.  The names are
made as the specification says
(https://opentelemetry.io/docs/specs/otel/context/env-carriers/); what is in the values
is the propagators' business.

The environment of this process is read once and never written.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from opentelemetry import context as otel
from opentelemetry import propagate, trace
from opentelemetry.propagators.textmap import DefaultGetter

from agenttrace import safety
from agenttrace.context.carriers import carrier, context_of

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTINUE_VARIABLE: Final = "AGENTTRACE_CONTINUE_TRACE"
"""Of the setting that has a process continue the trace in its environment."""


class Names(DefaultGetter):
    """Finds a field in a carrier by its own name, else as a variable is called."""

    def get(self, carrier: Mapping[str, list[str] | str], key: str) -> list[str] | None:
        """Return what *carrier* has for *key*."""
        found = super().get(carrier, key)
        return super().get(carrier, variable_of(key)) if found is None else found


NAMES: Final = Names()


def variable_of(key: str) -> str:
    """Return the environment variable of the field *key*.

    >>> variable_of("x-b3-traceid")
    'X_B3_TRACEID'
    """
    name = re.sub(r"[^A-Z0-9_]", "_", key.upper())
    return f"_{name}" if name[:1].isdigit() else name


def environ(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment for a subprocess that continues the trace from here.

    It is *base*, with the current tracing context in `TRACEPARENT`, `TRACESTATE` and,
    where the application uses it, `BAGGAGE`, in place of what stood there.  An
    agenttrace that is configured in the subprocess takes it from there; so do other
    tools that know these variables.  Where no span is current, the trace that *base*
    is of stays there.

    Args:
        base: The environment otherwise; None = that of this process.

    >>> import subprocess
    >>> with span("report"):  # doctest: +SKIP
    ...     subprocess.run(["python", "draw.py"], env=environ(), check=True)
    """
    variables = dict(os.environ if base is None else base)
    headers = carrier()
    if trace.get_current_span().get_span_context().is_valid:
        for field in safety.guarded("environ", _fields) or ():
            variables.pop(variable_of(field), None)
        variables[CONTINUE_VARIABLE] = "true"
    variables.update({variable_of(key): headers[key] for key in headers})
    return variables


def continue_environment() -> None:
    """Continue the trace in the environment of this process, from here on.

    In this thread, and whatever takes its context along.  Not where a span is current:
    then it is known already what this is a part of.
    """
    here = otel.get_current()
    if not trace.get_current_span(here).get_span_context().is_valid:
        context = safety.guarded("continue_environment", context_of, os.environ, here)
        if context is not None:
            otel.attach(context)  # never detached: that is what it is for


def _fields() -> set[str]:
    return propagate.get_global_textmap().fields
