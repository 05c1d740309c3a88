"""Whether spans arrive where the environment sends them.

An endpoint is sent an empty request by the sender itself: the same address, headers,
certificates and proxies as for spans, and nothing to be stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agenttrace.delivery.frames import Frame
from agenttrace.delivery.senders import Delivered, Later, Refused
from agenttrace.delivery.store import FILE_NAME, Reader
from agenttrace.diagnosis.findings import Finding, ok, problem, warning
from agenttrace.errors import AgenttraceError
from agenttrace.runtime.destinations import senders_of
from agenttrace.settings import resolve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agenttrace.delivery.senders import Sender

_EMPTY: Final = Frame(ids=(), payload=b"")
_BAD_REQUEST: Final = "400"


def checks(directory: Path, timeout: float) -> Iterator[Finding]:
    """Yield what there is to say of each destination.

    Args:
        directory: The state directory, where the embedded store is.
        timeout: Longest wait for one of them in seconds.
    """
    try:
        settings = resolve({"state_dir": str(directory)})
        senders = senders_of(settings)
    except AgenttraceError as error:
        yield problem("settings", str(error), "correct the variable it names")
        return
    if settings.disabled:
        yield warning(
            "settings", "tracing is disabled", "unset AGENTTRACE_DISABLED or the other"
        )
    if not settings.durable:
        yield warning(
            "settings",
            "AGENTTRACE_DURABLE is off: spans die with their process",
            "unset it",
        )
    if not senders:
        yield warning(
            "destination", "none: OTEL_TRACES_EXPORTER says so", "unset it, or name one"
        )
    for name, sender in senders.items():
        if name == "store":
            yield _of_store(directory)
        elif name == "console":
            yield ok("destination", "the console")
        else:
            yield _of_endpoint(sender, timeout)


def _of_store(directory: Path) -> Finding:
    path = directory / FILE_NAME
    if not path.exists():
        return ok("destination", f"the embedded store {path}, not begun yet")
    try:
        Reader(path).runs(1)
    except AgenttraceError as error:
        return problem("destination", str(error), "agenttrace sets it aside itself")
    return ok("destination", f"the embedded store {path}")


def _of_endpoint(sender: Sender, timeout: float) -> Finding:
    try:
        answer = sender.send(_EMPTY, timeout)
    finally:
        sender.close()
    where = repr(sender).partition("'")[2].rpartition("'")[0] or repr(sender)
    match answer:
        case Delivered():
            return ok("destination", f"{where} answers")
        case Later(reason):
            return problem(
                "destination",
                f"{where} does not take spans now: {reason}",
                "is it running, and is OTEL_EXPORTER_OTLP_ENDPOINT its address?",
            )
        case Refused(reason) if _BAD_REQUEST in reason:
            return warning(
                "destination",
                f"{where} answers, and takes no empty request ({reason})",
                "none, if spans arrive",
            )
        case Refused(reason):
            return problem(
                "destination",
                f"{where} refuses: {reason}",
                "see path and headers in the OTEL_EXPORTER_OTLP_* variables",
            )
