"""The hang report: where an open span hangs, why, and who waits for whom.

It is made on a thread of ours, when a verdict asks for it: of the process as it is at
that moment, also while an event loop is blocked.  It says where code stands and never
what its variables hold.  Everything in it is bounded.

This module owns the report and its two forms, attributes and text, and what of it is
told of a span that no rule was broken for (`Whereabouts`).  It is imported, with all
beneath it, when the first report is made, and not before:

    report -> investigation, owners -> finding, upstream -> chains, tasks
           -> threads, causes -> frames
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from agenttrace import clock, safety, semconv
from agenttrace.watchdog.causes import Cause
from agenttrace.watchdog.finding import Finding
from agenttrace.watchdog.frames import Whose, innermost, read_sources
from agenttrace.watchdog.investigation import BUDGET, Investigation
from agenttrace.watchdog.owners import Owners

if TYPE_CHECKING:
    from agenttrace.registry import OpenSpan
    from agenttrace.watchdog.finding import Link
    from agenttrace.watchdog.frames import Frame
    from agenttrace.watchdog.tasks import Task

MAX_TEXT: Final = 16_000
"""Characters of the longest value, and of the report as text."""
_MAX_NOTE: Final = 200
_MAX_PATH: Final = 500
_MAX_ABOVE: Final = 4
"""How many ancestors are asked for the application's part in a hang."""

Scalar = str | int | float | bool


class Whereabouts:
    """Where an open span is, and what it waits for.

    Attributes:
        name, operation: The span's.
        path: The names from the outermost open ancestor down to it.
        trace_id, span_id: In hex.
        made_at: When it was looked at, nanoseconds since the epoch.
        last_heartbeat: When the span last showed progress, nanoseconds since the epoch.
        note, progress: What its last `heartbeat()` said, None where it said nothing.
        cause: Why it does not go on: one of `Cause`, `network_wait` and the like.
        why: The same in words.
        where: The line it is in: the innermost that the application has a part in.
        links: The tasks and threads that wait one for the other, from the span's own
            to the last, each with its stack.
        is_left: Whether no step of it is under way: of a stream, that nobody waits
            for it.
        certain: Whether the first of *links* is known to be the span's own.  It is not
            for a span that is current nowhere; then its parent's are shown.
    """

    __slots__ = (
        *("cause", "certain", "is_left", "last_heartbeat", "links", "made_at", "name"),
        *("note", "operation", "path", "progress", "span_id", "trace_id", "where"),
        "why",
    )

    def __init__(self, span: OpenSpan, now: int) -> None:
        self.name = span.name
        self.operation = span.operation
        self.path = span.path()[-_MAX_PATH:]
        self.trace_id = span.trace_id.hex()
        self.span_id = span.span_id.hex()
        self.made_at = now
        self.last_heartbeat = span.last_beat
        self.note = None if span.note is None else str(span.note)[:_MAX_NOTE]
        self.progress = span.progress
        self.cause: Cause = Cause.UNKNOWN
        self.why = "nothing could be found out"
        self.where: Frame | None = None
        self.links: list[Link] = []
        self.certain = False
        self.is_left = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}: {self.cause} in {self.where}>"

    @property
    def frames(self) -> list[Frame]:
        """All frames of all its stacks."""
        return [frame for link in self.links for frame in link.frames]

    def found(self, finding: Finding, *, certain: bool) -> None:
        """Take what an investigation has found; source lines are not read yet."""
        self.cause = finding.cause
        self.why = finding.why
        self.links = finding.links
        self.certain = certain
        self.where = innermost(self.frames)

    def waits_for(self) -> str:
        """Return who waits for whom, in one line."""
        return " -> ".join(str(link) for link in self.links)

    def stacktrace(self) -> str:
        """Return the stacks, one below the other, innermost line last."""
        lines: list[str] = []
        for link in self.links:
            lines.append(f"{link}:")
            for frame in link.frames:
                lines.append(
                    f'  File "{frame.file}", line {frame.line}, in {frame.function}'
                )
                if frame.source:
                    lines.append(f"    {frame.source}")
        return _bounded("\n".join(lines))

    def lines(self, said: str = "") -> list[str]:
        """Return it for people, line by line, without the stacks.

        Args:
            said: What else there is to say of its last heartbeat.
        """
        lines = [f"  cause      {self.cause.value}: {self.why}"]
        if self.where is not None:
            lines.append(f"  in         {self.where}")
            if self.where.source:
                lines.append(f"             {self.where.source}")
        if len(self.links) > 1:
            lines.append(f"  waits for  {self.waits_for()}")
        lines.append(f"  heartbeat  {clock.iso(self.last_heartbeat)}{said}")
        lines.append(f"  span       {self.span_id} of trace {self.trace_id}")
        if not self.certain:
            lines.append("  It is not certain that this is the span's own stack.")
        return lines


