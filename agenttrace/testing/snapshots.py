"""Spans as plain values that are the same in every run, for snapshots and literals.

What differs from run to run is left out (times, ids, attributes nobody asked for), and
so is what a span does not have.  Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agenttrace.testing.trees import fits

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from agenttrace.testing.spans import CapturedSpan


def snapshot_of(
    spans: Sequence[CapturedSpan], *, attributes: Collection[str], ids: bool
) -> list[dict[str, Any]]:
    """Return *spans*, which are in the order of their start, as trees.

    Args:
        spans: With their relatives.
        attributes: Names of those to keep, in which `*` stands for any text.
        ids: Whether to number traces and spans.
    """
    numbers = {span.span_id: number for number, span in enumerate(spans, start=1)}
    traces = {
        trace: number
        for number, trace in enumerate(
            dict.fromkeys(span.trace_id for span in spans), start=1
        )
    }

    def plain(span: CapturedSpan) -> dict[str, Any]:
        kept = {
            key: value
            for key, value in sorted(span.attributes.items())
            if any(fits(pattern, key) for pattern in attributes)
        }
        identity: dict[str, Any] = {}
        if ids:
            identity = {"trace": traces[span.trace_id], "id": numbers[span.span_id]}
            # One that was not captured has no number.
            linked = [numbers.get(link.span_id) for link in span.links]
            identity |= {"links": linked} if linked else {}
        said = {
            "outcome": span.outcome and span.outcome.value,
            "error_type": span.error_type,
            "items": span.items,
            "input_tokens": span.tokens.input,
            "output_tokens": span.tokens.output,
            "attributes": kept or None,
            "children": [plain(child) for child in span.children] or None,
        }
        present = {key: value for key, value in said.items() if value is not None}
        return {"name": span.name, **identity, **present}

    return [plain(span) for span in spans if span.parent is None]
