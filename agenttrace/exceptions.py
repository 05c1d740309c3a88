"""What may be said of an exception: its class, its message, its stack.

Pydantic's validation errors quote the value they are about, which may be what a model
answered or a tool was given.  That is content, and content is captured only when asked
for; so it is left out of every text made here, of what such an error caused as well.

Nothing here decides what an exception means for a span: that is `model`'s.
"""

from __future__ import annotations

import re
import traceback
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, cast

from agenttrace import safety, semconv

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

_STACK_LIMIT: Final = 100
"""Innermost frames of a recorded stack: deep recursion must not become megabytes."""
_MOST: Final = 1000
"""How many exceptions that led to one another are looked at."""
_MEMBERS: Final[Any] = vars(BaseExceptionGroup)["exceptions"]
_VALIDATION_ERROR: Final = "pydantic_core._pydantic_core.ValidationError"


@lru_cache(maxsize=1024)
def _name_of(cls: Hashable) -> str:
    if not isinstance(cls, type):
        return str(cls)
    module = cls.__module__
    return cls.__qualname__ if module == "builtins" else f"{module}.{cls.__qualname__}"


def class_name(cls: type) -> str:
    """Return the name of *cls* as `error.type` and `exception.type` want it.

    >>> class_name(ValueError)
    'ValueError'
    >>> import decimal; class_name(decimal.InvalidOperation)
    'decimal.InvalidOperation'
    """
    try:
        # Not every class can be hashed, nor be asked for its names: that is its
        # metaclass's to say.
        return _name_of(cast("Hashable", cls))
    except Exception:  # noqa: BLE001 - foreign code runs inside
        plain: str = vars(type)["__name__"].__get__(cls)
        return plain


def members_of(group: BaseException) -> tuple[BaseException, ...]:
    """Return the members of *group*, an exception group.

    Not what a subclass makes of them: that may be foreign code.
    """
    members: tuple[BaseException, ...] = _MEMBERS.__get__(group)
    return members


def text_of(error: BaseException) -> str:
    """Return the message of *error*; an exception whose `str` fails has none."""
    try:
        return _without_quotes(str(error), error)
    except Exception:  # noqa: BLE001 - a foreign __str__ may raise anything
        return "<no message: its __str__ failed>"


def summary_of(error: BaseException) -> str:
    """Return the class of *error* and its message, as OpenTelemetry's statuses have it.

    One without a message keeps the colon: programs read these, and the SDK writes it.

    >>> summary_of(KeyError("q"))
    "KeyError: 'q'"
    >>> summary_of(TimeoutError())
    'TimeoutError: '
    """
    return f"{type(error).__name__}: {text_of(error)}"


def stack_of(error: BaseException) -> str:
    """Return the stack of *error* and of what led to it, as Python prints it."""
    return safety.guarded("exception stack", _formatted, error) or ""


def facts_of(error: BaseException) -> dict[str, str]:
    """Return the attributes of OpenTelemetry's `exception` event for *error*."""
    return {
        semconv.EXCEPTION_TYPE: class_name(type(error)),
        semconv.EXCEPTION_MESSAGE: text_of(error),
        semconv.EXCEPTION_STACKTRACE: stack_of(error),
    }


def is_quoting(error: BaseException) -> bool:
    """Return whether *error*, or what led to it, quotes the value it is about."""
    return any(_quotes(each) for each in _family(error))


def _formatted(error: BaseException) -> str:
    lines = traceback.format_exception(
        type(error), error, error.__traceback__, limit=-_STACK_LIMIT
    )
    return _without_quotes("".join(lines), error)


def _without_quotes(text: str, error: BaseException) -> str:
    """Return *text*, which tells of *error*, without the values that it quotes."""
    for each in _family(error):
        if _quotes(each):
            lines = str(each).splitlines(keepends=True)
            # In the stack of an exception group every line stands behind a margin.
            quoting = "[ |]*".join(re.escape(line) for line in lines)
            text = _without_input(each).join(re.split(quoting, text))
    return text


def _family(error: BaseException) -> Iterator[BaseException]:
    """Yield *error* and all that its stack tells of: causes, contexts, members."""
    seen: set[int] = set()
    waiting = [error]
    while waiting and len(seen) < _MOST:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting += [x for x in (each.__cause__, each.__context__) if x is not None]
        if issubclass(type(each), BaseExceptionGroup):
            waiting += members_of(each)[:_MOST]


def _quotes(error: BaseException) -> bool:
    return class_name(type(error)) == _VALIDATION_ERROR


def _without_input(error: Any) -> str:  # noqa: ANN401 - pydantic's, which is not imported
    lines = [f"{error.error_count()} validation error(s) for {error.title}"]
    for each in error.errors(
        include_input=False, include_url=False, include_context=False
    ):
        lines.append(".".join(str(step) for step in each["loc"]))
        lines.append(f"  {each['msg']} [type={each['type']}]")
    return "\n".join(lines)
