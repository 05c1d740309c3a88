"""Holds what a receiver has of one program against what the program declares.

Pure: it is given spans, and returns complaints.  How they came is `running`'s business.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from agenttrace import semconv
from tests.hangs import given
from tests.hangs.catalogue import Blocked, Healthy, Place, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.delivery.collector import Received

JUDGED: Final = frozenset({"stuck", "timed_out"})


def is_judged(span: Received) -> bool:
    """Return whether *span* was told as one that hangs."""
    by = span.attributes.get(semconv.ENDED_BY)
    return outcome_of(span) in JUDGED and by == "watchdog"


def outcome_of(span: Received) -> str:
    """Return how *span* is said to have ended."""
    return str(span.attributes.get(semconv.OUTCOME))


def report_of(span: Received) -> dict[str, Any]:
    """Return the hang report on *span*, empty where it has none."""
    reports = [dict(values) for name, values in span.events if name == semconv.HANG]
    return reports[0] if reports else {}


def passed_at(span: Received, expected: Verdict) -> float:
    """Return when the limit of *span* passed, in seconds since the epoch."""
    limit = float(report_of(span).get(semconv.HANG_LIMIT, 0.0))
    if expected.outcome == "timed_out":
        return span.start_time / 1e9 + limit
    last = datetime.fromisoformat(str(span.attributes[semconv.LAST_HEARTBEAT]))
    return last.timestamp() + limit


def of_hang(
    spans: Sequence[Received],
    expected: Verdict,
    place: Place | None,
    late: float | None,
) -> list[str]:
    """Return what is wrong with what was heard of a hang.

    Args:
        spans: All that came until the verdict.
        expected: The verdict.
        place: The line that is to be named.
        late: Seconds from the limit until it was there; None if it never was.
    """
    judged = [span for span in spans if is_judged(span)]
    wrong = [
        f"{span.name!r} was judged {outcome_of(span)}: {told(span)}"
        for span in judged
        if span.name != expected.span and span.name not in expected.also
    ]
    wrong += [
        f"late finish: {span.name}"
        for span in spans
        if semconv.LATE_FINISH in span.name
    ]
    found = [span for span in judged if span.name == expected.span]
    if not found or late is None:
        return [*wrong, f"no verdict on {expected.span!r}"]
    if late > expected.within:
        wrong.append(f"the verdict came {late:.1f} s after the limit")
    if len(found) > 1:
        wrong.append(f"{expected.span!r} was judged {len(found)} times")
    return wrong + _of_report(found[0], expected, place)


def _of_report(span: Received, expected: Verdict, place: Place | None) -> list[str]:
    report = report_of(span)
    told_kinds = tuple(
        link.partition(" ")[0]
        for link in str(report.get(semconv.HANG_WAITS_FOR, "")).split(" -> ")
    )
    pairs: dict[str, tuple[object, object]] = {
        "outcome": (outcome_of(span), expected.outcome),
        "cause": (report.get(semconv.HANG_CAUSE), expected.cause),
        "certain": (report.get(semconv.HANG_CERTAIN), expected.certain),
        "place": (_place_in(report), place),
    }
    if expected.kinds is not None:
        pairs["who waits"] = (told_kinds, expected.kinds)
    wrong = [
        f"{name}: {heard!r}, and not {meant!r}"
        for name, (heard, meant) in pairs.items()
        if heard != meant
    ]
    if expected.why not in str(report.get(semconv.HANG_EXPLANATION)):
        wrong.append(f"explanation without {expected.why!r}")
    return [*wrong, told(span)] if wrong else []


def real(spans: Sequence[Received]) -> list[Received]:
    """Leave the markers of spans that are open for long, as on a slow machine, out."""
    return [span for span in spans if semconv.MARKER not in span.attributes]


def of_block(spans: Sequence[Received], expected: Blocked, place: Place) -> list[str]:
    """Return what is wrong with what was heard of a loop that was blocked.

    Args:
        spans: All that came.
        expected: Which is to blame, and how long it was at least.
        place: The line that is to be named.
    """
    wrong = [f"{each.name!r} was judged" for each in spans if is_judged(each)]
    blamed = {each.span_id for each in spans if each.name == expected.span}
    blocks = [each for each in spans if each.name == semconv.LOOP_BLOCKED]
    if len(blocks) != 1:
        return [*wrong, f"{len(blocks)} blocked loops were told"]
    block = blocks[0]
    if block.parent_id not in blamed:
        wrong.append(f"it is not {expected.span!r} that is blamed")
    seconds = (block.end_time - block.start_time) / 1e9
    if seconds < expected.seconds:
        wrong.append(f"it lasted {seconds:.2f} s")
    if _place_in(block.attributes) != place:
        wrong.append(f"place: {_place_in(block.attributes)}, and not {place}")
    return wrong


def of_healthy(spans: Sequence[Received], expected: Healthy) -> list[str]:
    """Return what is wrong with what was heard of a healthy program."""
    wrong = [
        f"{span.name!r} is {outcome_of(span)}: {told(span)}"
        for span in spans
        if outcome_of(span) != "ok" and span.name != semconv.LOOP_BLOCKED
    ]
    wrong += [
        f"late finish: {span.name}"
        for span in spans
        if semconv.LATE_FINISH in span.name
    ]
    wrong += [
        f"a loop blocked for {(span.end_time - span.start_time) / 1e9:.2f} s "
        f"in {_place_in(span.attributes)}"
        for span in spans
        if span.name == semconv.LOOP_BLOCKED and not _is_of_the_set_up(span)
    ]
    if len(spans) < expected.spans:
        wrong.append(f"{len(spans)} spans came, and not {expected.spans}")
    return wrong


def _is_of_the_set_up(block: Received) -> bool:
    """Return whether a client was being made ready, before the program began.

    Its first request loads modules, and on a slow machine keeps the loop for as long as
    a block lasts.  That is told, and true.
    """
    place = _place_in(block.attributes)
    return place is not None and place.file == given.__file__


def told(span: Received) -> str:
    """Return what the hang report on *span* says, in one line."""
    report = report_of(span)
    return (
        f"{report.get(semconv.HANG_CAUSE)}: {report.get(semconv.HANG_EXPLANATION)} "
        f"[{report.get(semconv.HANG_WAITS_FOR)}] at {_place_in(report)}"
    )


def _place_in(values: Any) -> Place | None:  # noqa: ANN401 - attributes of any kind
    if semconv.CODE_FUNCTION_NAME not in values:
        return None
    return Place(
        str(values.get(semconv.CODE_FILE_PATH)),
        int(values.get(semconv.CODE_LINE_NUMBER, 0)),
        str(values[semconv.CODE_FUNCTION_NAME]).rpartition(".")[2],
    )
