"""What reads facts out of an operation, and what it says of one item of a stream."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from agenttrace.model import NO_ATTRIBUTES

if TYPE_CHECKING:
    from agenttrace.boundary.call import Call
    from agenttrace.model import Attributes, Opening


class Progress(Enum):
    """What one item of a stream means for its span."""

    NOTHING = "nothing"
    """A keep-alive, an empty chunk: no sign of progress."""
    PROGRESS = "progress"
    FINAL = "final"
    """The stream is complete; what follows, a close too, does not abandon it."""


# Bound once: looking a member up costs as much as reading a chunk.
class Recorder(Protocol):
    """Reads facts out of one operation.

    Colourless: it awaits, ends and catches nothing, and may fail without anybody but
    the guard noticing.  Where a library returns without a word what has failed
    elsewhere, a recorder also has `verdict() -> Ending | None`, which is asked after
    all else when an operation returned.
    """

    def request(self) -> Opening:
        """Return what is known before the operation starts."""
        ...

    def item(self, item: Any, /) -> Progress:  # noqa: ANN401 - a library's item
        """Take note of one item of a stream."""
        ...

    def result(self, value: Any, /) -> Attributes:  # noqa: ANN401 - a library's value
        """Return what is known from the value that came back."""
        ...

    def facts(self) -> Attributes:
        """Return what is known from the items so far: asked at any ending."""
        ...

    def claims(self, call: Call, value: Any, /) -> bool:  # noqa: ANN401 - a library's value
        """Return whether *value* is its library's stream and *call* goes on in it."""
        ...


class PlainRecorder:
    """The recorder of an operation of which no more is known than how it opens."""

    __slots__ = ("opening",)

    def __init__(self, opening: Opening) -> None:
        self.opening = opening

    def request(self) -> Opening:
        """Return the opening."""
        return self.opening

    def item(self, _item: object, /) -> Progress:
        """Take every item for progress."""
        return Progress.PROGRESS

    def result(self, _value: object, /) -> Attributes:
        """Add nothing."""
        return NO_ATTRIBUTES

    def facts(self) -> Attributes:
        """Add nothing: items are counted by the boundary."""
        return NO_ATTRIBUTES

    def claims(self, _call: Call, _value: object, /) -> bool:
        """Claim no value: what is returned is the caller's."""
        return False
