"""Makes the tables of `docs/reference/conformance.md` of what was found.  Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tests.peers.subject import PEERS

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator, Mapping

BEGIN: Final = "<!-- written by python -m tests.peers --write -->"
END: Final = "<!-- until here -->"
AS_ERROR: Final = "a cancellation has the status ERROR"
_TRUTH: Final = "a span says how it ended"
_AS_ERROR: Final = "has the status ERROR: it was cancelled"


def broken(calls: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return the cases in which each promise was broken, over all calls, and how.

    A cancellation with the status ERROR is counted by itself: that it is none is a
    convention of ours.
    """
    found: dict[str, dict[str, str]] = {}
    for call, told in calls.items():
        for promise, complaints in told["broken"].items():
            for complaint in complaints:
                case, _, what = complaint.partition(": ")
                said = AS_ERROR if _AS_ERROR in what else promise
                first, *_ = what.splitlines()
                cases = found.setdefault(said, {})
                cases.setdefault(f"`{call}` {case}", first.rstrip(":"))
    return found


def page_part(found: Mapping[str, Any], date: dt.date) -> str:
    """Return what stands between the two marks of the page."""
    return "\n".join([BEGIN, "", *_lines(found, date), "", END])


def with_part(page: str, part: str) -> str:
    """Return *page* with *part* in its place.

    Raises:
        ValueError: The page has no such place.
    """
    before, _, rest = page.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        message = f"the page has no {BEGIN!r} before an {END!r}"
        raise ValueError(message)
    return before + part + after


def _lines(found: Mapping[str, Any], date: dt.date) -> Iterator[str]:
    ran = {name: each for name, each in found.items() if "calls" in each}
    calls = list(dict.fromkeys(call for each in ran.values() for call in each["calls"]))
    versions: dict[str, str] = {}
    for each in ran.values():
        versions = versions or each["versions"]
    about = [f"{key} {value}" for key, value in versions.items()][1:]
    yield f"Examined on {date.isoformat()}, with {' and '.join(about)}."
    yield ""
    yield "Cases in which a promise was broken, of those that were played:"
    yield ""
    yield _row("instrumentation", "version", *(f"`{call}`" for call in calls))
    yield _row(*["---"] * (2 + len(calls)))
    for name, each in found.items():
        if "calls" not in each:
            why = f"not run: `{each['failed']}`"
            yield _row(PEERS[name].title, "-", why, *["-"] * (len(calls) - 1))
            continue
        told = [each["calls"].get(call) for call in calls]
        cells = [f"{it['failed']} of {it['cases']}" if it else "-" for it in told]
        yield _row(PEERS[name].title, each["versions"][PEERS[name].package], *cells)
    by_promise = {name: broken(each["calls"]) for name, each in ran.items()}
    promises = list(dict.fromkeys(it for each in by_promise.values() for it in each))
    yield ""
    yield "The promises that were broken, and in how many cases:"
    yield ""
    yield _row("instrumentation", *promises)
    yield _row(*["---"] * (1 + len(promises)))
    for name, each in by_promise.items():
        yield _row(PEERS[name].title, *(str(len(each.get(it, ()))) for it in promises))
    yield ""
    yield "The first case of each:"
    yield ""
    for name, each in by_promise.items():
        for promise, cases in each.items():
            case, what = next(iter(cases.items()))
            yield f"- {PEERS[name].title}, *{promise}*: {case}: {what}"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
