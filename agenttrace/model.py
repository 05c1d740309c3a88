"""The words of a span's life: how it opens, how it ends, what is sent of it.

Plain values and pure functions.  Nothing here starts a span, reads a clock, knows an
SDK or imports an instrumented library; everything above imports this.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from opentelemetry.trace import Link, SpanKind, StatusCode

from agenttrace.exceptions import class_name, members_of, summary_of
from agenttrace.records import NamedTuple
from agenttrace.safety import traceback_of

if TYPE_CHECKING:
    from types import TracebackType

Attributes = Mapping[str, object]
"""Attributes as an application may hand them over: values of any type."""

NO_ATTRIBUTES: Final[Attributes] = {}


class Outcome(StrEnum):
    """How a span ended.  The value of `agenttrace.outcome`."""

    OK = "ok"
    """Returned; a stream was read to its end."""
    ERROR = "error"
    """An `Exception` came out, or its owner set the status ERROR."""
    TIMED_OUT = "timed_out"
    """A time-out came out, or `max_duration` passed."""
    CANCELLED = "cancelled"
    """The task was cancelled, or the interpreter was told to stop."""
    ABANDONED = "abandoned"
    """A stream was closed or dropped before its end, or a client went away."""
    STUCK = "stuck"
    """The watchdog saw no progress."""
    LOST = "lost"
    """Its process or event loop ended while it was open."""


class EndedBy(StrEnum):
    """What ended a span.  The value of `agenttrace.ended_by`."""

    RETURN = "return"
    EXCEPTION = "exception"
    CANCEL = "cancel"
    CLOSE = "close"
    GC = "gc"
    DISCONNECT = "disconnect"
    WATCHDOG = "watchdog"
    EXIT = "exit"
    RECOVERY = "recovery"


# Classes with a constructor of their own and named tuples, here and wherever a start
# needs them: to define a dataclass takes a quarter to half a millisecond.


class Ending:
    """The one ending of a span: an argument of ending it, never a step beside it.

    Args:
        outcome: How it ended.
        ended_by: What ended it.
        error: The exception that came out, if one did.
        message: The status message, where the error does not say it.
        end_time: Nanoseconds since the epoch; None means now.
        attributes: What is known only at the end.
        events: What happened only then; of a copy that is told while the owner goes on.
    """

    __slots__ = (
        "attributes",
        "end_time",
        "ended_by",
        "error",
        "events",
        "message",
        "outcome",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - a record
        self,
        outcome: Outcome,
        ended_by: EndedBy,
        error: BaseException | None = None,
        message: str | None = None,
        end_time: int | None = None,
        attributes: Attributes = NO_ATTRIBUTES,
        events: Sequence[EventData] = (),
    ) -> None:
        self.outcome = outcome
        self.ended_by = ended_by
        self.error = error
        self.message = message
        self.end_time = end_time
        self.attributes = attributes
        self.events = events

    def __repr__(self) -> str:
        return f"<Ending {self.outcome} ({self.ended_by})>"


class Opening:
    """All that is known of a span before it starts.

    Args:
        name: The span's name, by the GenAI conventions where they have one.
        operation: `gen_ai.operation.name`, or None for a plain step.
        kind: OpenTelemetry's span kind.
        attributes: Attributes of the start; samplers see them.
        links: Spans this one follows from.
        heartbeat_timeout: Longest healthy silence in seconds; None = the default.
        max_duration: Longest total time in seconds; None = no limit.
    """

    __slots__ = (
        "attributes",
        "heartbeat_timeout",
        "kind",
        "links",
        "max_duration",
        "name",
        "operation",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - a record
        self,
        name: str,
        operation: str | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = NO_ATTRIBUTES,
        links: Sequence[Link] = (),
        heartbeat_timeout: float | None = None,
        max_duration: float | None = None,
    ) -> None:
        self.name = name
        self.operation = operation
        self.kind = kind
        self.attributes = attributes
        self.links = links
        self.heartbeat_timeout = heartbeat_timeout
        self.max_duration = max_duration


class ResourceData(NamedTuple):
    """Who sent a span: OpenTelemetry's resource, without its SDK."""

    attributes: Attributes
    schema_url: str = ""