class HangReport(Whereabouts):
    """Where a span hangs, and why: all that `Whereabouts` has, and these.

    Attributes:
        rule: The name of the rule that was broken.
        idle: Seconds without a sign of progress.
        limit: Seconds that the rule allows.
    """

    __slots__ = ("idle", "limit", "rule")

    def __init__(
        self, span: OpenSpan, *, idle: float, limit: float, rule: str, now: int
    ) -> None:
        super().__init__(span, now)
        self.rule = rule
        self.idle = idle
        self.limit = limit

    def attributes(self) -> dict[str, Scalar]:
        """Return the report as attributes of a span event."""
        values: dict[str, Scalar] = {
            semconv.HANG_CAUSE: self.cause.value,
            semconv.HANG_EXPLANATION: self.why,
            semconv.HANG_RULE: self.rule,
            semconv.HANG_IDLE: round(self.idle, 3),
            semconv.HANG_LIMIT: float(self.limit),
            semconv.HANG_CERTAIN: self.certain,
            semconv.LAST_HEARTBEAT: clock.iso(self.last_heartbeat),
        }
        if self.note is not None:
            values[semconv.HANG_NOTE] = self.note
        if self.progress is not None:
            values[semconv.HANG_PROGRESS] = float(self.progress)
        if self.where is not None:
            values[semconv.CODE_FUNCTION_NAME] = self.where.function
            values[semconv.CODE_FILE_PATH] = self.where.file
            values[semconv.CODE_LINE_NUMBER] = self.where.line
        if self.links:
            values[semconv.HANG_WAITS_FOR] = self.waits_for()
            values[semconv.CODE_STACKTRACE] = self.stacktrace()
        return values

    def text(self) -> str:
        """Return the report for people."""
        said = "" if self.progress is None else f", progress {self.progress:g}"
        if self.note is not None:
            said += f", note {self.note!r}"
        lines = [
            f"{self.path}: no progress for {self.idle:.1f} s",
            f"  rule       {self.rule}, limit {self.limit:g} s",
            *self.lines(said),
        ]
        return _bounded("\n".join([*lines, "", self.stacktrace()]))


def describe(
    span: OpenSpan, *, idle: float, limit: float, rule: str, now: int
) -> HangReport:
    """Return where *span* hangs, and why.

    For a thread of ours.  It takes a millisecond or two; up to 0.3 s more each where a
    loop is in the middle of a step, and where the step of a library is looked at from
    above; and 0.1 s where a source file does not come.

    Args:
        span: The record of an open span.
        idle: Seconds it has been without progress.
        limit: Seconds it may be.
        rule: The name of the rule that says so.
        now: Nanoseconds since the epoch.
    """
    report = HangReport(span, idle=idle, limit=limit, rule=rule, now=now)
    safety.guarded("hang report", _investigate, span, report)
    return report


def _investigate(span: OpenSpan, report: HangReport) -> None:
    investigation = Investigation()
    owners = Owners(investigation.stacks, investigation.tasks)
    owner = owners.owner_of(span)
    report.is_left = not owners.is_in_step(span, owner)
    finding, certain = investigation.explain(owner), owner.certain
    if owner.task is not None and not _tells_enough(finding):
        finding = _seen_from_above(span, finding, owners, owner.task)
    # Source files may take their time: nothing of the application's is held meanwhile.
    del investigation, owners, owner
    report.found(finding, certain=certain)
    read_sources(report.frames)


def _seen_from_above(
    span: OpenSpan, finding: Finding, owners: Owners, task: Task
) -> Finding:
    """Return *finding*, with those before it who wait for it, where it needs them.

    Libraries make their requests in tasks of their own, in which no line is the
    application's.  That one is in the task of a span above, which waits for them.
    """
    # A budget of its own, for all of them: the first look may have used up the other.
    deadline = time.monotonic() + BUDGET
    above = span.parent
    own = [str(link) for link in finding.links[-1:]]
    for _ in range(_MAX_ABOVE):
        if above is None or _tells_enough(finding):
            break
        waiting = owners.owner_of(above)
        above = above.parent
        for other in waiting.or_rather(task)[:_MAX_ABOVE]:
            found = Investigation(deadline).explain(other)
            if [str(link) for link in found.links[-1:]] == own:
                finding = Finding(finding.cause, finding.why, *found.links)
                break
    return finding


def _tells_enough(finding: Finding) -> bool:
    told = [frame for link in finding.links for frame in link.frames]
    where = innermost(told)
    return where is not None and where.whose >= Whose.LIBRARY


def _bounded(text: str) -> str:
    if len(text) <= MAX_TEXT:
        return text
    half = MAX_TEXT // 2 - 5
    return f"{text[:half]}\n...\n{text[-half:]}"
