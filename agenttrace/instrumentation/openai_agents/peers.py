"""Other tools that follow the SDK: what they have made current stays so for them.

Each makes spans of its own beside ours, and has no part in our tree, nor we in theirs.
Some of them (OpenLLMetry) ask for the current span to find the parent of the next one.
Where ours stands in that place they are shown what they had put there, for as long as
they are told of a start; so their tree is what it is without us.

Whatever else starts inside a step goes by the current span like everybody, and that is
ours: the application's own spans, and those of HTTP clients and databases.  So what
they have put on top of ours is ours again as soon as they have been told: the SDK does
not make every span of its own current (those of voice are not), and ours is not then.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel
from opentelemetry.context.context import Context

from agenttrace import _otel, safety
from agenttrace.context.collector import COLLECTOR
from agenttrace.context.scope import Attached, SafeRuntimeContext, context_of
from agenttrace.instrumentation.openai_agents.currents import (
    SPAN_KEY,
    TRACE_KEY,
    mirror_of,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from agenttrace.context.scope import Value

_KEY: Final = otel.create_key("agenttrace-agents-theirs")
_SCOPES: Final = "openai_agents"
"""Ends the scopes of Logfire's, OpenInference's, OpenLLMetry's and OpenTelemetry's."""


def is_theirs(span: object) -> bool:
    """Return whether *span*, which is current, is of a tool that follows the SDK, too.

    Nobody else makes spans in that place: the application's are parents like any.
    """
    scope: Any = getattr(span, "instrumentation_scope", None)
    return str(getattr(scope, "name", "")).endswith(_SCOPES)


def remember(context: Context, parent: Context) -> object:
    """Keep in *context*, a new copy, which span is theirs, that ours takes over.

    Args:
        context: What is current once they have been told of a start.
        parent: What was so before.

    Returns:
        What they have started, None where that is nothing.
    """
    found = context.get(_otel.span_key())
    if is_theirs(found):
        _otel.put_into(context, _KEY, found)
        return found
    theirs = context.get(_KEY)
    return None if theirs is parent.get(_KEY) else theirs


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
    ours = otel.get_current().get(_otel.span_key())
    token = runtime.attach(context)
    try:
        yield
    finally:
        top = runtime.top()
        if top is not token:  # theirs was attached on top, and stays
            token.dead = True
            runtime.take_out(token)
            safety.guarded("openai_agents.ours", _put_on_top, ours, top)
        else:
            runtime.detach(token)


def _put_on_top(ours: object, top: Value) -> None:
    """Have *ours* current for as long as *top* is, which they have attached."""
    theirs = context_of(top).get(_otel.span_key())
    if not isinstance(top, Attached) or not is_theirs(theirs):
        return
    context = Context(context_of(top))
    _otel.put_into(context, _KEY, theirs)
    _otel.put_into(context, _otel.span_key(), ours)
    top.context = context


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