class ScopeData(NamedTuple):
    """Which library made a span: OpenTelemetry's instrumentation scope."""

    name: str
    version: str = ""
    schema_url: str = ""
    attributes: Attributes = NO_ATTRIBUTES


NO_RESOURCE: Final = ResourceData(NO_ATTRIBUTES)
"""What stands for the sender where it is not known, or not known yet."""
NO_SCOPE: Final = ScopeData("")
"""The same for the library."""


class EventData(NamedTuple):
    """Something that happened inside a span, at *time* (nanoseconds, epoch)."""

    time: int
    name: str
    attributes: Attributes
    dropped_attributes: int = 0


class LinkData(NamedTuple):
    """A reference to another span."""

    trace_id: bytes
    span_id: bytes
    is_remote: bool
    attributes: Attributes
    dropped_attributes: int = 0


class SpanData(NamedTuple):
    """One ended span, as encoder, store and recovery read it.

    What has a default is what most spans that agenttrace tells of others do without:
    such a span says what it has.  Whose it is, resource and scope, they get from what
    sends them.

    Ids are big-endian bytes, as on the wire; `parent_id` is empty for a root.  Times
    are nanoseconds since the epoch.  `kind` and `status` are OpenTelemetry's own
    enumerations.  Attribute values are clean (see `attributes.clean`): None, str,
    bool, int, float, bytes, or tuples and dicts of those.
    """

    trace_id: bytes
    span_id: bytes
    name: str
    start_time: int
    end_time: int
    parent_id: bytes = b""
    parent_is_remote: bool = False
    trace_state: str = ""
    kind: SpanKind = SpanKind.INTERNAL
    attributes: Attributes = NO_ATTRIBUTES
    events: Sequence[EventData] = ()
    links: Sequence[LinkData] = ()
    status: StatusCode = StatusCode.UNSET
    status_message: str = ""
    dropped_attributes: int = 0
    dropped_events: int = 0
    dropped_links: int = 0
    resource: ResourceData = NO_RESOURCE
    scope: ScopeData = NO_SCOPE


RETURNED: Final = Ending(Outcome.OK, EndedBy.RETURN)
"""The ending of what came to its end by itself.  Shared: nobody changes it."""


def returned(attributes: Attributes = NO_ATTRIBUTES) -> Ending:
    """Return the ending of what came to its end by itself."""
    return Ending(Outcome.OK, EndedBy.RETURN, attributes=attributes)


# Libraries whose time-outs are not TimeoutErrors, by the name of the class, so that
# nothing has to be imported to recognise them.
_TIMEOUTS: Final = frozenset(
    {
        "TimeoutError",
        "openai.APITimeoutError",
        "httpx.TimeoutException",
        "httpx2.TimeoutException",
        "requests.exceptions.Timeout",
        "aiohttp.client_exceptions.ServerTimeoutError",
        "anthropic.APITimeoutError",
    }
)
_CANCELLATIONS: Final = (
    asyncio.CancelledError,
    concurrent.futures.CancelledError,
    KeyboardInterrupt,
)
_MOST_OF_A_GROUP: Final = 100
"""Members of a group that are looked at; one with more is an error like any other."""
_ENDS_OF_STREAMS: Final = (StopIteration, StopAsyncIteration)
TIMEOUT_ERROR_TYPE: Final = "timeout"
STUCK_ERROR_TYPE: Final = "stuck"
LOST_ERROR_TYPE: Final = "process_lost"


def _is_timeout(cls: type) -> bool:
    return any(class_name(base) in _TIMEOUTS for base in cls.__mro__)


def _is_of_timeouts(error: BaseException) -> bool:
    """Return whether it is that time ran out, or that is all a task group came to."""
    waiting = [error]
    for _ in range(_MOST_OF_A_GROUP):
        each = waiting.pop()
        if not _is_timeout(type(each)):
            if not issubclass(type(each), BaseExceptionGroup):
                return False
            waiting += members_of(each)[:_MOST_OF_A_GROUP]
        if not waiting:
            return True
    return False


