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
    wrong: list[str] = []
    for span in spans:
        expected = span.name.partition("<")[2]
        parent = names.get(span.parent.span_id) if span.parent else None
        if expected and parent not in {expected, f"invoke_agent {expected}"}:
            wrong.append(f"{span.name} is below {parent}")
    return wrong
