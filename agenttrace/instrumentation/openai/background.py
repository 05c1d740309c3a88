"""Responses in the background: one span from the request until the status is final.

The request is answered at once, and what it asked for goes on at the server.  The
call's span stays open, and the polls for it (`responses.retrieve`, whole or streamed,
and `responses.cancel`) tell how it goes on and make no spans of their own.  A poll is
no progress; another status is.  How it is waited for is `boundary.pending`'s business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from agenttrace import semconv
from agenttrace.boundary.pending import Pending, pending
from agenttrace.boundary.streams import Visit
from agenttrace.instrumentation.openai.recording import FINAL, NOTHING, ModelRecorder
from agenttrace.instrumentation.openai.requests import Read, Request, path_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agenttrace.boundary.call import Call
    from agenttrace.boundary.recorder import Progress
    from agenttrace.instrumentation.openai.responses import ResponsesRecorder
    from agenttrace.model import Attributes, Ending

_PREFIX: Final = "/responses/"
_UNFINISHED: Final = frozenset({"queued", "in_progress"})


def visit(client: object, options: Any, *, streamed: bool) -> Visit | None:  # noqa: ANN401 - the library's object
    """Return the visit that a request is to a response known here, None if it is none.

    Args:
        client: The openai client.
        options: Its `FinalRequestOptions`.
        streamed: Whether events are asked for.
    """
    path = path_of(options.url)
    if not path.startswith(_PREFIX):
        return None
    identity, _, action = path.removeprefix(_PREFIX).partition("/")
    known = pending(identity)
    method = options.method.lower()
    if not isinstance(known, Background) or (method, action) not in _VISITS:
        return None
    if not action:
        known.polled()
    return known.visit(Request(client, options, streamed=streamed))


class Background(Pending):
    """One response in the background: its call, and what is heard of it.

    Args:
        call: The call that asked for it.
        recorder: The call's recorder.
        request: The request that asked for it.
    """

    def __init__(
        self, call: Call, recorder: ResponsesRecorder, request: Request
    ) -> None:
        super().__init__(call)
        self._recorder = recorder
        self._request = request

    def begins_with(self, value: Any) -> bool:  # noqa: ANN401 - any form of an answer
        """Take what the request was answered with; return whether the call goes on."""
        visit = self.visit(self._request)
        if visit.recorder.claims(visit, value):
            return True
        visit.recorder.result(value)
        if self.identity is not None:
            self.hold()
        return self.identity is not None or self.call.done

    def visit(self, request: Request) -> Visit:
        """Return a request that is made for this response."""
        ended = self._left if request.is_streamed else self._visited
        return Visit(self.call, _PollRecorder(request, self), ended)

    def polled(self) -> None:
        """Note that it is asked for."""
        super().polled()
        self._recorder.polls = self.polls

    def heard(self, answer: Any) -> None:  # noqa: ANN401 - a Response, or plain JSON
        """Take note of a response object, which may be the last."""
        changed = self._recorder.note(answer)
        if answer.status not in _UNFINISHED:
            self._end()
            return
        self._keep()
        record = self.call.record
        if changed and record is not None:
            record.beat()
        if changed:
            self._tell_status()

    def took(self, event: Any) -> Progress:  # noqa: ANN401 - an event, or plain JSON
        """Take note of one event of a stream."""
        self.call.take(event)
        if self.identity is None:
            self._keep()
        return FINAL if self.call.final else NOTHING

    def _left(self, ending: Ending) -> None:
        """Note that a stream is over, which may go on for somebody else."""
        self._visited(ending)
        if not self.call.done:
            self.hold()

    def _visited(self, ending: Ending) -> None:
        """Note that a request is over: the response may go on."""
        if self.call.final:
            self._end()
        elif self.identity is None:
            # Nothing is known by which it could be asked for.
            self.call.finish(ending)

    def _end(self) -> None:
        self.over()
        self.call.succeed()

    def _keep(self) -> None:
        identity = self._recorder.identity
        if self.identity is None and identity:
            self.keep(identity)
            self._tell_status()

    def _tell_status(self) -> None:
        """Put on the open span what it must not lose if its process dies."""
        span = self.call.span
        if span is not None and self._recorder.status is not None:
            span.set_attributes(
                {
                    semconv.GEN_AI_RESPONSE_ID: self.identity,
                    semconv.RESPONSE_STATUS: self._recorder.status,
                }
            )


class _PollRecorder(ModelRecorder):
    """Reads one request for a response, on behalf of the call that asked for it.

    Args:
        request: The request.
        response: The response.
    """

    operation: ClassVar = semconv.CHAT
    readers: ClassVar[Mapping[str, tuple[str, Read]]] = {}

    __slots__ = ("_response",)

    def __init__(self, request: Request, response: Background) -> None:
        super().__init__(request)
        self._response = response

    def messages(self) -> Attributes:
        """Return nothing: the request has no span to put it on."""
        return {}

    def answer(self, answer: Any) -> dict[str, object]:  # noqa: ANN401 - a Response, or plain JSON
        """Pass the answer on."""
        self._response.heard(answer)
        return {}

    def item(self, item: Any, /) -> Progress:  # noqa: ANN401 - an event, or plain JSON
        """Pass the event on."""
        return self._response.took(item)

    def gathered(self) -> dict[str, object]:
        """Return nothing: it was passed on."""
        return {}


_VISITS: Final = frozenset({("get", ""), ("post", "cancel")})
