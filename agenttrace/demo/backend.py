"""Where the traces can be looked at, and what a Jaeger there has of them.

What stands behind an OTLP endpoint is not known: a Collector looks like a backend.  So
whoever runs the demo may say how the address of a trace looks.  Where nobody has, one
guess is made, Jaeger's own port on the endpoint's host, and it counts only if a Jaeger
answers there that has a trace of this demo.  No address is shown on less than that.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, Final
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

from agenttrace.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agenttrace.demo.account import Act, Sent

OPTION: Final = "--trace-url"
TRACE_ID: Final = "{trace_id}"
"""What stands for the id in a template."""
JAEGER_PORT: Final = 16686
_OF_JAEGER: Final = f"/trace/{TRACE_ID}"
"""How the path of a trace ends on Jaeger's pages."""
_ANSWER: Final = 1.0
"""Seconds that one answer may take."""
LONGEST: Final = 16 * 1024 * 1024
"""Bytes of an answer that are read: a trace of the demo has a hundredth of that."""
_NOT_FOUND: Final = 404
_PATIENCE: Final = 5.0
"""Seconds in which a Jaeger that answers must have everything."""
_MOMENT: Final = 0.1


@dataclass(frozen=True, slots=True)
class Backend:
    """Where traces can be looked at.

    Args:
        template: Address of a trace, with `{trace_id}` in it.
        found: How many of the spans that started a Jaeger there has, by trace id;
            without those that it did not answer for, empty where no Jaeger answers.
    """

    template: str
    found: Mapping[str, int] = field(default_factory=dict[str, int])

    def url(self, trace_id: str) -> str:
        """Return the address of a trace."""
        return self.template.replace(TRACE_ID, trace_id)


def check(template: str) -> None:
    """Raise `SettingError` where *template* is no address of a trace."""
    has_scheme = template.startswith(("http://", "https://"))
    is_whole = template.isprintable() and " " not in template and _has_host(template)
    if not has_scheme or TRACE_ID not in template or not is_whole:
        allowed = f"an address with {TRACE_ID} in it, http://.../trace/{TRACE_ID} say"
        raise SettingError(setting=OPTION, value=template, allowed=allowed)


def look(
    sent: Sent | None,
    acts: Sequence[Act],
    template: str | None,
    *,
    jaeger_port: int = JAEGER_PORT,
    answer: float = _ANSWER,
) -> Backend | None:
    """Return where the traces of *acts* can be looked at; None where that is not known.

    Args:
        sent: What an OTLP endpoint has acknowledged, if one is set.
        acts: What was played.
        template: Address of a trace, by whoever knows.
        jaeger_port: Where a Jaeger is looked for otherwise.
        answer: Seconds that one answer may take, to its last byte.
    """
    if sent is None or not sent.acknowledged:
        return None
    if template is not None:
        return Backend(template, _found(template, acts, answer))
    host = _host_of(sent.to)
    if host is None:
        return None
    guess = f"http://{host}:{jaeger_port}{_OF_JAEGER}"
    found = _found(guess, acts, answer)
    return Backend(guess, found) if any(found.values()) else None


def _host_of(endpoint: str) -> str | None:
    """Return the host in an address, as it stands in another one.

    >>> _host_of("http://[::1]:4318/v1/traces"), _host_of("localhost:4317")
    ('[::1]', 'localhost')
    """
    try:
        found = urlsplit(endpoint if "//" in endpoint else f"//{endpoint}").hostname
    except ValueError:
        return None
    return f"[{found}]" if found and ":" in found else found


def _has_host(address: str) -> bool:
    """Return whether *address* names a host, and a port that is one or none.

    >>> _has_host("http://h:1/"), _has_host("http://h:{port}/"), _has_host("http:///")
    (True, False, False)
    """
    try:
        parts = urlsplit(address)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _found(template: str, acts: Sequence[Act], timeout: float) -> dict[str, int]:
    """Return how much of each trace a Jaeger has; nothing where none answers."""
    base, is_jaeger, _ = template.partition(_OF_JAEGER)
    if not is_jaeger:
        return {}
    deadline = time.monotonic() + _PATIENCE
    found: dict[str, int] = {}
    for act in acts:
        wanted: dict[str, set[str]] = {}
        for span in act.started:
            wanted.setdefault(span.trace_id, set()).add(span.span_id)
        for trace_id, span_ids in wanted.items():
            # It stores what it has acknowledged a moment later.
            while True:
                there = _spans_of(f"{base}/api/traces/{trace_id}", timeout)
                is_late = time.monotonic() > deadline
                if there is not None:
                    found[trace_id] = len(span_ids & there)
                elif is_late or not found:
                    return found
                if is_late or span_ids <= (there or set()):
                    break
                time.sleep(_MOMENT)
    return found


def _spans_of(address: str, timeout: float) -> set[str] | None:
    """Return the ids of the spans of a trace; None where no Jaeger answers in time."""
    told: list[set[str] | None] = []
    # What answers drop by drop keeps every time limit of a socket, and is given up.
    asking = threading.Thread(
        target=lambda: told.append(_told_of(address, timeout)), daemon=True
    )
    asking.start()
    asking.join(timeout)
    return told[0] if told else None


def _told_of(address: str, timeout: float) -> set[str] | None:
    """Return what a Jaeger says of a trace, however long it takes for that."""
    # It is as near as the endpoint: no proxy stands in between.
    opener = build_opener(ProxyHandler({}))
    try:
        try:
            answer = opener.open(address, timeout=timeout)
        except HTTPError as error:
            answer = error
        with answer:
            told: Any = json.loads(answer.read(LONGEST))
        if answer.status == _NOT_FOUND:
            # Jaeger's words for a trace that it does not have (yet).  Others say 404 of
            # a page that they do not have.
            return set() if told["errors"][0]["code"] == _NOT_FOUND else None
        return {str(span["spanID"]) for each in told["data"] for span in each["spans"]}
    # Whatever is there: it may not speak HTTP, or say anything in JSON.
    except (OSError, HTTPException, ValueError, LookupError, TypeError, RecursionError):
        return None
