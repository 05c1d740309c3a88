"""Every setting, resolved once from arguments and environment, and checked.

An argument of `configure()` goes before its `AGENTTRACE_*` variable, which goes before
OpenTelemetry's variable of the same meaning, which goes before the default.  A value
that cannot be meant is an error here and now, naming the setting and what it may be;
nothing reads the environment later.

What OTLP needs is `delivery.otlp_env`'s, span limits and samplers are the SDK's own.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, cast

from agenttrace.errors import SettingError

STORE_FILE: Final = "traces.db"
"""The embedded store, in the state directory."""
INSTANCES: Final = "instances"
"""Journals, spools and locks of processes, a directory in the state directory."""
DUMP_SUFFIX: Final = ".dump"
"""Of the file there in which a process finds stacks of its own (`gil_dump_after`)."""
STATE_DIR_VARIABLE: Final = "AGENTTRACE_STATE_DIR"
CAPTURE_VARIABLE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
MEBIBYTE: Final = 1 << 20
SMALLEST_STORE: Final = MEBIBYTE
"""Below this, SQLite's own bookkeeping is no longer small beside the spans."""
_LIMITS: Final = "seconds above zero (inf = no limit), or chat=60,execute_tool:search=9"
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})
_CAPTURING: Final = frozenset({"span_only", "span_and_event"})
_NOT_CAPTURING: Final = frozenset({"no_content", "event_only"})


def _text(setting: str, value: object) -> str:
    if isinstance(value, str) and value.strip():
        return value
    raise SettingError(setting, value, "a text that is not empty")


