"""Lets an application that is traced without its knowledge have a provider of its own.

OpenTelemetry takes one global tracer provider for the life of a process, and ours is
there before the application's first line.  If the application sets one of its own after
all, that is what it would have had without us: ours gives way, and agenttrace attaches
to the other one, as it does where that comes first.

An application that calls `configure()` itself has decided: from then on nothing gives
way here any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import wrapt
from opentelemetry import trace

from agenttrace import _otel, safety
from agenttrace.runtime import configure, current
from agenttrace.runtime.process import PROCESS

if TYPE_CHECKING:
    from collections.abc import Callable

    from agenttrace.runtime import Runtime

_OWN: Final = "own"


def give_way(runtime: Runtime) -> None:
    """Let the application's provider take the place of that of *runtime*.

    Args:
        runtime: Configured before the application has begun.
    """
    if runtime.status().mode != _OWN:
        return

    def set_provider(
        set_it: Callable[..., Any],
        _module: object,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        is_next = current() is runtime and _otel.give_up_provider(PROCESS.provider)
        set_it(*args, **kwargs)
        if is_next:
            safety.guarded("giving way", configure)

    wrapt.wrap_function_wrapper(trace, "set_tracer_provider", set_provider)
