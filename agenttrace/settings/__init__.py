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
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from agenttrace.settings import values
from agenttrace.settings.values import (
    MEBIBYTE,
    SMALLEST_STORE,
    STATE_DIR_VARIABLE,
    state_dir,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STORE_FILE: Final = "traces.db"
"""The embedded store, in the state directory."""
INSTANCES: Final = "instances"
"""Journals, spools and locks of processes, a directory in the state directory."""
DUMP_SUFFIX: Final = ".dump"
"""Of the file there in which a process finds stacks of its own (`gil_dump_after`)."""
NOTICED_SUFFIX: Final = ".noticed"
"""Of the file there in which it says what it has noticed of the application."""
CAPTURE_VARIABLE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
PROGRAM_VARIABLE: Final = "AGENTTRACE_PROGRAM"
"""What `agenttrace run` was asked to run; for its processes that have no name."""

__all__ = [
    "CAPTURE_VARIABLE",
    "DESCRIBED",
    "DUMP_SUFFIX",
    "INSTANCES",
    "MEBIBYTE",
    "NOTICED_SUFFIX",
    "PROGRAM_VARIABLE",
    "SMALLEST_STORE",
    "STATE_DIR_VARIABLE",
    "STORE_FILE",
    "Setting",
    "Settings",
    "in_use",
    "is_disabled",
    "resolve",
    "state_dir",
    "use",
    "variable_of",
]

_WITHOUT_VARIABLE: Final = (
    values.read_function,
    values.read_hooks,
    values.read_attributes,
)


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
        return self.read not in _WITHOUT_VARIABLE

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


Limit = float | Mapping[str, float] | None
"""Seconds for all, or by operation (`chat`) or operation and name (`chat:gpt-4o`)."""


# No dataclass: to define one of this size takes a fortieth of the whole start.
class Settings:
    """All settings, resolved.  One attribute per argument of `configure()`."""

    service_name: str | None = _setting(
        values.read_text, None, "`service.name` of every span.", "OTEL_SERVICE_NAME"
    )
    resource_attributes: Mapping[str, object] = _setting(
        values.read_attributes, dict, "More attributes of the resource."
    )
    heartbeat_timeout: Limit = _setting(
        values.read_limits,
        None,
        "Longest healthy silence in seconds: of all, or by operation (`chat=60`), or "
        "name (`invoke_agent:triage=900`).",
    )
    max_duration: Limit = _setting(
        values.read_limits,
        None,
        "Longest total time of a span in seconds, in the same way.",
    )
    on_stuck: str = _setting(
        values.read_one_of("off", "observe", "warn", "fail", "cancel"),
        "fail",
        "If either passes: nothing (`off`), count and call hooks (`observe`), log it "
        "too (`warn`), fail the span (`fail`), cancel its task too (`cancel`).",
    )
    stuck_hooks: tuple[Callable[..., object], ...] = _setting(
        values.read_hooks,
        (),
        "Called with the report of each, on a thread of their own.",
    )
    visible_after: float = _setting(
        values.read_limit,
        10.0,
        "Seconds for which a span has to be open before a marker, a span of its own, "
        "makes it visible in the backend; `inf`: never.",
    )
    heartbeat_logs_every: float = _setting(
        values.read_period,
        math.inf,
        "Seconds between two log records, sent by OTLP, that say that a span is open, "
        "0.2 at least; `inf`: none.",
    )
    state_dir: Path = _setting(
        values.read_directory,
        lambda: state_dir(),  # noqa: PLW0108 - defined below
        "Where agenttrace keeps its files, private to the user.",
    )
    durable: bool = _setting(
        values.read_switch,
        True,
        "Keep open and unsent spans in files, so that they survive the process.",
    )
    on_abandon: str = _setting(
        values.read_one_of("observe", "cancel"),
        "observe",
        "If nobody listens to a streamed agent run any more: say so on its span "
        "(`observe`), and cancel it, with its request to the model (`cancel`).",
    )
    on_sigterm: str = _setting(
        values.read_one_of("default", "flush"),
        "default",
        "`default`: SIGTERM is left alone, and recovery tells what was open. `flush`: "
        "spans are delivered before it takes effect.",
    )
    continue_trace: bool = _setting(
        values.read_switch,
        False,
        "Continue the trace that `TRACEPARENT` in the environment is of: for a process "
        "that is a step of what its parent does.",
    )
    safe_context: bool = _setting(
        values.read_switch,
        True,
        "Make OpenTelemetry's context tokens safe to detach anywhere.",
    )
    capture_content: bool = _setting(
        values.read_capture,
        False,
        "Capture prompts, outputs, arguments and results.",
        CAPTURE_VARIABLE,
    )
    redact: Callable[[str, object], object] | None = _setting(
        values.read_function,
        None,
        "Called with key and value of all content before it is kept.",
    )
    max_content_characters: int = _setting(
        values.read_count, 64 * 1024, "Longest captured content; the rest is cut."
    )
    vendor_export: bool = _setting(
        values.read_switch,
        True,
        "Let an instrumented SDK send its own traces to its vendor, as the Agents SDK "
        "does by default.",
    )
    error_outcomes: frozenset[str] = _setting(
        values.read_outcomes,
        frozenset,
        "Outcomes that set the OTel status ERROR though they are no errors: "
        "any of `cancelled`, `abandoned`.",
    )
    loop_blocked_after: float = _setting(
        values.read_limit,
        0.25,
        "Seconds for which one callback may keep an event loop from turning before "
        "that is told; `inf`: never.",
    )
    gil_dump_after: float = _setting(
        values.read_limit,
        math.inf,
        "Seconds for which C code may keep the GIL before `faulthandler` writes the "
        "stacks to a file; `inf`: never. Read of its risks first.",
    )
    max_open_spans: int = _setting(
        values.read_count,
        100_000,
        "Open spans that are watched; beyond it the oldest is not.",
    )
    flush_timeout: float = _setting(
        values.read_seconds, 3.0, "Longest that exit waits for delivery, in seconds."
    )
    max_queue_bytes: int = _setting(
        values.read_count,
        64 * MEBIBYTE,
        "Encoded spans kept while no backend takes them; the oldest go first.",
    )
    max_store_bytes: int = _setting(
        values.read_store_size,
        256 * MEBIBYTE,
        "Size of the embedded store; the oldest runs go first.",
    )
    disabled: bool = _setting(
        values.read_switch,
        False,
        "Trace nothing and patch nothing.",
        "OTEL_SDK_DISABLED",
    )

    def __init__(self, values: Mapping[str, Any]) -> None:
        for each in DESCRIBED:
            default = each.default() if callable(each.default) else each.default
            setattr(self, each.name, values.get(each.name, default))

    @property
    def watches(self) -> bool:
        """Whether open spans are looked at: there are rules, or markers."""
        return self.on_stuck != "off" or self.visible_after < math.inf

    @property
    def limits(self) -> tuple[Limit, Limit]:
        """How long spans may be silent, and take, that say nothing of it themselves."""
        return self.heartbeat_timeout, self.max_duration


DESCRIBED: Final = tuple(
    each for each in vars(Settings).values() if isinstance(each, Setting)
)
"""Every setting, in the order of the documentation."""


_in_use: Settings | None = None


def use(settings: Settings | None) -> Settings | None:
    """Let what no runtime constructs go by *settings*; return those before it.

    Args:
        settings: The settings; None: the defaults.
    """
    global _in_use
    previous, _in_use = _in_use, settings
    return previous


def in_use() -> Settings:
    """Return the settings of the runtime that is configured, else the defaults."""
    return Settings({}) if _in_use is None else _in_use


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
            return word in values.TRUE
    return False
