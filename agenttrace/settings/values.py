"""How the value of a setting is read, from an argument or a variable, and checked.

Each takes the name that it was found under, for the error, and what was found.  Which
settings there are is `settings`' business.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, cast

from agenttrace.errors import SettingError

STATE_DIR_VARIABLE: Final = "AGENTTRACE_STATE_DIR"
MEBIBYTE: Final = 1 << 20
SMALLEST_STORE: Final = MEBIBYTE
"""Below this, SQLite's own bookkeeping is no longer small beside the spans."""
SHORTEST_PERIOD: Final = 0.2
"""The time between two ticks (`watchdog.ticker`)."""
_LIMITS: Final = "seconds above zero (inf = no limit), or chat=60,execute_tool:search=9"
TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})
_CAPTURING: Final = frozenset({"span_only", "span_and_event"})
_NOT_CAPTURING: Final = frozenset({"no_content", "event_only"})


def read_text(setting: str, value: object) -> str:
    """Return a text that says something."""
    if isinstance(value, str) and value.strip():
        return value
    raise SettingError(setting, value, "a text that is not empty")


def read_switch(setting: str, value: object) -> bool:
    """Return true or false, in any usual word."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        word = value.strip().lower()
        if word in TRUE:
            return True
        if word in _FALSE:
            return False
    raise SettingError(setting, value, "true or false")


def read_capture(setting: str, value: object) -> bool:
    """Return a switch, also in the words of OpenTelemetry's variable."""
    word = value.strip().lower() if isinstance(value, str) else ""
    if word in _CAPTURING:
        return True
    if word in _NOT_CAPTURING:
        return False
    try:
        return read_switch(setting, value)
    except SettingError:
        allowed = "true, false, NO_CONTENT, SPAN_ONLY, EVENT_ONLY or SPAN_AND_EVENT"
        raise SettingError(setting, value, allowed) from None


def read_seconds(setting: str, value: object) -> float:
    """Return seconds, none at all included."""
    number = _number(setting, value, "a number of seconds, not negative")
    if number >= 0:
        return number
    raise SettingError(setting, value, "a number of seconds, not negative")


def read_count(setting: str, value: object) -> int:
    """Return a whole number above zero."""
    allowed = "a whole number above zero"
    number = _number(setting, value, allowed)
    if math.isinf(number) or number != int(number) or number < 1:
        raise SettingError(setting, value, allowed)
    return int(number)


def read_store_size(setting: str, value: object) -> int:
    """Return a size that a store can have."""
    size = read_count(setting, value)
    if size >= SMALLEST_STORE:
        return size
    raise SettingError(setting, value, f"{SMALLEST_STORE} (1 MiB) or more")


def read_period(setting: str, value: object) -> float:
    """Return seconds that what looks at open spans can keep, or infinity."""
    allowed = f"{SHORTEST_PERIOD} seconds or more, or inf"
    number = _number(setting, value, allowed)
    if number >= SHORTEST_PERIOD:
        return number
    raise SettingError(setting, value, allowed)


def _number(setting: str, value: object, allowed: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise SettingError(setting, value, allowed)
    try:
        number = float(value)
    except (ValueError, OverflowError):  # 10**400 is an int, but no float
        raise SettingError(setting, value, allowed) from None
    if math.isnan(number):
        raise SettingError(setting, value, allowed)
    return number


def read_attributes(setting: str, value: object) -> dict[str, object]:
    """Return attributes by name."""
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return {str(key): item for key, item in items}
    raise SettingError(setting, value, "a mapping of attribute names to values")


def read_outcomes(setting: str, value: object) -> frozenset[str]:
    """Return outcomes that may count as errors."""
    words: object = value.split(",") if isinstance(value, str) else value
    if isinstance(words, Iterable):
        texts = (str(word).strip() for word in cast("Iterable[object]", words))
        chosen = frozenset(text for text in texts if text)
        if chosen <= {"cancelled", "abandoned"}:
            return chosen
    raise SettingError(setting, value, "any of cancelled, abandoned")


def read_one_of(*words: str) -> Callable[[str, object], str]:
    """Return what reads one of *words*."""

    def read(setting: str, value: object) -> str:
        word = value.strip().lower() if isinstance(value, str) else ""
        if word in words:
            return word
        raise SettingError(setting, value, f"{', '.join(words[:-1])} or {words[-1]}")

    return read


def read_limits(setting: str, value: object) -> float | dict[str, float]:
    """Return seconds for all, or by operation, or operation and name."""
    given = value
    if isinstance(value, str) and "=" in value:
        pairs = (part.rpartition("=") for part in value.split(","))
        given = {key.strip(): seconds for key, _, seconds in pairs}
    if not isinstance(given, Mapping):
        return read_limit(setting, value)
    items = cast("Mapping[object, object]", given).items()
    return {str(key): read_limit(f"{setting}[{key!r}]", given) for key, given in items}


def read_limit(setting: str, value: object) -> float:
    """Return seconds above zero."""
    seconds = _number(setting, value, _LIMITS)
    if seconds > 0:
        return seconds
    raise SettingError(setting, value, _LIMITS)


def read_hooks(setting: str, value: object) -> tuple[Callable[..., object], ...]:
    """Return functions of a report."""
    given: object = value
    if isinstance(given, Iterable):
        hooks = tuple(cast("Iterable[Callable[..., object]]", given))
        if all(map(callable, hooks)):
            return hooks
    raise SettingError(setting, value, "functions of a report, in a list")


def read_function(setting: str, value: object) -> Callable[..., object]:
    """Return a function."""
    if callable(value):
        return value
    raise SettingError(setting, value, "a function of (key, value)")


def read_directory(setting: str, value: object) -> Path:
    """Return a directory, as an absolute path."""
    path = _path(value)
    if path and "\0" not in path:
        try:
            # Absolute, so that an application that changes its directory later does
            # not leave half of its traces behind.
            return Path(path).expanduser().absolute()
        except RuntimeError:
            pass
    raise SettingError(setting, value, "a directory")


def _path(value: object) -> str:
    if isinstance(value, os.PathLike):
        return str(os.fspath(cast("os.PathLike[str]", value)))
    return value if isinstance(value, str) else ""


def state_dir(value: str | os.PathLike[str] | None = None) -> Path:
    """Return the directory of journal, spool and store, as an absolute path.

    The first that is set counts: *value*, `AGENTTRACE_STATE_DIR`, `agenttrace` in
    `$XDG_STATE_HOME` (on Windows in `%LOCALAPPDATA%`), `~/.local/state/agenttrace`.
    It creates nothing: whoever writes there makes it, private to the user.

    Raises:
        SettingError: None is set, and the user has no home directory.
    """
    chosen = value or os.environ.get(STATE_DIR_VARIABLE)
    if chosen:
        return read_directory(STATE_DIR_VARIABLE, chosen)
    try:
        return _base() / "agenttrace"
    except RuntimeError:
        allowed = "set, because this user has no home directory"
        raise SettingError(STATE_DIR_VARIABLE, chosen, allowed) from None


def _base() -> Path:
    variable = "LOCALAPPDATA" if sys.platform == "win32" else "XDG_STATE_HOME"
    base = Path(os.environ.get(variable, ""))
    # The XDG specification: a relative path is invalid and must be ignored.
    return base if base.is_absolute() else Path.home() / ".local" / "state"
