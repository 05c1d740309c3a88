"""Beside another provider: its processors carry our spans, a gate watches all of them.

The gate stands before the provider's composite processor, the one object that all its
tracers and all its spans hold, and is put there in place: as attributes of that object,
under the names of the methods it stands for.  So it sees the spans of tracers that
exist already and serves processors that are added later; the list of processors, which
other tools look into and change, stays as it is; and it runs on the application's
thread, where the exception of the moment is to be seen, also where the composite calls
its processors on threads of its own.

There is one gate a composite, however often somebody attaches.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.sdk import trace as sdk

from agenttrace import _otel, safety
from agenttrace.model import Ending, Opening, Outcome
from agenttrace.registry import Claim, OpenSpan
from agenttrace.spans.adopted import Adoption
from agenttrace.tracing import ApiSpan, ApiTracer

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.context.context import Context

    from agenttrace.model import Attributes
    from agenttrace.registry import OpenSpans
    from agenttrace.tracing import TracedSpan

INSTRUMENTATION_NAME: Final = "agenttrace"
_GATE: Final = "_agenttrace_gate"
_START: Final = "on_start"
_END: Final = "on_end"
_WRAPPED: Final = "provider"

_lock = threading.Lock()


class Attachment:
    """agenttrace beside the provider of an application.

    Args:
        provider: The provider; one that wraps the SDK's (Logfire's) is looked through.
        registry: Where its spans are listed.
        version: Our version, for the instrumentation scope.
        as_error: Outcomes that count as errors in the OTel status.

    Attributes:
        tracer: A tracer of that provider, for the port.
    """

    def __init__(
        self,
        provider: trace.TracerProvider,
        registry: OpenSpans,
        *,
        version: str | None = None,
        as_error: frozenset[Outcome] = frozenset(),
    ) -> None:
        self.tracer = AttachedTracer(
            provider.get_tracer(INSTRUMENTATION_NAME, version), registry
        )
        self._gate = safety.guarded("attach", _gate_of, provider, registry)
        if self._gate is not None:
            self._gate.enter(self, as_error)

    def emit(self, span: sdk.ReadableSpan) -> None:
        """Send a span of our own making (a marker, an orphan) past the gate."""
        if self._gate is not None:
            self._gate.adoption.send(span)

    def detach(self) -> None:
        """Watch this provider no more.  The gate goes with the last who attached.

        Spans that are open now stay known to it, so that none of them gets a second
        final form; it is taken out when the last of them has ended.
        """
        if self._gate is not None:
            self._gate.leave(self)


class Gate:
    """Stands before a composite processor; made by `Attachment` alone."""

    def __init__(self, composite: Any, registry: OpenSpans) -> None:  # noqa: ANN401 - any object with the methods
        self._composite: Callable[[], Any] = weakref.ref(composite)
        self._before = {name: vars(composite).get(name) for name in (_START, _END)}
        self._inner: dict[str, Callable[..., None]] = {}
        self._users: set[Attachment] = set()
        self.adoption = Adoption(registry, self._forward)

    def enter(self, user: Attachment, as_error: frozenset[Outcome]) -> None:
        """Stand in the way as long as *user* wants it."""
        with _lock:
            self._users.add(user)
            self.adoption.as_error = as_error
            self.adoption.late = True
            for name in (_START, _END):
                self._put(name)

    def leave(self, user: Attachment) -> None:
        """Go, if *user* was the last one and no span is waited for."""
        with _lock:
            self._users.discard(user)
            if not self._users:
                # The processors may have been shut down: nobody is told of what
                # comes after all.
                self.adoption.late = False
                self._take(_START)
        self._go_if_done()
