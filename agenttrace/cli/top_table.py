"""Draws what `agenttrace top` shows, with rich.

Nothing is told by colour alone.  Text that comes from spans is never read as markup,
and its control characters do not reach the terminal.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from agenttrace.cli import drawn as drawn_on
from agenttrace.live import choose
from agenttrace.render import PIPE_WIDTH, badge, console, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from rich.console import Console, RenderableType

    from agenttrace.live import Picture, Process, Row, Step

_MAX_NAME: Final = 80
_MOST_LINES: Final = 1_000
"""Of one picture that is printed; JSON has all of it."""
_BAR: Final = 8
_WIDEST: Final = 120
"""Columns from which on a number would be far from what it is of."""
_FOR_BAR: Final = 70
"""Columns of a terminal from which on it has room for a bar."""
_FOR_AGE: Final = 50
_ABOVE_AND_BELOW: Final = 2
"""Lines that the heading and the titles take."""
_HALF, _NEARLY = 0.5, 0.8
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_SHORT: Final = 9.95
_MANY: Final = 100
"""Days, from which on hours are not told."""


def show(picture: Picture, state_dir: Path) -> None:
    """Print *picture* once."""
    on = console()
    on.print(_drawn(picture, state_dir, on, _MOST_LINES))


def screen(state_dir: Path) -> AbstractContextManager[Callable[[Picture], None]]:
    """Return what fills the terminal with a picture, over the one before."""

    def drawn(picture: Picture, on: Console) -> RenderableType:
        return _drawn(picture, state_dir, on, on.size.height, is_live=True)

    return drawn_on.screen(drawn)


def _drawn(
    picture: Picture,
    state_dir: Path,
    console: Console,
    lines: int,
    *,
    is_live: bool = False,
) -> RenderableType:
    above: list[RenderableType] = [_heading(picture, is_live=is_live)]
    above += _notices(picture)
    if not picture.processes:
        above.append(Text(f"No process to show in {state_dir}.", "dim"))
        return Group(*above)
    rows = choose(picture.processes, max(1, lines - len(above) - 1))
    width = console.width
    return Group(*above, _table(rows, width, ascii_only=console.options.ascii_only))


def _heading(picture: Picture, *, is_live: bool) -> Text:
    processes = picture.processes
    steps = sum(len(each.forest.steps) for each in processes)
    runs = sum(len(each.forest.tops) for each in processes)
    at = time.strftime("%H:%M:%S", time.localtime(picture.now / 1e9))
    line = Text(no_wrap=True, overflow="ellipsis").append(f"{at}  ", "dim")
    told = (
        _count(len(processes), "process", "processes"),
        _count(runs, "run", "runs"),
        _count(steps, "open step", "open steps"),
    )
    line.append(", ".join(told), "bold")
    for number, what in (
        (sum(each.forest.judged for each in processes), "judged"),
        (sum(each.forest.past_limit for each in processes), "past limit"),
        (sum(each.is_frozen for each in processes), "frozen"),
    ):
        if number:
            line.append(f", {number:,} {what}", "bold red")
    if is_live:
        line.append("   q quits", "dim")
    return line


def _notices(picture: Picture) -> list[Text]:
    said: list[Text] = []
    if picture.dead:
        number = _count(len(picture.dead), "process has", "processes have")
        left = _count(
            sum(each.open for each in picture.dead), "open step", "open steps"
        )
        said.append(Text(f"{number} died with {left}: agenttrace recover tells them."))
    if picture.unreadable:
        first = picture.unreadable[0]
        number = _count(len(picture.unreadable), "process", "processes")
        who = first.instance if first.pid is None else f"pid {first.pid}"
        said.append(Text(f"{number} cannot be read ({who}: {plain(first.reason)})."))
    for line in said:
        line.stylize("yellow")
        line.no_wrap, line.overflow = True, "ellipsis"
    return said


def _table(rows: Sequence[Row], width: int, *, ascii_only: bool) -> Table:
    fills = width < PIPE_WIDTH
    table = Table(
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        width=min(width, _WIDEST) if fills else None,
        header_style="dim",
    )
    has_age, has_bar = width >= _FOR_AGE, width >= _FOR_BAR
    table.add_column("step", ratio=1 if fills else None, no_wrap=True)
    if has_age:
        table.add_column("open", justify="right", no_wrap=True)
    table.add_column("idle", justify="right", no_wrap=True)
    if has_bar:
        table.add_column("", width=_BAR, no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in rows:
        cells = _cells(row, width // 3, ascii_only=ascii_only)
        first, age, idle, bar, state = cells
        table.add_row(
            first, *([age] if has_age else []), idle, *([bar] if has_bar else []), state
        )
    return table


def _cells(row: Row, indent: int, *, ascii_only: bool) -> tuple[Text, ...]:
    none = Text()
    if row.process is None:
        more = _count(row.processes, "more process", "more processes")
        steps = _count(row.steps, "open step", "open steps")
        return Text(f"and {more} with {steps}", "dim"), none, none, none, none
    if row.step is None:
        line = _rest(row, ascii_only=ascii_only) if row.steps else _line(row.process)
        return line, none, none, none, none
    step = row.step
    name = Text(_guides(row.guides, indent, ascii_only=ascii_only), "dim")
    if row.skipped:
        name.append("... " if ascii_only else "… ")
    name.append(plain(step.slot.name, _MAX_NAME) or "(no name)", _style(step))
    name.append(_details(step), "dim")
    return (
        name,
        Text(_of(step.age, step.max_duration)),
        Text(_of(step.idle, None if step.is_waiting else step.limit)),
        _bar(step, ascii_only=ascii_only),
        _state(step, ascii_only=ascii_only),
    )


def _line(process: Process) -> Text:
    line = Text(f"pid {process.pid}", "bold")
    if process.is_frozen:
        line.append(f"  frozen {short(process.silence)}", "bold red")
    if process.service is not None:
        line.append(f"  {plain(process.service, _MAX_NAME)}")
    if not process.forest.steps:
        line.append("  nothing open", "dim")
    return line


def _rest(row: Row, *, ascii_only: bool) -> Text:
    corner = "`- " if ascii_only else "└─ "
    return Text(f"{corner}and {row.steps:,} more", "dim")


def _guides(guides: Sequence[bool], most: int, *, ascii_only: bool) -> str:
    """Return what stands before a step to show where it belongs, cut at *most*."""
    through, fork, corner = (
        ("|  ", "|- ", "`- ") if ascii_only else ("│  ", "├─ ", "└─ ")
    )
    drawn = "".join(through if follows else "   " for follows in guides[:-1])
    drawn += fork if guides[-1] else corner
    if len(drawn) <= most:
        return drawn
    # So deep that there would be no room for its name.
    depth = f"{len(guides)} "
    return depth + drawn[-max(3, most - len(depth)) :]


def _details(step: Step) -> str:
    """Return what is known of it and not said by its name."""
    name = step.slot.name
    found = [
        plain(text, _MAX_NAME)
        for text in (step.agent, step.tool, step.model)
        if text is not None and text not in name
    ]
    return "".join(f"  {text}" for text in found)


def _style(step: Step) -> str:
    return "bold" if step.is_alarming else ""


def _bar(step: Step, *, ascii_only: bool) -> Text:
    pressure = step.pressure
    if pressure <= 0:
        return Text()
    full, rest = "#." if ascii_only else "━─"
    filled = min(_BAR, math.floor(min(pressure, 1.0) * _BAR))
    style = "green" if pressure < _HALF else "yellow" if pressure < _NEARLY else "red"
    return Text(full * filled, style).append(rest * (_BAR - filled), "dim")


def _state(step: Step, *, ascii_only: bool) -> Text:
    if step.is_judged:
        if step.verdict is None:
            return Text("judged", "bold red")
        return badge(step.verdict, ascii_only=ascii_only)
    if step.is_alarming:
        return Text("past limit", "bold red")
    return Text("waiting", "dim") if step.is_waiting else Text()


def _of(seconds: float, limit: float | None) -> str:
    return short(seconds) if limit is None else f"{short(seconds)}/{short(limit)}"


def short(seconds: float) -> str:
    """Return *seconds* in few characters, for a column.

    >>> [short(s) for s in (0.04, 9.9, 42.4, 65, 7500, 100_000)]
    ['0.0s', '9.9s', '42s', '1m05s', '2h05m', '1d03h']
    """
    if seconds < _SHORT:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m{whole % _MINUTE:02}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h{whole % _HOUR // _MINUTE:02}m"
    days, rest = divmod(whole, _DAY)
    return f"{days}d{rest // _HOUR:02}h" if days < _MANY else f"{days}d"


def _count(number: int, one: str, more: str) -> str:
    return f"{number:,} {one if number == 1 else more}"
