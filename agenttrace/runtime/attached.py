"""How a runtime traces beside another provider: its processors carry our spans.

There is no exporter and no spool of ours then.  Open spans stand in the journal until
their final form was handed to the processors; what is handed over is theirs to deliver,
and to lose.  What dead processes have left goes the same way, and counts as delivered
when the provider says that it has flushed: more than that cannot be known.

How other libraries' spans are watched is `spans.attached`'s business, what is on disk
`durability`'s.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from agenttrace import _otel, safety, semconv
from agenttrace.crashpoints import crash_point
from agenttrace.lazy import no_fork_at_first
from agenttrace.model import NO_RESOURCE, Outcome, ScopeData
from agenttrace.runtime.durability import Durability
from agenttrace.runtime.pipelines import Kept, LoopWatch
from agenttrace.runtime.process import PROCESS, left_until
from agenttrace.settings import INSTANCES
from agenttrace.spans.attached import Attachment
from agenttrace.spans.provider import resource_data

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry import trace
    from opentelemetry.sdk import trace as sdk
    from opentelemetry.sdk.resources import Resource

    from agenttrace import tracing
    from agenttrace.delivery.frames import Frame
    from agenttrace.delivery.spooler import SpoolerStatus
    from agenttrace.model import ResourceData, SpanData
    from agenttrace.registry import OpenSpans
    from agenttrace.settings import Settings

    Settle = Callable[[], None]

_FLUSH: Final = 30.0
"""Seconds that the processors are given for what a dead process has left."""
_AGAIN: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between attempts to have them flush, until that is left to another process.
"""
_PATIENCE: Final = 2.0
"""Seconds that stopping waits for what is being handed over."""
_LONGEST: Final = 86_400.0
"""Seconds, in place of no limit: providers are told milliseconds, in a whole number."""
_OURS: Final = ScopeData(semconv.SCOPE)
_WINDOW: Final = 2**20
"""Bytes of what the dead have left that are on their way at once: one frame is."""


class HandOver:
    """Hands what dead processes have left to the processors of a provider.

    Args:
        attachment: Ours to it.
        provider: The application's provider.
        behind: The SDK's that it is or wraps.
    """

    def __init__(
        self,
        attachment: Attachment,
        provider: trace.TracerProvider,
        behind: sdk.TracerProvider,
    ) -> None:
        self._attachment = attachment
        self._provider = provider
        self._behind = behind
        self._handed: list[Settle] = []
        self._handing = threading.Lock()
        self._over = threading.Event()

    def take(self, frame: Frame, settle: Settle) -> bool:
        """Hand over the spans of *frame*, and *settle* it when they are flushed.

        By the thread that recovers, which waits for that.

        Returns:
            Whether it is settled.  If not, another process is to have it.
        """
        # Before anything: who does not flush now gets nothing that is told once more
        # by another then, and there is room afterwards: processors drop what is too
        # much for their queue.
        if self._over.is_set() or not self.flush(_FLUSH):
            return False
        spans = _spans_of(frame)
        if spans is None:
            settle()  # nobody else will read it either
            return True
        with self._handing:
            if self._over.is_set() or not self._has_processors():
                return False
            for span in spans:
                self._attachment.pass_on(span)
            crash_point("handed over")
            self._handed.append(settle)
        for wait in _AGAIN:
            if self.flush(_FLUSH):
                return True
            if self._over.wait(wait):
                break
        return False

    def flush(self, timeout: float) -> bool:
        """Have the processors deliver; what was handed over is settled then.

        Args:
            timeout: Seconds they are given; not all of them mind that.

        Returns:
            Whether the provider says that they have.
        """
        due = tuple(self._handed)  # and not what is handed over meanwhile
        if not self._is_flushed(timeout):
            return False
        for settle in due:
            # By whoever comes first.
            with contextlib.suppress(ValueError):
                self._handed.remove(settle)
                settle()
        return True

    def stop(self, timeout: float = _PATIENCE) -> None:
        """Hand over nothing more; what is being handed over now is waited for."""
        is_mine = self._handing.acquire(timeout=timeout)
        self._over.set()
        if is_mine:
            self._handing.release()

    def _has_processors(self) -> bool:
        """Return whether there is anybody to hand anything to, by now."""
        return bool(_otel.processors_of(self._behind))

    def _is_flushed(self, timeout: float) -> bool:
        """Have the provider deliver; return whether it says that it has."""
        until = time.monotonic() + timeout
        if _says_flushed(self._provider, timeout):
            return True
        # A composite takes None for a no, and asks nobody after that one.
        processors: Sequence[Any] = _otel.processors_of(self._behind)
        return all(
            (left := until - time.monotonic()) > 0 and _says_flushed(each, left)
            for each in processors
        )


