"""Beside another provider: its processors carry our spans, a gate watches all of them.

The gate stands before the provider's composite processor, the one object that all its
tracers and spans hold, and is put there in place: as attributes of that object, under
the names of the methods it stands for.  So it sees the spans of tracers that exist
already, and serves processors that are added later; the list of processors, which
other tools search for their own, stays as it is; and it runs on the application's
thread, where the exception of the moment can be seen, also where the composite calls
its processors on threads of its own.

A composite has one gate, however often somebody attaches.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Final, cast

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.sdk import trace as sdk

from agenttrace import _otel, safety, semconv
from agenttrace.registry import Claim, OpenSpan
from agenttrace.spans.adopted import OPENING_KEY, Adoption
from agenttrace.tracing import ApiTracer

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.context.context import Context

    from agenttrace.model import Attributes, Ending, Opening, Outcome
    from agenttrace.registry import OpenSpans
    from agenttrace.tracing import TracedSpan

_GATE: Final = "_agenttrace_gate"
# In this order: a span whose start is seen must not end unseen in between.
_METHODS: Final = ("on_end", "on_start")
_MISSING: Final = object()
_DEPTH: Final = 3
"""Wrappers around wrappers that are looked through."""

# Re-entrant: a finalizer that ends a span may run while this thread holds it.
_lock = threading.RLock()


class Attachment:
    """agenttrace beside the provider of an application.

    Args:
        provider: The provider; one that wraps the SDK's (as Logfire's does) is looked
            through.
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
            provider.get_tracer(semconv.SCOPE, version), registry
        )
        self._gate: Gate | None = None
        with _lock:
            self._gate = safety.guarded("attach", _gate_before, provider, registry)
            if self._gate is not None:
                self._gate.enter(self, as_error)

    @property
    def has_gate(self) -> bool:
        """Whether the spans of the provider can be watched."""
        return self._gate is not None

    def emit(self, span: sdk.ReadableSpan) -> None:
        """Send a span of our own making (a marker) past the gate."""
        if self._gate is not None:
            self._gate.adoption.send(span)

    def pass_on(self, span: sdk.ReadableSpan) -> None:
        """Send a span of a process that died past the gate, and past who looks on.

        Whoever captures the spans of this process has not to do with it.
        """
        if self._gate is not None:
            self._gate.adoption.pass_on(span)

    def detach(self) -> None:
        """Watch this provider no more.  The gate goes with the last who is attached.

        What is open now stays known to it, lest a span that was told get a second
        final form; then it goes when the last of these has ended.
        """
        if self._gate is not None:
            self._gate.leave(self)


class Gate:
    """Lets one final form of every span pass.  Made by `Attachment` alone."""

    def __init__(self, composite: Any, registry: OpenSpans) -> None:  # noqa: ANN401 - any object with the methods
        self._composite = composite
        self._state: dict[str, Any] = vars(composite)
        self._methods = {name: getattr(composite, name) for name in _METHODS}
        self._found: dict[str, object] = {}  # by name of what we stand in for
        self._users: set[Attachment] = set()
        self._entering: list[None] = []  # one for each thread that is in `on_start`
        self.adopt(registry)

    def adopt(self, registry: OpenSpans) -> None:
        """List spans in *registry* from now on."""
        self.adoption = Adoption(registry, self._methods["on_end"], self._hand_to_each)

    def _hand_to_each(self, span: sdk.ReadableSpan) -> None:
        """Hand *span*, of our making, to all processors, though one of them raises.

        Where its owner ends a span, what a processor raises is the owner's to see, and
        those after it get nothing: that is as it is without us.
        """
        forward = self._methods["on_end"]
        for each in _otel.processors_behind(forward) or (forward,):
            safety.guarded("processors.on_end", each, span)

    def enter(self, user: Attachment, as_error: frozenset[Outcome]) -> None:
        """Stand in the way for as long as *user* wants it."""
        self._users.add(user)
        self.adoption.as_error = as_error
        self.adoption.late = True
        for name in _METHODS:
            self._put(name)

    def leave(self, user: Attachment) -> None:
        """Adopt nothing more, if *user* was the last."""
        with _lock:
            self._users.discard(user)
            if not self._users:
                # Who shuts down has told what is open; nobody waits for more.
                self.adoption.late = False
                self._take("on_start")
        self._go_when_done()

    def on_start(self, span: sdk.Span, parent_context: Context | None = None) -> None:
        """Adopt *span*, then let it start."""
        # Said before asking: who leaves meanwhile either sees this, or is seen.
        self._entering.append(None)
        if self._users:
            safety.guarded("adopted.start", self.adoption.start, span, parent_context)
        self._entering.pop()
        self._methods["on_start"](span, parent_context=parent_context)
        self._go_when_done()

    def on_end(self, span: sdk.ReadableSpan) -> None:
        """Let the end of *span* pass, if it is the first, with how it ended."""
        if self._users or self.adoption.knows(span):
            self.adoption.end(span)
        else:
            self._methods["on_end"](span)
        self._go_when_done()

    def _put(self, name: str) -> None:
        if name in self._found:
            # There already, or beneath what another tool has put on top of it.
            return
        self._found[name] = self._state.get(name, _MISSING)
        self._methods[name] = getattr(self._composite, name)
        setattr(self._composite, name, getattr(self, name))

    def _take(self, name: str) -> None:
        if self._state.get(name) != getattr(self, name):
            # Not in place, or another tool holds on to it: then it lets all pass.
            return
        found = self._found.pop(name)
        if found is _MISSING:
            delattr(self._composite, name)
        else:
            setattr(self._composite, name, found)

    def _go_when_done(self) -> None:
        if self._is_needed():
            return
        with _lock:
            if not self._is_needed():
                self._take("on_end")
                # A thread that was slow to leave may find another gate here.
                if not self._found and self._state.get(_GATE) is self:
                    del self._state[_GATE]

    def _is_needed(self) -> bool:
        return bool(self._users or self._entering or self.adoption.open)