def _switch(setting: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _TRUE:
            return True
        if word in _FALSE:
            return False
    raise SettingError(setting, value, "true or false")


def _capture(setting: str, value: object) -> bool:
    word = value.strip().lower() if isinstance(value, str) else ""
    if word in _CAPTURING:
        return True
    if word in _NOT_CAPTURING:
        return False
    try:
        return _switch(setting, value)
    except SettingError:
        allowed = "true, false, NO_CONTENT, SPAN_ONLY, EVENT_ONLY or SPAN_AND_EVENT"
        raise SettingError(setting, value, allowed) from None


def _seconds(setting: str, value: object) -> float:
    number = _number(setting, value, "a number of seconds, not negative")
    if number >= 0:
        return number
    raise SettingError(setting, value, "a number of seconds, not negative")


def _limit(setting: str, value: object) -> float:
    allowed = "a number of seconds above zero, or inf (off)"
    number = _number(setting, value, allowed)
    if number > 0:
        return number
    raise SettingError(setting, value, allowed)


def _count(setting: str, value: object) -> int:
    allowed = "a whole number above zero"
    number = _number(setting, value, allowed)
    if math.isinf(number) or number != int(number) or number < 1:
        raise SettingError(setting, value, allowed)
    return int(number)


def _store_size(setting: str, value: object) -> int:
    size = _count(setting, value)
    if size >= SMALLEST_STORE:
        return size
    raise SettingError(setting, value, f"{SMALLEST_STORE} (1 MiB) or more")


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


def _attributes(setting: str, value: object) -> dict[str, object]:
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return {str(key): item for key, item in items}
    raise SettingError(setting, value, "a mapping of attribute names to values")


def _outcomes(setting: str, value: object) -> frozenset[str]:
    words: object = value.split(",") if isinstance(value, str) else value
    if isinstance(words, Iterable):
        texts = (str(word).strip() for word in cast("Iterable[object]", words))
        chosen = frozenset(text for text in texts if text)
        if chosen <= {"cancelled", "abandoned"}:
            return chosen
    raise SettingError(setting, value, "any of cancelled, abandoned")


def _one_of(*words: str) -> Callable[[str, object], str]:
    def read(setting: str, value: object) -> str:
        word = value.strip().lower() if isinstance(value, str) else ""
        if word in words:
            return word
        raise SettingError(setting, value, f"{', '.join(words[:-1])} or {words[-1]}")

    return read


def _limits(setting: str, value: object) -> float | dict[str, float]:
    """Return seconds for all, or by operation, or operation and name."""
    given = value
    if isinstance(value, str) and "=" in value:
        pairs = (part.rpartition("=") for part in value.split(","))
        given = {key.strip(): seconds for key, _, seconds in pairs}
    if not isinstance(given, Mapping):
        return _limit(setting, value)
    items = cast("Mapping[object, object]", given).items()
    return {str(key): _limit(f"{setting}[{key!r}]", given) for key, given in items}


def _limit(setting: str, value: object) -> float:
    seconds = _number(setting, value, _LIMITS)
    if seconds > 0:
        return seconds
    raise SettingError(setting, value, _LIMITS)


def _hooks(setting: str, value: object) -> tuple[Callable[..., object], ...]:
    given: object = value
    if isinstance(given, Iterable):
        hooks = tuple(cast("Iterable[Callable[..., object]]", given))
        if all(map(callable, hooks)):
            return hooks
    raise SettingError(setting, value, "functions of a report, in a list")


def _callable(setting: str, value: object) -> Callable[..., object]:
    if callable(value):
        return value
    raise SettingError(setting, value, "a function of (key, value)")


def _directory(setting: str, value: object) -> Path:
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


class Setting:
    """How one setting is read.

    Attributes:
        name: Of the argument of `configure()`.
        read: Makes a value of what is given for the setting or variable of that name.
        default: The value where nothing is said, or what makes it.
        meaning: For the documentation.
        variables: OpenTelemetry's variables of the same meaning.
    """

    def __init__(
        self,
        read: Callable[[str, object], Any],
        default: object,
        meaning: str,
        *variables: str,
    ) -> None:
        self.name = ""
        self.read = read
        self.default = default
        self.meaning = meaning
        self.variables = variables

    def __set_name__(self, _owner: type, name: str) -> None:
        self.name = name

    @property
    def has_variable(self) -> bool:
        """Whether text can say it: neither functions nor any mapping can be."""
        return self.read not in {_callable, _hooks, _attributes}

    @property
    def sources(self) -> tuple[str, ...]:
        """The environment variables that say it, the first one first."""
        if not self.has_variable:
            return ()
        return (variable_of(self.name), *self.variables)


def _setting(
    read: Callable[[str, object], Any],
    default: object,
    meaning: str,
    *variables: str,
) -> Any:  # noqa: ANN401 - stands for the value
    """Describe one setting: how it is read, its default, its OTel variables."""
    return Setting(read, default, meaning, *variables)


# No dataclass: to define one of this size takes a fortieth of the whole start.
class Settings:
    """All settings, resolved.  One attribute per argument of `configure()`."""

    service_name: str | None = _setting(
        _text, None, "`service.name` of every span.", "OTEL_SERVICE_NAME"
    )
    resource_attributes: Mapping[str, object] = _setting(
        _attributes, dict, "More attributes of the resource."
    )
    heartbeat_timeout: float | Mapping[str, float] | None = _setting(
        _limits,
        None,
        "Longest healthy silence in seconds: of all, or by operation (`chat=60`), or "
        "name (`invoke_agent:triage=900`).",
    )
    max_duration: float | Mapping[str, float] | None = _setting(
        _limits, None, "Longest total time of a span in seconds, in the same way."
    )
    on_stuck: str = _setting(
        _one_of("off", "observe", "warn", "fail", "cancel"),
        "fail",
        "If either passes: nothing (`off`), count and call hooks (`observe`), log it "
        "too (`warn`), fail the span (`fail`), cancel its task too (`cancel`).",
    )
    stuck_hooks: tuple[Callable[..., object], ...] = _setting(
        _hooks, (), "Called with the report of each, on a thread of their own."
    )
    state_dir: Path = _setting(
        _directory,
        lambda: state_dir(),  # noqa: PLW0108 - defined below
        "Where agenttrace keeps its files, private to the user.",
    )
    durable: bool = _setting(
        _switch,
        True,
        "Keep open and unsent spans in files, so that they survive the process.",
    )
    on_sigterm: str = _setting(
        _one_of("default", "flush"),
        "default",
        "`default`: SIGTERM is left alone, and recovery tells what was open. `flush`: "
        "spans are delivered before it takes effect.",
    )
    safe_context: bool = _setting(
        _switch, True, "Make OpenTelemetry's context tokens safe to detach anywhere."
    )
    capture_content: bool = _setting(
        _capture,
        False,
        "Capture prompts, outputs, arguments and results.",
        CAPTURE_VARIABLE,
    )
    redact: Callable[[str, object], object] | None = _setting(
        _callable, None, "Called with key and value of all content before it is kept."
    )
    max_content_characters: int = _setting(
        _count, 64 * 1024, "Longest captured content; the rest is cut."
    )
    error_outcomes: frozenset[str] = _setting(
        _outcomes,
        frozenset,
        "Outcomes that set the OTel status ERROR though they are no errors: "
        "any of `cancelled`, `abandoned`.",
    )
    loop_blocked_after: float = _setting(
        _limit,
        0.25,
        "Seconds for which one callback may keep an event loop from turning before "
        "that is told; `inf`: never.",
    )
    gil_dump_after: float = _setting(
        _limit,
        math.inf,
        "Seconds for which C code may keep the GIL before `faulthandler` writes the "
        "stacks to a file; `inf`: never. Read of its risks first.",
    )
    max_open_spans: int = _setting(
        _count, 100_000, "Open spans that are watched; beyond it the oldest is not."
    )
    flush_timeout: float = _setting(
        _seconds, 3.0, "Longest that exit waits for delivery, in seconds."
    )
    max_queue_bytes: int = _setting(
        _count,
        64 * MEBIBYTE,
        "Encoded spans kept while no backend takes them; the oldest go first.",
    )
    max_store_bytes: int = _setting(
        _store_size,
        256 * MEBIBYTE,
        "Size of the embedded store; the oldest runs go first.",
    )
    disabled: bool = _setting(
        _switch, False, "Trace nothing and patch nothing.", "OTEL_SDK_DISABLED"
    )

    def __init__(self, values: Mapping[str, Any]) -> None:
        for each in DESCRIBED:
            default = each.default() if callable(each.default) else each.default
            setattr(self, each.name, values.get(each.name, default))


DESCRIBED: Final = tuple(
    each for each in vars(Settings).values() if isinstance(each, Setting)
)
"""Every setting, in the order of the documentation."""


def resolve(
    arguments: Mapping[str, object], environ: Mapping[str, str] = os.environ
) -> Settings:
    """Return the settings that *arguments* and *environ* make together.

    None among *arguments* means "not said".

    Raises:
        SettingError: A value cannot be meant.
    """
    values: dict[str, Any] = {}
    for each in DESCRIBED:
        read = each.read
        given = arguments.get(each.name)
        if given is not None:
            values[each.name] = read(each.name, given)
            continue
        for variable in each.sources:
            text = environ.get(variable, "").strip()
            if text and each.name not in values:
                values[each.name] = read(variable, text)
    return Settings(values)


def variable_of(setting: str) -> str:
    """Return the environment variable of *setting*.

    >>> variable_of("flush_timeout")
    'AGENTTRACE_FLUSH_TIMEOUT'
    """
    return f"AGENTTRACE_{setting.upper()}"


def is_disabled(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether *environ* alone says that nothing is to be traced.

    For what may come before `configure()`, which is who complains of a value that
    cannot be meant.
    """
    for variable in (variable_of("disabled"), "OTEL_SDK_DISABLED"):
        word = environ.get(variable, "").strip().lower()
        if word:
            return word in _TRUE
    return False


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
        return _directory(STATE_DIR_VARIABLE, chosen)
    try:
        return _base() / "agenttrace"
    except RuntimeError:
        allowed = "set, because this user has no home directory"
        raise SettingError(STATE_DIR_VARIABLE, chosen, allowed) from None


def _base() -> Path:
    variable = "LOCALAPPDATA" if os.name == "nt" else "XDG_STATE_HOME"
    base = Path(os.environ.get(variable, ""))
    # The XDG specification: a relative path is invalid and must be ignored.
    return base if base.is_absolute() else Path.home() / ".local" / "state"
