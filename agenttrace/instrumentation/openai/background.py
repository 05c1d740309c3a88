"""Responses in the background: one span from the request until the status is final.

The request is answered at once, and what it asked for goes on at the server.  The
call's span stays open, and the polls for it (`responses.retrieve`, whole or streamed,
and `responses.cancel`) tell how it goes on and make no spans of their own.  A poll is
no progress; another status is.

Nobody has to poll: another process may, or a webhook bring the answer.  So silence
counts from the first poll on, and while a stream of it is open; a response that is
never polled is not stuck, nor is one whose stream was left.  It is kept here, up to a
bound; beyond that the oldest is let go, and its span ends as that of anything dropped
does.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, ClassVar, Final

from agenttrace import semconv
from agenttrace.boundary.streams import Visit
from agenttrace.instrumentation.openai.recording import FINAL, NOTHING, ModelRecorder
from agenttrace.instrumentation.openai.requests import Read, Request, path_of
from agenttrace.model import EndedBy
from agenttrace.registry import AtLeast

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agenttrace.boundary.call import Call
    from agenttrace.boundary.recorder import Progress
    from agenttrace.instrumentation.openai.responses import ResponsesRecorder
    from agenttrace.model import Attributes, Ending

MOST: Final = 10_000
"""Responses that are waited for at once."""
SILENCE: Final = 1800.0
"""Seconds that the status may stay the same, from the first poll on."""
_PREFIX: Final = "/responses/"
_UNFINISHED: Final = frozenset({"queued", "in_progress"})

_waiting: OrderedDict[str, Background] = OrderedDict()


def visit(client: object, options: Any, *, streamed: bool) -> Visit | None:  # noqa: ANN401 - the library's object
    """Return the visit that a request is to a response known here, None if it is none.

    Args:
        client: The openai client.
        options: Its `FinalRequestOptions`.
        streamed: Whether events are asked for.
    """
    if not _waiting:
        return None
    path = path_of(options.url)
    if not path.startswith(_PREFIX):
        return None
    identity, _, action = path.removeprefix(_PREFIX).partition("/")
    known = _waiting.get(identity)
    method = options.method.lower()
    if known is None or (method, action) not in _VISITS:
        return None
    if not action:
        known.polled()
    return known.visit(Request(client, options, streamed=streamed))


class Background:
    """One response in the background: its call, and what is heard of it.

    Args:
        call: The call that asked for it.
        recorder: The call's recorder.
        request: The request that asked for it.
    """

    def __init__(
        self, call: Call, recorder: ResponsesRecorder, request: Request
    ) -> None:
        self._call = call
        self._recorder = recorder
        self._request = request
        self._kept_as: str | None = None
        self._held = False

    def begins_with(self, value: Any) -> bool:  # noqa: ANN401 - any form of an answer
        """Take what the request was answered with; return whether the call goes on."""
        visit = self.visit(self._request)
        if visit.recorder.claims(visit, value):
            return True
        visit.recorder.result(value)
        if self._kept_as is not None:
            self._hold()
        return self._kept_as is not None or self._call.done

    def visit(self, request: Request) -> Visit:
        """Return a request that is made for this response."""
        ended = self._left if request.is_streamed else self._visited
        return Visit(self._call, _PollRecorder(request, self), ended)

    def polled(self) -> None:
        """Note that it is asked for: from the first time on, silence counts."""
        self._recorder.polls += 1
        record = self._call.record
        if record is not None:
            # Nobody has its span in his context: whoever asks for it waits for it.
            record.attend()
        if record is not None and self._held:
            self._held = False
            record.unpause()

    def heard(self, answer: Any) -> None:  # noqa: ANN401 - a Response, or plain JSON
        """Take note of a response object, which may be the last."""
        changed = self._recorder.note(answer)
        if answer.status not in _UNFINISHED:
            self._end()
            return
        self._keep()
        record = self._call.record
        if changed and record is not None:
            record.beat()
        if changed:
            self._tell_status()

    def took(self, event: Any) -> Progress:  # noqa: ANN401 - an event, or plain JSON
        """Take note of one event of a stream."""
        self._call.take(event)
        if self._kept_as is None:
            self._keep()
        return FINAL if self._call.final else NOTHING

    def let_go(self) -> None:
        """Wait for it no longer: it ends as what is dropped does, at its last word."""
        self._call.abandon(EndedBy.GC)

    def _hold(self) -> None:
        """Let silence not count: nobody listens, and perhaps nobody here will."""
        record = self._call.record
        if record is not None and not self._held:
            record.pause()
            self._held = True

    def _left(self, ending: Ending) -> None:
        """Note that a stream is over, which may go on for somebody else."""
        self._visited(ending)
        if not self._call.done:
            self._hold()

    def _visited(self, ending: Ending) -> None:
        """Note that a request is over: the response may go on."""
        if self._call.final:
            self._end()
        elif self._kept_as is None:
            # Nothing is known by which it could be asked for.
            self._call.finish(ending)

    def _end(self) -> None:
        if self._kept_as is not None:
            _waiting.pop(self._kept_as, None)
        self._call.succeed()

    def _keep(self) -> None:
        identity = self._recorder.identity
        if self._kept_as is not None or not identity:
            return
        self._kept_as = identity
        _waiting[identity] = self
        while len(_waiting) > MOST:
            _, oldest = _waiting.popitem(last=False)
            oldest.let_go()
        record = self._call.record
        if record is not None:
            patience = record.heartbeat_timeout
            declared = patience if isinstance(patience, AtLeast) else 0.0
            record.heartbeat_timeout = AtLeast(max(SILENCE, declared))
        self._tell_status()

    def _tell_status(self) -> None:
        """Put on the open span what it must not lose if its process dies."""
        span = self._call.span
        if span is not None and self._recorder.status is not None:
            span.set_attributes(
                {
                    semconv.GEN_AI_RESPONSE_ID: self._kept_as,
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
