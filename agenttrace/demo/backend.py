"""Where the traces can be looked at, and what a Jaeger there has of them.

What stands behind an OTLP endpoint is not known: a Collector looks like a backend.  So
whoever runs the demo may say how the address of a trace looks.  Where nobody has, one
guess is made, Jaeger's own port on the endpoint's host, and it counts only if a Jaeger
answers there that has a trace of this demo.  No address is shown on less than that.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.error import URLError
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
_PATIENCE: Final = 5.0
"""Seconds in which a Jaeger that answers must have everything."""
_MOMENT: Final = 0.1


@dataclass(frozen=True, slots=True)
class Backend:
    """Where traces can be looked at.

    Args:
        template: Address of a trace, with `{trace_id}` in it.
        found: How many of the spans that started a Jaeger there has, by trace id; empty
            where no Jaeger answers.
    """

    template: str
    found: Mapping[str, int] = field(default_factory=dict[str, int])

    def url(self, trace_id: str) -> str:
        """Return the address of a trace."""
        return self.template.replace(TRACE_ID, trace_id)


def check(template: str) -> None:
    """Raise `SettingError` where *template* is no address of a trace."""
    has_scheme = template.startswith(("http://", "https://"))
    if not has_scheme or TRACE_ID not in template or not template.isprintable():
        allowed = f"an address with {TRACE_ID} in it, http://.../trace/{TRACE_ID} say"
        raise SettingError(setting=OPTION, value=template, allowed=allowed)


def look(
    sent: Sent | None,
    acts: Sequence[Act],
    template: str | None,
    *,
    jaeger_port: int = JAEGER_PORT,
) -> Backend | None:
    """Return where the traces of *acts* can be looked at; None where that is not known.

    Args:
        sent: What an OTLP endpoint has acknowledged, if one is set.
        acts: What was played.
        template: Address of a trace, by whoever knows.
        jaeger_port: Where a Jaeger is looked for otherwise.
    """
    if sent is None or not sent.acknowledged:
        return None
    if template is not None:
        return Backend(template, _found(template, acts))
    host = _host_of(sent.to)
    if host is None:
        return None
    guess = f"http://{host}:{jaeger_port}{_OF_JAEGER}"
    found = _found(guess, acts)
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


def _found(template: str, acts: Sequence[Act]) -> dict[str, int]:
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
                there = _spans_of(f"{base}/api/traces/{trace_id}")
                if there is None:
                    return {}
                found[trace_id] = len(span_ids & there)
                if span_ids <= there or time.monotonic() > deadline:
                    break
                time.sleep(_MOMENT)
    return found


def _spans_of(address: str) -> set[str] | None:
    """Return the ids of the spans of a trace; None where no Jaeger answers."""
    # It is as near as the endpoint: no proxy stands in between.
    opener = build_opener(ProxyHandler({}))
    try:
        with opener.open(address, timeout=_ANSWER) as answer:
            told: Any = json.load(answer)
        return {str(span["spanID"]) for each in told["data"] for span in each["spans"]}
    except URLError as error:
        # Jaeger's word for a trace that it does not have (yet).
        return set() if getattr(error, "code", None) == 404 else None  # noqa: PLR2004 - HTTP's own number
    except (OSError, ValueError, KeyError, TypeError):
        return None
