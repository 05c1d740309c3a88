"""The token by which a session knows the run that broke off in it.

A session has it from the start of a run until that has ended well.  So whoever goes on
with the session, in this process or with what was stored of it in another one, begins
a run that is linked to the one before, in the same conversation.

It is kept beside the session's state, which is the application's: as an attribute, so
that a copy has it too, and as a key of its own in what `to_dict` returns, which the
framework does not look at.
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.trace import Link

from agenttrace import semconv
from agenttrace.context.tokens import Origin
from agenttrace.context.tokens import read as read_token
from agenttrace.context.tokens import write as write_token
from agenttrace.model import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agenttrace.boundary.owned import OwnedCall
    from agenttrace.model import Ending

KEY: Final = "agenttrace"
"""Under this key a stored session has the token."""
_ATTRIBUTE: Final = "_agenttrace_token"

_open: weakref.WeakValueDictionary[str, OwnedCall] = weakref.WeakValueDictionary()
"""By their tokens, runs that are not done."""


def conversation_of(session: Any) -> str | None:  # noqa: ANN401 - an AgentSession
    """Return the conversation that *session* is, as the framework would tell it."""
    found: object = getattr(session, "service_session_id", None)
    if not isinstance(found, str):
        found = getattr(session, "session_id", None)
    return found if isinstance(found, str) else None


def links_of(session: object) -> tuple[Link, ...]:
    """Return the link to the run that broke off in *session*, if one has."""
    token = token_of(session)
    origin = None if token is None else read_token(token)
    if token is None or origin is None:
        return ()
    running = _open.get(token)
    if running is not None and running.goes_on:
        return ()  # a second one beside it, which goes on with nothing
    return (Link(origin.span, {semconv.LINK: semconv.RESUMED}),)


def enter(session: object, call: OwnedCall) -> str | None:
    """Let *session* know the run that starts in it; return its token."""
    span = call.span
    if span is None or not span.api.get_span_context().is_valid:
        return None
    context = span.api.get_span_context()
    token = write_token(Origin(context, conversation_of(session)))
    setattr(session, _ATTRIBUTE, token)
    _open[token] = call
    return token


def leave(session: object, token: str, ending: Ending) -> None:
    """Let *session* forget the run of *token*, if that ended well."""
    if ending.outcome is Outcome.OK and token_of(session) == token:
        vars(session).pop(_ATTRIBUTE, None)


def token_of(session: object) -> str | None:
    """Return the token that *session* has, if any."""
    token: object = getattr(session, _ATTRIBUTE, None)
    return token if isinstance(token, str) else None


def write(session: object, written: dict[str, Any]) -> None:
    """Put the token of *session* into what is stored of it."""
    token = token_of(session)
    if token is not None:
        written.setdefault(KEY, token)


def read(session: object, given: Mapping[str, Any] | None) -> None:
    """Take the token that was stored with *session*, if any."""
    token = None if given is None else given.get(KEY)
    if isinstance(token, str):
        setattr(session, _ATTRIBUTE, token)


if hasattr(os, "register_at_fork"):
    # They run in the parent.
    os.register_at_fork(after_in_child=_open.clear)
