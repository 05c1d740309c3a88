"""What is read of runs and questions, and of what comes back: replies, updates.

The framework puts names, parameters, usage and messages on its spans by itself.  Read
here is what says how far it has come.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from agenttrace import semconv
from agenttrace.boundary.pending import Pending
from agenttrace.boundary.recorder import Progress
from agenttrace.instrumentation.agent_framework import sessions
from agenttrace.model import NO_ATTRIBUTES, Opening

if TYPE_CHECKING:
    from collections.abc import Hashable

    from agenttrace.boundary.owned import OwnedCall
    from agenttrace.model import Attributes, Ending

_NOTHING: Final = Progress.NOTHING
_PROGRESS: Final = Progress.PROGRESS
_FINAL: Final = Progress.FINAL
_LAST: Final = frozenset({"stop", "length", "content_filter"})


def identity_of(operation: str, token: object) -> Hashable:
    """Return what an operation in the background is waited for by.

    Args:
        operation: Its `gen_ai.operation.name`.
        token: The framework's continuation token: plain data, of any provider's.
    """
    return (operation, json.dumps(token, sort_keys=True, default=repr))


class Recorder:
    """Reads one run of an agent, or one question to a model.

    Args:
        operation: Which of the two, by its `gen_ai.operation.name`.
        session: The session it is part of, if any.
        lasts: Whether it goes on in the background.
    """

    __slots__ = ("_call", "_lasts", "_operation", "_session", "_status", "_token")

    def __init__(self, operation: str, session: Any, *, lasts: bool) -> None:  # noqa: ANN401 - an AgentSession
        self._operation = operation
        self._lasts = lasts
        self._session = session
        self._call: OwnedCall | None = None
        self._status: object = None
        self._token: str | None = None

    def request(self) -> Opening:
        """Return what is known before: the rest is the framework's to say."""
        links = () if self._session is None else sessions.links_of(self._session)
        attributes = {semconv.GEN_AI_OPERATION_NAME: self._operation}
        return Opening("", self._operation, attributes=attributes, links=links)

    def started(self, call: OwnedCall) -> None:
        """Know the call, whose span has started."""
        self._call = call
        if self._session is not None:
            self._token = sessions.enter(self._session, call)

    def claims(self, call: Any, value: Any, /) -> bool:  # noqa: ANN401 - a reply, or a stream
        """Return whether *value* is a stream, or says that the work goes on."""
        if hasattr(value, "get_final_response"):
            call.follow(value)
            return True
        token = getattr(value, "continuation_token", None)
        if token is None:
            return False
        self._heard(value)
        self._goes_on(call, token)
        call.wait()
        return True

    def item(self, item: Any, /) -> Progress:  # noqa: ANN401 - an update
        """Take note of one update of a stream."""
        if self._lasts:
            # Others have a token as well, of no use when their stream is left.
            token = getattr(item, "continuation_token", None)
            if token is not None and self._call is not None:
                self._goes_on(self._call, token)
        reason: object = getattr(item, "finish_reason", None)
        if reason is not None and (
            self._operation == semconv.CHAT or str(reason) in _LAST
        ):
            return _FINAL
        return _PROGRESS if item.contents else _NOTHING

    def result(self, value: Any, /) -> Attributes:  # noqa: ANN401 - a reply
        """Take note of the end of what was asked for."""
        call = self._call
        if call is not None and call.pending is not None:
            self._heard(value)
            call.pending.over()
        return NO_ATTRIBUTES

    def facts(self) -> Attributes:
        """Return how often it was polled for, and the last it was heard of."""
        call = self._call
        if call is None or call.pending is None:
            return NO_ATTRIBUTES
        found: dict[str, object] = {semconv.POLLS: call.pending.polls}
        if self._status is not None:
            found[semconv.RESPONSE_STATUS] = self._status
        return found

    def ended(self, ending: Ending) -> None:
        """Let the session know how the run ended."""
        if self._token is not None:
            sessions.leave(self._session, self._token, ending)

    def _goes_on(self, call: OwnedCall, token: object) -> None:
        if call.pending is None:
            call.pending = Pending(call)
        identity = identity_of(self._operation, token)
        if call.pending.identity != identity:
            # After its tools it may ask again, in the background as well.
            call.pending.keep(identity)

    def _heard(self, value: Any) -> None:  # noqa: ANN401 - a reply
        """Take note of the status of a response: another one is progress."""
        raw = getattr(value, "raw_representation", None)
        status = getattr(raw, "status", None)
        if not isinstance(status, str) or status == self._status:
            return
        known, self._status = self._status, status
        call = self._call
        if call is None or call.span is None:
            return
        call.span.set_attributes({semconv.RESPONSE_STATUS: status})
        if known is not None and call.record is not None:
            call.record.beat()