class AttachedTracer(ApiTracer):
    """Starts spans of the application's provider and knows their records.

    Args:
        tracer: A tracer of that provider.
        registry: Where the gate lists its spans.
    """

    def __init__(self, tracer: trace.Tracer, registry: OpenSpans) -> None:
        super().__init__(tracer, registry.find)
        self._registry = registry

    def start(self, opening: Opening, parent: Context) -> TracedSpan:
        """Start a span; one that is not sampled is watched all the same."""
        span = super().start(opening, otel.set_value(OPENING_KEY, opening, parent))
        if span.record is None and not span.api.is_recording():
            own = span.api.get_span_context()
            above = trace.get_current_span(parent).get_span_context()
            # A tracer that is switched off hands out its parent, or nothing.
            if own.is_valid and own.span_id != above.span_id:
                return UnsampledSpan(span.api, opening, above, self._registry)
        return span


class UnsampledSpan:
    """A span of ours that the provider's sampler left out: watched, never sent."""

    __slots__ = ("__weakref__", "_finished", "_registry", "api", "record")

    def __init__(
        self,
        span: trace.Span,
        opening: Opening,
        parent: trace.SpanContext,
        registry: OpenSpans,
    ) -> None:
        own = span.get_span_context()
        parent_id = parent.span_id.to_bytes(8, "big") if parent.is_valid else b""
        self.api = span
        self.record = OpenSpan(
            self,
            own.trace_id.to_bytes(16, "big"),
            own.span_id.to_bytes(8, "big"),
            parent_id,
            registry.find(parent_id) if parent_id else None,
            opening.name,
            opening.operation,
            time.time_ns(),
            sampled=False,
            heartbeat_timeout=opening.heartbeat_timeout,
            max_duration=opening.max_duration,
        )
        self._finished = False
        self._registry = registry
        registry.started(self.record)
        safety.count(safety.Count.SPANS_UNSAMPLED)

    def set_attributes(self, attributes: Attributes, /) -> None:
        """Ignore the attributes: nothing of this span is sent."""

    def finish(self, ending: Ending) -> None:
        """Leave the registry."""
        if not self._finished:
            self._finished = True
            if self._registry.claim(self.record) is not Claim.STALE:
                self.tell(ending)

    def tell(self, ending: Ending) -> None:
        """Free the slot: there is nothing to send (see `registry.Live`)."""
        del ending
        self._registry.slots.free(self.record)

    def remark(self, key: str, value: str) -> None:
        """Ignore it: nothing of this span is sent."""

    def copied(self) -> Callable[[Ending], None]:
        """Do the same: what its owner finishes later finds nothing to do."""
        record, registry = self.record, self._registry

        def tell(ending: Ending) -> None:
            registry.slots.free(record)
            registry.verdict_written(record, ending)

        return tell

    def __del__(self) -> None:
        # Runs anywhere, with any lock held: only append.  See OpenSpans.sweep.
        if not self._finished:
            self._registry.collected.append((self.record, self))


def sdk_provider(provider: trace.TracerProvider) -> sdk.TracerProvider | None:
    """Return the SDK's provider that *provider* is or wraps, None where there is none.

    Tools that exchange what stands behind the global provider keep it in an attribute
    of this name.
    """
    found: Any = provider
    for _ in range(_DEPTH):
        if isinstance(found, sdk.TracerProvider):
            return found
        found = getattr(found, "provider", None)
    return None


def _gate_before(provider: trace.TracerProvider, registry: OpenSpans) -> Gate | None:
    """Return the gate of *provider*, None where it is not what it should be."""
    composite = _otel.composite_of(sdk_provider(provider))
    if not all(callable(getattr(composite, name, None)) for name in _METHODS):
        safety.log_once(
            "attach: no composite processor",
            logging.WARNING,
            "The spans of %s cannot be watched: this version of OpenTelemetry's SDK "
            "hands them on in a way that agenttrace does not know. Its own spans "
            "arrive there all the same.",
            type(provider).__qualname__,
        )
        return None
    state = cast("dict[str, Any]", vars(composite))
    gate: object = state.get(_GATE)
    if not isinstance(gate, Gate):
        gate = state[_GATE] = Gate(composite, registry)
    elif gate.adoption.registry is not registry:
        gate.adopt(registry)
    return gate


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 - another thread may have held it at the fork
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