def ending_of(error: BaseException) -> Ending:
    """Return what it means for a span that *error* came out of it.

    >>> ending_of(asyncio.CancelledError()).outcome
    <Outcome.CANCELLED: 'cancelled'>
    >>> ending_of(TimeoutError()).outcome
    <Outcome.TIMED_OUT: 'timed_out'>
    >>> ending_of(ExceptionGroup("of tasks", [TimeoutError()])).outcome
    <Outcome.TIMED_OUT: 'timed_out'>
    >>> ending_of(GeneratorExit()).ended_by
    <EndedBy.CLOSE: 'close'>
    """
    # By type: `isinstance` asks for `__class__` as well, which may be foreign code.
    kind: type[BaseException] = type(error)
    if issubclass(kind, _CANCELLATIONS):
        return Ending(Outcome.CANCELLED, EndedBy.CANCEL, error)
    if issubclass(kind, GeneratorExit):
        return Ending(Outcome.ABANDONED, EndedBy.CLOSE, error)
    if issubclass(kind, SystemExit):
        return Ending(Outcome.CANCELLED, EndedBy.EXIT, error)
    if _is_of_timeouts(error):
        return Ending(Outcome.TIMED_OUT, EndedBy.EXCEPTION, error)
    return Ending(Outcome.ERROR, EndedBy.EXCEPTION, error)


def says_nothing(error: BaseException, started_during: int) -> bool:
    """Return whether *error*, in flight at an end without a word, is none of the span.

    It was in flight at the start already, or it is how a stream says that it is over:
    who wraps one ends its span while that is handled.

    Args:
        error: The exception that is being handled at the end.
        started_during: The `identity_of` the one at the start, or 0.
    """
    return issubclass(type(error), _ENDS_OF_STREAMS) or is_same(error, started_during)


def identity_of(error: BaseException) -> int:
    """Return a number by which `is_same` knows *error* again; never 0.

    The exception is not kept: it holds frames, and with them what the application has
    let go of.  Its address alone will not do: when it is freed, the next exception is
    likely to get the same one.  So where it was last caught goes into it as well.
    """
    trace = traceback_of(error)
    return _mark(error, trace) if trace is not None else id(error)


def is_same(error: BaseException, identity: int) -> bool:
    """Return whether *error* is the exception with that `identity_of`.

    It may have come further since, so every frame that it came through is looked at.
    """
    if identity == 0:
        return False
    trace = traceback_of(error)
    while trace is not None:
        if _mark(error, trace) == identity:
            return True
        trace = trace.tb_next
    return id(error) == identity


def _mark(error: BaseException, trace: TracebackType) -> int:
    return hash((id(error), id(trace.tb_frame.f_code), trace.tb_lasti)) or 1


def status_of(
    ending: Ending, *, as_error: frozenset[Outcome] = frozenset()
) -> tuple[StatusCode, str]:
    """Return the OTel status and its message that follow from *ending*.

    `cancelled` and `abandoned` leave the status unset, as OpenTelemetry decided for
    cancellations, unless they stand in *as_error*.
    """
    outcome = ending.outcome
    if outcome is Outcome.OK:
        return StatusCode.UNSET, ""
    if outcome in (Outcome.CANCELLED, Outcome.ABANDONED) and outcome not in as_error:
        return StatusCode.UNSET, ""
    if ending.message is not None:
        return StatusCode.ERROR, ending.message
    error = ending.error
    if error is None:
        return StatusCode.ERROR, outcome.value
    return StatusCode.ERROR, summary_of(error)


def error_type_of(ending: Ending) -> str | None:
    """Return `error.type` for *ending*: of low cardinality, None where none belongs."""
    match ending.outcome:
        case Outcome.ERROR:
            return class_name(type(ending.error)) if ending.error else "_OTHER"
        case Outcome.TIMED_OUT:
            return TIMEOUT_ERROR_TYPE
        case Outcome.STUCK:
            return STUCK_ERROR_TYPE
        case Outcome.LOST:
            return LOST_ERROR_TYPE
        case _:
            return None
