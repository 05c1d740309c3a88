"""Carries the current span into threads and thread pools.

A thread begins with an empty context, so what it starts would be a run of its own.
With these patches `Thread.start` and `ThreadPoolExecutor.submit` take the tracing
context of their caller along, and with them `asyncio.to_thread`, `run_in_executor` and
everything else that is made of them.

It is the tracing context alone that is carried (see `context.carriers`): the
application's own context variables say in its workers what they say without us.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel
from opentelemetry.context.context import Context

from agenttrace import safety
from agenttrace.context import scope
from agenttrace.context.carriers import carry
from agenttrace.instrumentation._patching import Instrumentor, Patch

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

_OUR_THREADS: Final = "agenttrace"


def _submit(
    submit: Callable[..., Any],
    _: object,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:  # noqa: ANN401 - the Future
    if not args or not otel.get_current():
        return submit(*args, **kwargs)
    carried = safety.guarded("threading.submit", carry, args[0])
    if carried is None:
        return submit(*args, **kwargs)
    # A pool starts its threads in here, and they serve others after this caller: what
    # is current now must not become theirs.
    token = otel.attach(Context())
    try:
        return submit(carried, *args[1:], **kwargs)
    finally:
        scope.detach(token)


def _start(
    start: Callable[..., Any],
    thread: threading.Thread,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:  # noqa: ANN401 - None
    context = otel.get_current()
    if not context or thread.ident is not None or thread.name.startswith(_OUR_THREADS):
        return start(*args, **kwargs)
    # `run` is what subclasses override, so no patch of the class would reach it.
    own = vars(thread).get("run")
    run = thread.run

    @functools.wraps(run)
    def carried() -> None:
        _put_back(thread, own)
        token = otel.attach(context)
        try:
            run()
        finally:
            scope.detach(token)

    vars(thread)["run"] = carried
    try:
        return start(*args, **kwargs)
    except BaseException:
        _put_back(thread, own)
        raise


def _put_back(thread: threading.Thread, own: object) -> None:
    """Let *thread* have the `run` it had; what was put there holds it in a circle."""
    if own is None:
        vars(thread).pop("run", None)
    else:
        vars(thread)["run"] = own


INSTRUMENTOR: Final = Instrumentor(
    "threading",
    (
        Patch("concurrent.futures.thread", "ThreadPoolExecutor.submit", _submit),
        Patch("threading", "Thread.start", _start),
    ),
)
