"""An operation that makes no span of its own, followed like any other.

It has the shapes of a call, and one ending, which is told to whoever asked instead of
being written on a span: of a further request of an open operation, of the function in
which a library runs its agents, of the stream through which somebody listens to them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenttrace import safety
from agenttrace.boundary.call import Call

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.context.context import Context

    from agenttrace.boundary.recorder import Recorder
    from agenttrace.model import Ending


class Silent(Call):
    """A call without a span.

    Args:
        recorder: Reads the operation.
        context: What is current inside it.
        ended: Told how it ended, once.
    """

    __slots__ = ("_ended",)

    def __init__(
        self, recorder: Recorder, context: Context, ended: Callable[[Ending], None]
    ) -> None:
        super().__init__(recorder, context)
        self._ended = ended

    def begin(self) -> bool:
        """Make no span."""
        return True

    def finish(self, ending: Ending) -> None:
        """Tell how it ended."""
        if not self.done:
            self.done = True
            safety.guarded("silent.ended", self._ended, ending)
