"""Log records that say now and then that a span is open, for collectors of such.

A span gets its first one when it has been open as long as two are apart, and a last
one, a stop, when it has ended; one that ends before its first gets none.  They go by
OTLP to where the variables for logs say, from a thread that does nothing else: the
ticker only says that it is time.

Nothing is kept: a record that cannot be sent is followed by a newer one, and a stop is
sent again as long as there are spans.  What stands in a record is what the journal has
of a span, names and no content; its form is `delivery.partial`'s business.  Imported
where it is asked for, and nowhere else.
"""

from __future__ import annotations

import logging
import math
import os
import time
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.trace import SpanKind, StatusCode

from agenttrace import clock, safety, semconv
from agenttrace.delivery import otlp_env
from agenttrace.delivery.frames import Frame
from agenttrace.delivery.senders import Delivered, Later
from agenttrace.delivery.senders.answers import TAKES_NONE
from agenttrace.journal.texts import KEY_ATTRIBUTES
from agenttrace.lazy import no_fork_at_first
from agenttrace.model import NO_ATTRIBUTES, ResourceData, ScopeData, SpanData
from agenttrace.runtime.destinations import otlp_sender
from agenttrace.runtime.process import left_until
from agenttrace.spans.provider import resource_data
from agenttrace.watchdog.errands import Errands

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.sdk.resources import Resource

    from agenttrace.registry import OpenSpan, OpenSpans
    from agenttrace.runtime.ways import Pipeline

_THREAD: Final = "agenttrace-heartbeats"
_LOOK: Final = 1.0
"""Seconds between two looks at what is due and what has ended, at most."""
_MOST: Final = 10_000
"""Spans that are told of at the same time; what starts later is not."""
_BATCH: Final = 256
_LONGEST: Final = 256
"""Characters of a name; attributes that are longer are left out."""
_SHARE: Final = 0.25
"""What stops may take of the time that a shutdown has."""
_NOBODY: Final = ResourceData({})
_NO_SCOPE: Final = ScopeData("")


