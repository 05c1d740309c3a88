"""A function on its way to another process, with the tracing context of its sender.

It is pickled, and read by a process that may have imported nothing of agenttrace: so
there is little in this module, and its name must stay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agenttrace.context.carriers import extracted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Handed:
    """Calls a function as a part of the trace of whoever handed it over.

    Args:
        fn: The function, which can be pickled.
        headers: What `carrier()` returned there.
    """

    def __init__(self, fn: Callable[..., Any], headers: Mapping[str, str]) -> None:
        self._fn = fn
        self._headers = headers

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as fn
        """Call the function."""
        with extracted(self._headers):
            return self._fn(*args, **kwargs)
