"""The exceptions and warnings that agenttrace shows to its users.

Every message names the setting or argument, the value it had, and what would have
been right.  Nothing here is ever raised out of a running trace: these appear when
something is configured, imported or asked for, never because a span ended badly.
"""


class AgenttraceError(Exception):
    """Base of every exception that agenttrace raises on purpose."""


class SettingError(AgenttraceError, ValueError):
    """A setting has a value that cannot be meant.

    Args:
        setting: The argument of `configure` or the environment variable.
        value: What it was set to.
        allowed: What it may be, as a phrase that completes "must be ...".
    """

    def __init__(self, setting: str, value: object, allowed: str) -> None:
        super().__init__(f"{setting}={value!r}: must be {allowed}")
        self.setting = setting


class MissingExtraError(AgenttraceError, ImportError):
    """Something needs a library that comes with an extra which is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs libraries that are not installed: "
            f'pip install "agenttrace-otel[{extra}]"'
        )
        self.extra = extra


class UnknownInstrumentationError(AgenttraceError, ValueError):
    """`instrument()` was asked for a distribution that it has no support for."""


class StuckSpanWarning(UserWarning):
    """The watchdog found a span that makes no progress (`on_stuck="warn"`)."""


class LeakedSpanWarning(UserWarning):
    """A test left spans open (`agenttrace_leaks = warn`)."""
