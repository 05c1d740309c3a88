"""Attributes for every span that starts below: `bind`.

They travel in OTel's context under a key of ours, so they reach spans of every library
in this process and, unlike baggage, are never sent to another service.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, cast

from opentelemetry import context as otel

from agenttrace import attributes as values
from agenttrace import semconv
from agenttrace.context import scope

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from opentelemetry.context.context import Context

_NOTHING: Final[Mapping[str, object]] = {}
BOUND_KEY: Final = otel.create_key("agenttrace-bound")


def bound_in(context: Context) -> Mapping[str, object]:
    """Return what is bound in *context*, clean."""
    return cast("Mapping[str, object]", context.get(BOUND_KEY, _NOTHING))


@contextmanager
def bind(
    *,
    conversation_id: str | None = None,
    user_id: str | None = None,
    attributes: Mapping[str, object] | None = None,
) -> Generator[None]:
    """Put attributes on every span that starts in this block, also in other libraries.

    Args:
        conversation_id: `gen_ai.conversation.id`.
        user_id: `user.id`.
        attributes: Any others.  What an inner `bind` says wins.

    Nothing of this leaves the process but as attributes of spans.
    """
    current = otel.get_current()
    bound = dict(bound_in(current))
    if conversation_id is not None:
        bound[semconv.GEN_AI_CONVERSATION_ID] = values.clean(conversation_id)
    if user_id is not None:
        bound[semconv.USER_ID] = values.clean(user_id)
    for key, value in values.mapping_of(attributes or {}).items():
        name = values.clean_key(key)
        if name is not None:
            bound[name] = values.clean(value)
    with bound_to(bound):
        yield


@contextmanager
def bound_to(bound: dict[str, object]) -> Generator[None]:
    """Put *bound* on every span that starts in this block, whatever it says by then.

    Args:
        bound: Clean attributes.  Instead of what is bound so far.
    """
    token = otel.attach(otel.set_value(BOUND_KEY, bound))
    try:
        yield
    finally:
        scope.detach(token)
