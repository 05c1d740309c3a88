"""Log records that say now and then that a span is open, for collectors of such.

A span gets its first one when it has been open as long as two are apart, and a last
one, a stop, when it has ended; one that ends before its first gets none.  They go by
OTLP to where the variables for logs say, from a thread that does nothing else: the
ticker only says that it is time.

Nothing is kept: a record that cannot be sent is followed by a newer one, and a stop is
sent again, also where it was refused, as long as there are spans.  What stands in a
record is what the journal has of a span, names and no content; its form is
`delivery.partial`'s business.  Imported where it is asked for, and nowhere else.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from typing import TYPE_CHECKING, Final

from agenttrace import clock, safety, semconv
from agenttrace.delivery import otlp_env
from agenttrace.delivery.frames import Frame
from agenttrace.delivery.senders import Delivered, Later, Refused
from agenttrace.delivery.senders.answers import Place
from agenttrace.journal.slot import as_kept, as_span
from agenttrace.lazy import no_fork_at_first
from agenttrace.model import NO_RESOURCE
from agenttrace.runtime.destinations import otlp_sender
from agenttrace.runtime.process import left_until
from agenttrace.spans.provider import resource_data
from agenttrace.watchdog.errands import Errands

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opentelemetry.sdk.resources import Resource

    from agenttrace.delivery.senders import Answer
    from agenttrace.model import SpanData
    from agenttrace.registry import OpenSpan, OpenSpans
    from agenttrace.runtime.ways import Pipeline

_THREAD: Final = "agenttrace-heartbeats"
_LOOK: Final = 1.0
"""Seconds between two looks at what is due and what has ended, at most."""
_MOST: Final = 10_000
"""Spans that are told of at the same time; what starts later is not."""
_BATCH: Final = 256
_SHARE: Final = 0.25
"""What stops may take of the time that a shutdown has."""
_UNSENT: Final = Later("it was not sent")


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
        self._who = NO_RESOURCE
        self._who_from: Resource | None = None
        self._place = Place()
        self._is_stopped = False
        self._give_up_at = math.inf
        self._stopper: int | None = None
        """The thread that waits for the last stops."""
        self._next_look = 0.0
        self._reset()

    def _reset(self) -> None:
        self._told: dict[OpenSpan, tuple[SpanData, float]] = {}
        """What was told of: the last form, and when it is due again."""
        self._not_before = 0.0
        self._is_answered = False
        """Whether the last request was; most servers keep its connection open."""
        self._errands = Errands(_THREAD)

    def tick(self, pipeline: Pipeline) -> None:
        """Have a look taken if it is time.  Called by the ticker.

        Args:
            pipeline: Knows who this process is.
        """
        now = time.monotonic()
        if now < self._next_look or self._is_over:
            return
        self._next_look = now + min(self._every, _LOOK)
        resource = pipeline.resource
        if resource is not self._who_from:
            self._who = NO_RESOURCE if resource is None else resource_data(resource)
            self._who_from = resource
        self._ask()

    def rest(self) -> None:
        """Have said that what was open is open no more.  Called by the ticker."""
        if self._told and not self._is_over:
            self._ask()

    def stop(self, timeout: float) -> None:
        """Say of all that was told of that it is open no more, and say no more then.

        Whoever comes after this one begins with what is open.

        Args:
            timeout: Seconds that there are for all of a shutdown.
        """
        self._give_up_at = time.monotonic() + timeout * _SHARE
        self._stopper = threading.get_ident()
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
        if steady < self._not_before or self._is_over:
            return
        ended = [span for span in self._told if not span.is_open]
        if self._tell_ended(ended, wall, steady):
            self._tell_open(self._due(wall, steady), wall, steady)

    @property
    def _is_over(self) -> bool:
        return self._is_stopped or self._place.is_none

    def _ask(self) -> None:
        self._errands.ask_once("heartbeats", self._look)

    def _look(self) -> None:
        self.look(time.time_ns(), time.monotonic())

    def _finish(self) -> None:
        try:
            self._tell_ended(list(self._told), time.time_ns(), time.monotonic())
        finally:
            self._is_stopped = True
            self._sender.close()

    def _due(self, wall: int, steady: float) -> list[OpenSpan]:
        """Return the open spans that are to be told of, and have room for each."""
        due: list[OpenSpan] = []
        # Both ways: the clock may have been set back since its start.
        every = int(self._every * 1e9)
        unsaid = (span for span in tuple(self._told) if not span.is_open)
        for span in self._registry.snapshot():
            told = self._told.get(span)
            if told is not None:
                if told[1] <= steady:
                    due.append(span)
            elif (
                span.sampled
                and abs(wall - span.started_at) >= every
                and self._has_room(unsaid)
            ):
                form = self._form_of(span)
                if form is not None:
                    # Before it is sent: whatever becomes of that, it may have arrived.
                    self._told[span] = form, steady
                    due.append(span)
        return due

    def _has_room(self, unsaid: Iterator[OpenSpan]) -> bool:
        """Return whether one more may be told of; it may take the place of a stop."""
        if len(self._told) < _MOST:
            return True
        oldest = next(unsaid, None)
        if oldest is not None:
            del self._told[oldest]
            return True
        safety.log_once(
            "heartbeats.room",
            logging.WARNING,
            "%s spans are open: no heartbeats are sent of any more (logged once)",
            _MOST,
        )
        return False

    def _tell_ended(self, ended: Sequence[OpenSpan], wall: int, steady: float) -> bool:
        """Say that these are open no more; return whether to go on with others."""
        for start in range(0, len(ended), _BATCH):
            batch = ended[start : start + _BATCH]
            answer = self._send([], [self._told[span][0] for span in batch], wall)
            if isinstance(answer, Delivered):
                for span in batch:
                    del self._told[span]
                continue
            self._not_before = steady + self._every
            if self._is_over or isinstance(answer, Later):
                return False
            for span in batch:  # the next time it is the others' turn
                self._told[span] = self._told.pop(span)
            break
        return True

    def _tell_open(self, due: Sequence[OpenSpan], wall: int, steady: float) -> None:
        for start in range(0, len(due), _BATCH):
            forms = {
                span: form
                for span in due[start : start + _BATCH]
                if span.is_open and (form := self._form_of(span)) is not None
            }
            answer = self._send(list(forms.values()), [], wall)
            if self._is_over or isinstance(answer, Later):
                self._not_before = steady + self._every
                return
            for span, form in forms.items():
                self._told[span] = form, steady + self._every

    def _send(
        self, still_open: Sequence[SpanData], ended: Sequence[SpanData], wall: int
    ) -> Answer:
        """Send these; return what came of it."""
        timeout = min(self._timeout, left_until(self._give_up_at))
        if self._is_over or timeout <= 0 or self._might_hang():
            return _UNSENT
        with no_fork_at_first("heartbeats"):
            from agenttrace.delivery import (  # noqa: PLC0415 - protobuf, at the first one
                partial,
            )
        payload = partial.request_of(still_open, ended, every=self._every, now=wall)
        if not payload:
            return Delivered()
        answer = self._sender.send(Frame((), payload), timeout)
        self._is_answered = not isinstance(answer, Later)
        self._place.hear(answer)
        if isinstance(answer, Refused):
            self._take_no(answer.reason)
        return answer

    def _might_hang(self) -> bool:
        """Return whether to send now may be to look up a name for whoever stops.

        That has no limit.  From Python 3.12 on no thread starts at exit: the
        application's own sends what is left.
        """
        return not self._is_answered and threading.get_ident() == self._stopper

    def _take_no(self, reason: str) -> None:
        if self._place.is_none:
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

    def _form_of(self, span: OpenSpan) -> SpanData | None:
        """Return *span* as it stands in a record; None where the journal has none."""
        slot = as_kept(span)
        if slot is None:
            return None
        beat = {semconv.LAST_HEARTBEAT: clock.iso(span.last_beat)}
        form = as_span(slot, resource=self._who, end_time=0, attributes=beat)
        return form._replace(end_time=0)