class AttachedPipeline(Kept):
    """Another provider's processors carry our spans (`ways.Pipeline`).

    Args:
        provider: The application's.
        behind: The SDK's provider that it is or wraps.
        registry: Where spans are listed while they are open.
        settings: As configured.
        version: Ours, for the instrumentation scope.
    """

    mode = "attached"
    destinations: tuple[str, ...] = ()

    def __init__(
        self,
        provider: trace.TracerProvider,
        behind: sdk.TracerProvider,
        registry: OpenSpans,
        settings: Settings,
        *,
        version: str,
    ) -> None:
        self._provider = provider
        self._behind = behind
        self._durability = None
        self.attachment = Attachment(
            provider,
            registry,
            version=version,
            as_error=frozenset(Outcome(word) for word in settings.error_outcomes),
        )
        self._hand_over = HandOver(self.attachment, provider, behind)
        self._loops = LoopWatch(settings, registry, lambda: self.tell)
        if not self.attachment.has_gate:
            self._loops.stop()  # there is no way for what they would tell
        # Without a gate nobody would know when a slot is to be freed.
        if settings.durable and self.attachment.has_gate:
            self._durability = Durability(
                settings.state_dir / INSTANCES, _WINDOW, settings.limits
            )
            self._durability.begin(self._resource())
            self._durability.recover_with(self._hand_over.take)

    @property
    def resource(self) -> Resource | None:
        """Who this process is, by what its provider says."""
        return safety.guarded("provider.resource", lambda: self._behind.resource)

    @property
    def tracer(self) -> tracing.Tracer:
        """A tracer of the application's provider."""
        return self.attachment.tracer

    def flush(self, timeout: float) -> bool:
        """Ask the application's provider to deliver."""
        return self._hand_over.flush(timeout)

    def stop(self, timeout: float) -> bool:
        """Take the gate out again; the provider is the application's."""
        deadline = time.monotonic() + timeout
        safety.guarded("loops.stop", self._loops.stop)
        told = PROCESS.finish_errands(timeout)
        if self._durability is not None:
            self._durability.stop()
        self._hand_over.stop(min(left_until(deadline), _PATIENCE))
        flushed = self.flush(left_until(deadline)) and told
        self.attachment.detach()
        if self._durability is not None:
            # What it tells of has not been handed over, or it tells of nothing.
            self._durability.end(settled=True)
        return flushed

    def tell(self, form: SpanData) -> None:
        """Send *form*, a span that nobody has started, as this process's.

        Its processors may hang, and this is the ticker's thread.
        """
        if PROCESS.errands.is_full:
            safety.count(safety.Count.SPANS_DROPPED)
        else:
            PROCESS.errands.ask("emit", partial(self._emit, form))

    def after_fork(self) -> None:
        """Give the child files of its own; processors are the provider's business."""
        self._hand_over = HandOver(self.attachment, self._provider, self._behind)
        self._loops.after_fork()
        if self._durability is not None:
            self._durability.after_fork(self._resource())
            self._durability.recover_later(self._hand_over.take)

    def status(self) -> SpoolerStatus | None:
        """Return None: the queue is the provider's."""
        return None

    def _emit(self, form: SpanData) -> None:
        with no_fork_at_first("telling"):
            from agenttrace.delivery.readable import (  # noqa: PLC0415 - see `LoopWatch`
                to_readable,
            )
        whose = form._replace(resource=self._resource(), scope=_OURS)
        # Not to taps: whoever asserts a tree means what the application has started.
        self.attachment.pass_on(to_readable(whose))

    def _resource(self) -> ResourceData:
        """Return the same as data."""
        said = self.resource
        return NO_RESOURCE if said is None else resource_data(said)


def _says_flushed(flushing: Any, timeout: float) -> bool:  # noqa: ANN401 - a provider, or a processor
    try:
        said: object = flushing.force_flush(int(min(timeout, _LONGEST) * 1000))
    except Exception as error:  # noqa: BLE001 - of whatever the application has added
        safety.swallow("provider.force_flush", error)
        return False
    # Those of others return None for "as far as I know".
    return said is not False


def _spans_of(frame: Frame) -> Sequence[sdk.ReadableSpan] | None:
    """Return the spans of *frame* as processors read them; None where it has none."""
    with no_fork_at_first("handing over"):
        from agenttrace.delivery import (  # noqa: PLC0415 - most processes recover nothing
            otlp,
            readable,
        )

        # What decoding will import.
        importlib.import_module(
            "opentelemetry.proto.collector.trace.v1.trace_service_pb2"
        )
    try:
        return [readable.to_readable(span) for span in otlp.decode(frame.payload)]
    except Exception as error:  # noqa: BLE001 - of a file that was written by anybody
        safety.note("handover", error)
        safety.count(safety.Count.SPANS_DROPPED, len(frame.ids))
        return None
