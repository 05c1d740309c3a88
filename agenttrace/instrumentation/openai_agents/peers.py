"""Other tools that follow the SDK: what they have made current stays so for them.

Each makes spans of its own beside ours, and has no part in our tree, nor we in theirs.
Some of them (OpenLLMetry) ask for the current span to find the parent of the next one.
Where ours stands in that place they are shown what they had put there, for as long as
they are told of a start; so their tree is what it is without us.

Whatever else starts inside a step goes by the current span like everybody, and that is
ours: the application's own spans, and those of HTTP clients and databases.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel
from opentelemetry.context.context import Context

from agenttrace import _otel, safety
from agenttrace.context.collector import COLLECTOR
from agenttrace.context.scope import SafeRuntimeContext
from agenttrace.instrumentation.openai_agents.currents import (
    SPAN_KEY,
    TRACE_KEY,
    mirror_of,
)

if TYPE_CHECKING:
    from collections.abc import Generator

_KEY: Final = otel.create_key("agenttrace-agents-theirs")
_SCOPES: Final = "openai_agents"
"""Ends the scopes of Logfire's, OpenInference's, OpenLLMetry's and OpenTelemetry's."""


def is_theirs(span: object) -> bool:
    """Return whether *span*, which is current, is of a tool that follows the SDK, too.

    Nobody else makes spans in that place: the application's are parents like any.
    """
    scope: Any = getattr(span, "instrumentation_scope", None)
    return scope is not None and scope.name.endswith(_SCOPES)


def remember(context: Context, span: object) -> None:
    """Keep in *context*, a new copy, that theirs is *span*, which ours takes over."""
    if is_theirs(span):
        _otel.put_into(context, _KEY, span)


@contextmanager
def shown_theirs() -> Generator[None]:
    """Have current in this block what is so for them, and keep what they put there."""
    runtime = _otel.runtime_context()
    context = safety.guarded("openai_agents.theirs", _theirs_here)
    if (
        context is None
        or not isinstance(runtime, SafeRuntimeContext)
        or COLLECTOR.is_here()
    ):
        yield
        return
    token = runtime.attach(context)
    try:
        yield
    finally:
        if runtime.top() is not token:  # theirs was attached on top, and stays
            token.dead = True
            runtime.take_out(token)
        else:
            runtime.detach(token)


def _theirs_here() -> Context | None:
    """Return the context as they know it, None where it is the one that is current."""
    context = otel.get_current()
    theirs = context.get(_KEY)
    if theirs is None:
        return None
    key = _otel.span_key()
    here = context.get(key)
    mirrors: Any = [mirror_of(context.get(each)) for each in (SPAN_KEY, TRACE_KEY)]
    # A span of the application's in between is current for them, too.
    if not any(each is not None and each.span.api is here for each in mirrors):
        return None
    shown = Context(context)
    _otel.put_into(shown, key, theirs)
    return shown
