"""One model call, one span: where a framework's span and a client's meet.

A framework starts a span for its question to a model, and the client that it asks with
is traced as well.  The framework offers its span to whatever is asked beneath it, and
the first call that takes it goes on in it: what the client knows of the call (server,
parameters, chunks, usage) is written there, and how the call ended is kept until the
framework ends its span.  Nobody has to know who else is instrumented.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from opentelemetry import context as otel

from agenttrace import _otel, semconv
from agenttrace.boundary.call import Call
from agenttrace.model import Outcome

if TYPE_CHECKING:
    from opentelemetry import trace
    from opentelemetry.context.context import Context

    from agenttrace.boundary.recorder import Recorder
    from agenttrace.model import Ending, Opening
    from agenttrace.registry import OpenSpan
    from agenttrace.tracing import TracedSpan

OFFER_KEY: Final = otel.create_key("agenttrace-model-call")


class SharedSpan:
    """A span of one owner that another call may take for its own (`TracedSpan`).

    Args:
        span: The owner's.

    Attributes:
        current: The span that is current in the owner: the owner's, or what another
            tool has put in its place.
        is_taken: Whether a call goes on in it, or has.
        ending: How that call ended; None while it has not, and where it failed and
            another one was made.
        lasts: Whether its owner keeps it open for a call that goes on after its
            request.
    """

    lasts: ClassVar = False

    __slots__ = ("_span", "current", "ending", "is_taken")

    def __init__(self, span: TracedSpan) -> None:
        self._span = span
        self.current: object = span.api
        self.is_taken = False
        self.ending: Ending | None = None

    @property
    def api(self) -> trace.Span:
        """The span as OpenTelemetry's API knows it."""
        return self._span.api

    @property
    def record(self) -> OpenSpan | None:
        """The registry's record of it."""
        return self._span.record

    def set_attributes(self, attributes: Any, /) -> None:  # noqa: ANN401 - see `TracedSpan`
        """Add attributes."""
        self._span.set_attributes(attributes)

    def finish(self, ending: Ending) -> None:
        """Keep *ending* for the owner, who ends it."""
        self.ending = ending

    def another(self) -> None:
        """Hear that a further call is made: one that failed is tried again.

        How the owner's question was answered is the owner's word then.
        """
        if self.ending is not None and self.ending.outcome is not Outcome.OK:
            self.ending = None

    def take(self, opening: Opening) -> None:
        """Let what *opening* says hold for the span from now on."""
        self.is_taken = True
        span = self._span
        span.api.update_name(opening.name)
        span.set_attributes(opening.attributes)
        record = span.record
        if record is not None:
            record.name = opening.name
            record.heartbeat_timeout = opening.heartbeat_timeout


class SharedCall(Call):
    """A call whose span has been started already.

    Args:
        recorder: Reads the operation.
        parent: The context the operation was called in.
        offered: The span.
    """

    __slots__ = ("_offered",)

    def __init__(
        self, recorder: Recorder, parent: Context, offered: SharedSpan
    ) -> None:
        super().__init__(recorder, parent)
        self._offered = offered

    def begin(self) -> bool:
        """Take the span; start another where it was taken meanwhile."""
        if self._offered.is_taken:
            self._offered.another()
            return super().begin()
        self._offered.take(self.recorder.request())
        self.span = self._offered
        self.record = self._offered.record
        return True


def call_in(
    context: Context, recorder: Recorder, operation: str, *, lasting: bool = False
) -> Call:
    """Return the call of *recorder*, in the span that is offered in *context* if any.

    Args:
        context: The context the operation was called in.
        recorder: Reads the operation.
        operation: Its `gen_ai.operation.name`: only model calls share.
        lasting: Whether the operation may go on after the call.
    """
    offered = cast("SharedSpan | None", context.get(OFFER_KEY))
    if (
        offered is None
        or operation != semconv.CHAT
        or (lasting and not offered.lasts)
        # Something else has begun below it.
        or context.get(_otel.span_key()) is not offered.current
    ):
        return Call(recorder, context)
    if offered.is_taken:
        offered.another()
        return Call(recorder, context)
    return SharedCall(recorder, context, offered)
