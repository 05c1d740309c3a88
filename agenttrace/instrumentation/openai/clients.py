"""What is wrong with a client, as far as its requests show: time-outs, and its loops.

A client keeps connections, and a connection belongs to the event loop that opened it.
So the first request of each client is looked at for its time-outs, and every one for
the loop: in a second one it is noted for `agenttrace doctor`, once for each client.

It costs a request a look into a dictionary.  What is noted, and where, is found out
when there is something to note.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from typing import Any, Final

from opentelemetry import trace

from agenttrace import tracing
from agenttrace.lazy import no_fork_at_first

_KEY: Final = "_agenttrace_loop"
_PATIENT: Final = 600.0
"""Seconds: the library's own time-out, which nobody asked for."""


def look(client: Any, options: Any) -> None:  # noqa: ANN401 - the library's objects
    """Look at a *client* that is about to make a request with *options*."""
    # Whose connections they are: copies of `with_options` share it.
    held = client._client.__dict__  # noqa: SLF001 - see above
    loop = asyncio._get_running_loop()  # noqa: SLF001 - documented; None without a loop
    known = held.get(_KEY)
    if known is None:
        held[_KEY] = _SYNC if loop is None else weakref.ref(loop)
        _look_at_timeouts(client, options)
    elif (
        known is not _SYNC
        and known is not _SHARED
        and known() is not loop
        # A synchronous client may be used anywhere.
        and hasattr(client._client, "aclose")  # noqa: SLF001 - see above
    ):
        held[_KEY] = _SHARED
        _note("client_shared", client, "another loop is closed" * (known() is None))


def _look_at_timeouts(client: Any, options: Any) -> None:  # noqa: ANN401 - the library's objects
    timeout: Any = getattr(client, "timeout", None)
    if _is_of_the_other_library(timeout, client._client):  # noqa: SLF001 - see above
        _note("timeout_refused", client)
        return
    own: object = options.timeout
    if own is None or isinstance(own, (int, float)) or hasattr(own, "read"):
        timeout = own
    read: object = getattr(timeout, "read", timeout)
    if read is None:
        _note("no_timeout", client, "there is none at all")
    elif read == _PATIENT:
        _note("no_timeout", client, "600 s, the library's own")


def _is_of_the_other_library(timeout: Any, http: object) -> bool:  # noqa: ANN401 - of either library
    """Return whether httpx2 was given a time-out of httpx, which it takes for a number.

    The client itself knows both; its `DefaultHttpxClient` hands it on as it is.
    """
    legacy, new = sys.modules.get("httpx"), sys.modules.get("httpx2")
    return (
        legacy is not None
        and new is not None
        and isinstance(getattr(timeout, "read", None), legacy.Timeout)
        and isinstance(http, (new.Client, new.AsyncClient))
    )


def _note(kind: str, client: object, detail: str = "") -> None:
    with no_fork_at_first("openai clients"):
        from agenttrace import noticed  # noqa: PLC0415 - most clients are well
        from agenttrace.watchdog.blocks import is_application  # noqa: PLC0415 - the same
    record = tracing.record_of(trace.get_current_span())
    who = type(client).__name__
    noticed.note(
        noticed.Kind(kind),
        noticed.place_here(is_application),
        span="" if record is None else record.name,
        detail=f"{who}, {detail}" if detail else who,
    )


_SYNC: Final = object()
_SHARED: Final = object()
