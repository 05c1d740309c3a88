"""Responses in the background: one span from the request until the status is final.

The request is answered at once, and what it asked for goes on at the server.  The
call's span stays open, and the polls for it (`responses.retrieve`, whole or streamed,
and `responses.cancel`) tell how it goes on and make no spans of their own.  A poll is
no progress; another status is.

Nobody has to poll: another process may, or a webhook bring the answer.  So silence
counts from the first poll on, and a response that is never polled is not stuck.  It is
kept here, up to a bound; beyond that the oldest is let go, and its span ends as that of
anything dropped does.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from agenttrace import semconv
from agenttrace.boundary.streams import Visit
from agenttrace.instrumentation.openai.recording import (
    NOTHING,
    ModelRecorder,
)

if TYPE_CHECKING:
    from agenttrace.boundary.call import Call, Progress
    from agenttrace.instrumentation.openai.requests import Request
    from agenttrace.instrumentation.openai.responses import ResponsesRecorder
    from agenttrace.model import Attributes, Ending

MOST: Final = 10_000
"""Responses that are waited for at once."""
SILENCE: Final = 1800.0
"""Seconds that the status may stay the same, from the first poll on."""
_PREFIX: Final = "/responses/"
_UNFINISHED: Final = frozenset({"queued", "in_progress"})

_waiting: OrderedDict[str, Background] = OrderedDict()
