"""Parents of spans, checked by names that say after a `<` whose children they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan


def names_of(spans: list[ReadableSpan]) -> dict[int, str]:
    """Return the names of *spans* by their ids."""
    return {span.context.span_id: span.name for span in spans if span.context}


def misplaced(spans: list[ReadableSpan]) -> list[str]:
    """Return the spans whose parent is not the one that their name says."""
    names = names_of(spans)
    return [
        span.name
        for span in spans
        if "<" in span.name
        and (names.get(span.parent.span_id) if span.parent else None)
        not in {span.name.partition("<")[2], "invoke_agent " + span.name.partition("<")[2]}
    ]