class HeartbeatLogs:
    """The heartbeats of one runtime.

    Args:
        every: Seconds between two heartbeats of a span.
        registry: The open spans.

    Raises:
        SettingError: A variable that says where logs go cannot be meant.
    """

    def __init__(self, every: float, registry: OpenSpans) -> None:
        settings = otlp_env.otlp_settings(os.environ, "logs")
        self._sender = otlp_sender(settings, "logs")
        self._timeout = settings.timeout
        self._every = every
        self._registry = registry
        self._who = _NOBODY
        self._who_from: Resource | None = None
        self._is_refused = False
        self._give_up_at = math.inf
        self._next_look = 0.0
        self._reset()

    def _reset(self) -> None:
        self._told: dict[OpenSpan, tuple[SpanData, float]] = {}
        """What was told of: the last form, and when it is due again."""
        self._not_before = 0.0
        self._errands = Errands(_THREAD)

    def tick(self, pipeline: Pipeline) -> None:
        """Have a look taken if it is time.  Called by the ticker.

        Args:
            pipeline: Knows who this process is.
        """
        now = time.monotonic()
        if now < self._next_look or self._is_refused:
            return
        self._next_look = now + min(self._every, _LOOK)
        resource = pipeline.resource
        if resource is not self._who_from:
            self._who = _NOBODY if resource is None else resource_data(resource)
            self._who_from = resource
        self._ask()

    def rest(self) -> None:
        """Have said that what was open is open no more.  Called by the ticker."""
        if self._told:
            self._ask()

    def stop(self, timeout: float) -> None:
        """Say of all that was told of that it is open no more, and say no more then.

        Whoever comes after this one begins with what is open.

        Args:
            timeout: Seconds that there are for all of a shutdown.
        """
        self._give_up_at = time.monotonic() + timeout * _SHARE
        self._errands.ask("heartbeats", self._finish)
        self._errands.finish(timeout * _SHARE)

    def after_fork(self) -> None:
        """Begin anew in a child process: what was told of is its parent's."""
        self._reset()
        self._next_look = 0.0

    def look(self, wall: int, steady: float) -> None:
        """Tell of what is due, and of what has ended.

        Args:
            wall: The time of day, nanoseconds since the epoch.
            steady: A clock that nobody sets, in seconds.
        """
        if steady < self._not_before:
            return
        ended = [span for span in self._told if not span.is_open]
        self._send_all(self._due(wall, steady), ended, wall, steady)

    def _ask(self) -> None:
        if not self._errands.is_waiting:
            self._errands.ask("heartbeats", self._look)

    def _look(self) -> None:
        self.look(time.time_ns(), time.monotonic())

    def _finish(self) -> None:
        self._send_all([], list(self._told), time.time_ns(), time.monotonic())
        self._is_refused = True
        self._sender.close()

    def _due(self, wall: int, steady: float) -> list[OpenSpan]:
        """Return the open spans that are to be told of, and have room for each."""
        due: list[OpenSpan] = []
        before = wall - int(self._every * 1e9)
        for span in self._registry.snapshot():
            told = self._told.get(span)
            if told is not None:
                if told[1] <= steady:
                    due.append(span)
            elif span.sampled and span.started_at <= before and self._has_room():
                # Before it is sent: whatever becomes of that, it may have arrived.
                self._told[span] = self._form_of(span), steady
                due.append(span)
        return due

    def _has_room(self) -> bool:
        """Return whether one more may be told of."""
        if len(self._told) < _MOST:
            return True
        safety.log_once(
            "heartbeats.room",
            logging.WARNING,
            "%s spans are open: no heartbeats are sent of any more (logged once)",
            _MOST,
        )
        return False

    def _send_all(
        self,
        due: Sequence[OpenSpan],
        ended: Sequence[OpenSpan],
        wall: int,
        steady: float,
    ) -> None:
        for start in range(0, len(ended), _BATCH):
            batch = ended[start : start + _BATCH]
            if not self._send([], [self._told[span][0] for span in batch], wall):
                self._not_before = steady + self._every
                return
            for span in batch:
                self._told.pop(span, None)
        for start in range(0, len(due), _BATCH):
            forms = {
                span: self._form_of(span)
                for span in due[start : start + _BATCH]
                if span.is_open
            }
            if not self._send(list(forms.values()), [], wall):
                self._not_before = steady + self._every
                return
            for span, form in forms.items():
                self._told[span] = form, steady + self._every

    def _send(
        self, still_open: Sequence[SpanData], ended: Sequence[SpanData], wall: int
    ) -> bool:
        """Send these; return whether that is settled."""
        timeout = min(self._timeout, left_until(self._give_up_at))
        if self._is_refused or timeout <= 0:
            return False
        with no_fork_at_first("heartbeats"):
            from agenttrace.delivery import (  # noqa: PLC0415 - protobuf, at the first one
                partial,
            )
        payload = partial.request_of(still_open, ended, every=self._every, now=wall)
        if not payload:
            return True
        answer = self._sender.send(Frame((), payload), timeout)
        if isinstance(answer, Later):
            return False
        if not isinstance(answer, Delivered):
            self._take_no(answer.reason)
        return True

    def _take_no(self, reason: str) -> None:
        if reason.startswith(TAKES_NONE):
            self._is_refused = True
            self._told.clear()
            message = "%s takes no logs (%s): no heartbeats are sent any more"
        else:
            message = "%s has refused heartbeats (%s); later ones are sent"
        safety.log_once(
            "heartbeats.refused",
            logging.WARNING,
            f"{message} (logged once)",
            self._sender,
            reason,
        )

    def _form_of(self, span: OpenSpan) -> SpanData:
        """Return *span* as it stands in a record: what the journal has of it."""
        live: Any = span()  # a span object of any make: see `journal.payload`
        values: Mapping[str, object] = getattr(live, "_values", None) or NO_ATTRIBUTES
        tracer: Any = getattr(live, "_tracer", None)
        attributes: dict[str, object] = {
            key: value
            for key in KEY_ATTRIBUTES
            if isinstance(value := values.get(key), str) and len(value) <= _LONGEST
        }
        if span.operation is not None:
            attributes[semconv.GEN_AI_OPERATION_NAME] = span.operation
        attributes[semconv.LAST_HEARTBEAT] = clock.iso(span.last_beat)
        return SpanData(
            trace_id=span.trace_id,
            span_id=span.span_id,
            parent_id=span.parent_id,
            parent_is_remote=bool(getattr(live, "remote_parent", False)),
            trace_state="",
            name=str(span.name)[:_LONGEST],
            kind=getattr(live, "_kind", None) or SpanKind.INTERNAL,
            start_time=span.started_at,
            end_time=0,
            attributes=attributes,
            events=(),
            links=(),
            status=StatusCode.UNSET,
            status_message="",
            dropped_attributes=0,
            dropped_events=0,
            dropped_links=0,
            resource=self._who,
            scope=_NO_SCOPE if tracer is None else tracer.scope_data,
        )
