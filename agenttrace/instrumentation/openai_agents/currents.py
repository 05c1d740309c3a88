"""The Agents SDK's current trace and span, kept inside OpenTelemetry's context.

The SDK keeps each in a `ContextVar` and resets it with the variable's token, which
raises where a stream is advanced in one context and closed in another.  A `Current`
stands in for the variable: what is set becomes a context of OpenTelemetry's that has
the SDK's object, and its mirror as the current span; what is reset is detached, which
is right wherever it happens (`context.scope`).

What was set before the stand-in came is found in the variable, which it keeps.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from opentelemetry import context as otel
from opentelemetry.context.context import Context

from agenttrace import _otel, safety, semconv
from agenttrace import attributes as values
from agenttrace.context.bound import BOUND_KEY, bound_in
from agenttrace.context.scope import detach

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Callable

_MISSING: Final = object()


class Follower(Protocol):
    """The mirror of a trace or span, as this module knows it."""

    held: Held | None

    def put_into(self, context: Context) -> None:
        """Put what is current inside the mirror's span into *context*, a new copy."""
        ...


class Held:
    """The token of what was made current: it can be given back once, anywhere."""

    __slots__ = ("_current", "_token")

    def __init__(self, current: Current, token: Any) -> None:  # noqa: ANN401 - OTel's tokens are opaque
        self._current: Current | None = current
        self._token = token

    def give_back(self) -> None:
        """Make it current no more."""
        current, self._current = self._current, None
        # A token leads to the SDK's span, which may lead here: nothing is kept.
        token, self._token = self._token, None
        if current is not None:
            current.given_back()
            detach(token)

    def __del__(self) -> None:
        # Whoever had it has not given it back, and nobody can any more.
        if self._current is not None:
            self._current.given_back()


class Current:
    """Stands in for one of the SDK's context variables.

    Args:
        key: Under which OpenTelemetry's context has what the variable would have.
        original: The variable.
        is_on: Tells whether the instrumentation is on.
    """

    def __init__(
        self,
        key: str,
        original: contextvars.ContextVar[Any],
        is_on: Callable[[], bool],
    ) -> None:
        self._key = KEYS[key]
        self._original = original
        self._is_on = is_on
        self._out: list[None] = []

    @property
    def in_use(self) -> bool:
        """Whether the SDK has tokens of it, which the variable would not take."""
        return bool(self._out)

    @property
    def name(self) -> str:
        """The variable's name."""
        return self._original.name

    def get(self, *default: object) -> Any:  # noqa: ANN401 - a trace or span of the SDK's
        """Return what is current, as the variable would."""
        found = otel.get_current().get(self._key, _MISSING)
        return self._original.get(*default) if found is _MISSING else found

    def set(self, value: Any) -> Any:  # noqa: ANN401 - a trace or span, None, and a token
        """Make *value* current and return the token that ends it."""
        # Noted before it is asked for: who takes the stand-in out looks the other way
        # round.  As a list: taking from it and adding to it needs no lock.
        self._out.append(None)
        if not self._is_on():
            self._out.pop()
            return self._original.set(value)
        context = Context(otel.get_current())
        _otel.put_into(context, self._key, value)
        mirror = mirror_of(value)
        if mirror is not None:
            safety.guarded("openai_agents.current", mirror.put_into, context)
        group = group_of(value)
        if group is not None:
            # Here, since a trace that is taken up again has no mirror.
            bind_group(context, group)
        held = Held(self, otel.attach(context))
        if mirror is not None:
            mirror.held = held
        return held

    def reset(self, token: Any) -> None:  # noqa: ANN401 - ours, or the variable's
        """Make what *token* stands for current no more, wherever this is."""
        if isinstance(token, Held):
            token.give_back()
        elif self._is_on():
            with contextlib.suppress(ValueError, RuntimeError):
                self._original.reset(token)
        else:
            self._original.reset(token)

    def given_back(self) -> None:
        """Hear that one of its tokens was used."""
        self._out.pop()


def group_of(value: object) -> str | None:
    """Return the conversation that *value* names, if it is a trace that names one."""
    group: object = getattr(value, "group_id", None)
    return None if group is None else str(values.clean(group))


def bind_group(context: Context, group: str) -> None:
    """Put *group* on every span that starts in *context*, a new copy."""
    bound = {**bound_in(context), semconv.GEN_AI_CONVERSATION_ID: group}
    _otel.put_into(context, BOUND_KEY, bound)


def mirror_of(value: object) -> Follower | None:
    """Return the mirror of *value*, a trace or span of the SDK's, if it has one."""
    follower: object = getattr(value, "_processor", None)
    # Wrappers of other tools answer to any name.
    return cast("Follower", follower) if hasattr(type(follower), "put_into") else None


KEYS: Final = {
    name: otel.create_key(f"agenttrace-{name}")
    for name in ("agents-trace", "agents-span")
}
TRACE_KEY: Final = KEYS["agents-trace"]
SPAN_KEY: Final = KEYS["agents-span"]
