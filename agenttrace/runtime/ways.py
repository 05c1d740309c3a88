"""What a runtime asks of the way its spans take, whichever that is (`pipelines`).

Types alone: nothing imports this where it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

    from agenttrace import tracing
    from agenttrace.delivery.spooler import SpoolerStatus
    from agenttrace.journal import Journal
    from agenttrace.model import SpanData
    from agenttrace.recovery import Recovered


class Pipeline(Protocol):
    """How a runtime traces: own, attached, or not at all."""

    mode: str
    destinations: tuple[str, ...]

    @property
    def journal(self) -> Journal | None:
        """Where open spans survive the process; None where they do not."""
        ...

    @property
    def resource(self) -> Resource | None:
        """Who this process is, None where nobody says."""
        ...

    @property
    def tracer(self) -> tracing.Tracer:
        """What the port is to use."""
        ...

    def flush(self, timeout: float, /) -> bool:
        """Deliver what has ended."""
        ...

    def stop(self, timeout: float, /) -> bool:
        """Deliver what has ended and take nothing more."""
        ...

    def tell(self, form: SpanData, /) -> None:
        """Send *form*, a span that nobody has started; waits for nothing."""
        ...

    def tick(self) -> None:
        """Do what is to be done now and then while spans are open."""
        ...

    def rest(self) -> None:
        """Do what is to be done when no span is open any more."""
        ...

    def recover(self, timeout: float, /) -> Recovered | None:
        """Deliver what dead processes have left; None where that cannot be."""
        ...

    def after_fork(self) -> None:
        """Begin anew in a child process."""
        ...

    def status(self) -> SpoolerStatus | None:
        """Return queue and destinations, where there are any."""
        ...
