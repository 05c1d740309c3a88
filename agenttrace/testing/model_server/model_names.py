"""A script whose switchboard is the name of the model.

Handy in tests: the request itself says how it is to be answered, so one server serves
many tests.  Options stand beside each other, separated by semicolons:

| option | meaning |
|---|---|
| `ok` | an ordinary answer; so is any single word that is no option |
| `text=WORDS` | what to say |
| `json=JSON` | say this JSON |
| `tool=NAME`, `toolargs=JSON`, `tools=N` | ask for a tool, *N* times at once, until the conversation holds its result |
| `err=STATUS` | an HTTP error |
| `usage=IN/OUT`, `finish=REASON`, `comments=SECONDS`, `bg=SECONDS` | `usage`, `finish_reason`, `keep_alive_comments`, `background` |
| `delay`, `gap`, `chunks`, `stall`, `cut`, `fail`, `garbage`, `drip`, `polls`, `never` | as in `Reply` |

For example `text=hello there;gap=0.01;chunks=5` or `tool=search;toolargs={"q":"tea"}`.
"""  # noqa: E501 - a table row cannot be broken

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from agenttrace.errors import SettingError
from agenttrace.testing.model_server.replies import (
    Options,
    Reply,
    error,
    text,
    tool_call,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from agenttrace.testing.model_server.requests import Request

_DEFAULT_WORDS: Final = 4


def by_model_name(request: Request) -> Reply | None:
    """Answer as the name of the model says; a name that cannot be read is a 400."""
    if not request.wants_answer:
        return None
    try:
        return _reply(request.model, called=bool(request.tool_results))
    except ValueError as problem:
        return error(400, f"model {request.model!r}: {problem}", code="bad_model_name")


def _reply(model: str, *, called: bool) -> Reply:
    """Return the reply that *model* describes.

    Args:
        model: The name.
        called: Whether the tool that it may ask for has answered.

    Raises:
        ValueError: An option is unknown, or its value cannot be read.

    >>> _reply("text=hello;gap=0.5", called=False).gap
    0.5
    """
    settings = [part for part in model.split(";") if part]
    if len(settings) == 1 and "=" not in model and settings[0] not in _FLAGS:
        settings = []
    given: dict[str, str] = {}
    options: dict[str, object] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if name in _READERS and (equals or name in _FLAGS):
            option, read = _READERS[name]
            try:
                options[option] = read(value)
            except ValueError:
                raise SettingError(name, value, "readable as its kind") from None
        elif name in _CONTENT and equals:
            given[name] = value
        elif name != "ok":
            raise SettingError(
                setting="option", value=setting, allowed="one of the known options"
            )
    return _content(given, options, called=called).with_options(
        # The readers below are what makes the values fit.
        **cast("Options", options)
    )


def _content(
    given: dict[str, str], options: dict[str, object], *, called: bool
) -> Reply:
    if "err" in given:
        return error(int(given["err"]))
    if "tool" in given and not called:
        call = tool_call(given["tool"], given.get("toolargs", "{}"))
        return Reply(parts=call.parts * int(given.get("tools", "1")))
    if "json" in given:
        return text(given["json"])
    words = cast("int", options.get("chunks", _DEFAULT_WORDS))
    return text(given.get("text", " ".join(f"word{i}" for i in range(words))))


def _usage(value: str) -> tuple[int, int]:
    given, taken = value.split("/")
    return int(given), int(taken)


def _yes(value: str) -> bool:
    if value not in ("", "1"):
        raise ValueError(value)
    return True


def _message(value: str) -> str:
    return value or "the model failed"


_CONTENT: Final = frozenset({"text", "json", "tool", "toolargs", "tools", "err"})
_READERS: Final[dict[str, tuple[str, Callable[[str], object]]]] = {
    "delay": ("delay", float),
    "gap": ("gap", float),
    "chunks": ("chunks", int),
    "stall": ("stall", str),
    "cut": ("cut", str),
    "fail": ("fail", _message),
    "garbage": ("garbage", _yes),
    "drip": ("drip", float),
    "comments": ("keep_alive_comments", float),
    "bg": ("background", float),
    "polls": ("polls", int),
    "never": ("never", _yes),
    "usage": ("usage", _usage),
    "finish": ("finish_reason", str),
}
_FLAGS: Final = frozenset({"ok", "garbage", "never", "fail"})
