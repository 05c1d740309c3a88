"""What the tests of web frameworks are made of."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from agenttrace import semconv

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from opentelemetry.sdk.trace import ReadableSpan


def told(spans: Sequence[ReadableSpan], name: str) -> tuple[object, object, object]:
    """Return outcome, end and items of the one span called *name*."""
    attributes = one(spans, name).attributes or {}
    return (
        attributes[semconv.OUTCOME],
        attributes[semconv.ENDED_BY],
        attributes.get(semconv.ITEMS),
    )


def one(spans: Sequence[ReadableSpan], name: str) -> ReadableSpan:
    """Return the one span called *name*."""
    (span,) = [span for span in spans if span.name == name]
    return span


def parent_of(spans: Sequence[ReadableSpan], name: str) -> str | None:
    """Return the name of the span that *name* is a child of."""
    parent = one(spans, name).parent
    if parent is None:
        return None
    (above,) = [
        span.name
        for span in spans
        if span.context is not None and span.context.span_id == parent.span_id
    ]
    return above


@contextmanager
def no_collector() -> Generator[None]:
    """Keep cyclic garbage where it is, as a process does that is not busy."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def attribute(span: ReadableSpan, name: str) -> Any:  # noqa: ANN401 - any attribute
    """Return an attribute of *span*; None where it has no such one."""
    return (span.attributes or {}).get(name)
