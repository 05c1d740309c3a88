"""What may be captured of prompts, outputs, arguments and results, and how much of it.

Nothing is, unless it was asked for.  What is asked for passes the application's
redaction hook, and a size limit, before it becomes an attribute; it never reaches a
journal, a log or a metric.  This module owns that policy; who has content to offer
asks `attributes_of`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final, cast

from agenttrace import attributes, safety
from agenttrace.records import NamedTuple

Redact = Callable[[str, object], object]
"""Called with an attribute's key and its value (plain data); returns what may be kept,
or None to keep nothing."""

MAX_CHARACTERS: Final = 64 * 1024
_PLAIN: Final = attributes.SCALARS - {bytes}
REDACTION_FAILED: Final = "<not captured: the redaction hook failed>"


class Policy(NamedTuple):
    """What `configure()` says of content.

    Args:
        capture: Whether content is captured at all, where a decorator says nothing.
        redact: The application's hook, if it has one.
        max_characters: Longest captured value; the rest is cut and said.
    """

    capture: bool = False
    redact: Redact | None = None
    max_characters: int = MAX_CHARACTERS


_policy = Policy()


def install(policy: Policy) -> Policy:
    """Use *policy* from now on and return the one before it."""
    global _policy
    previous, _policy = _policy, policy
    return previous


def wanted(override: bool | None = None) -> bool:  # noqa: FBT001 - reads as a question
    """Return whether content is captured, *override* having the last word."""
    return _policy.capture if override is None else override


def attribute_of(key: str, value: object) -> dict[str, str]:
    """Return *value* as the attribute *key*: redacted, as JSON, bounded.

    Empty where the hook wants nothing kept.  Call it only where `wanted()`.
    """
    policy = _policy
    if policy.redact is not None:
        try:
            value = policy.redact(key, _plain_of(value))
        except Exception as error:  # noqa: BLE001 - the application's hook
            safety.swallow("redact", error)
            return {key: REDACTION_FAILED}
        if value is None:
            return {}
    # By type: a proxy may say that it is a string and have no length.
    text = cast("str", value) if issubclass(type(value), str) else to_json(value)
    return {key: cut(text, policy.max_characters)}


def to_json(value: object) -> str:
    """Return *value* as JSON; what JSON cannot say becomes text."""
    try:
        return json.dumps(value, ensure_ascii=False, default=_plain)
    except Exception:  # noqa: BLE001 - foreign code runs inside
        # Keys that are no strings, cycles, something deeper than Python goes, or an
        # object that fails when it is read.
        return json.dumps(attributes.clean(value), ensure_ascii=False, default=repr)


def _plain_of(value: object) -> object:
    """Return *value* as the hook is to see it: what would be kept, and not the object.

    An object of the application's has secrets that JSON does not show, and a hook that
    changes it would change the application.
    """
    kind: type[object] = type(value)
    return value if kind in _PLAIN else json.loads(to_json(value))


def cut(text: str, limit: int) -> str:
    """Return *text*, cut at *limit* characters with a word on what is missing.

    >>> cut("abcdef", 3)
    'abc... [3 more characters]'
    """
    if len(text) <= limit:
        return text
    return f"{text[:limit]}... [{len(text) - limit} more characters]"


def _plain(value: object) -> object:
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        return dump(mode="json", exclude_none=True)
    return attributes.clean(value)
