"""`agenttrace doctor`: whether spans are kept and delivered here, in one table."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Final

import click

from agenttrace.cli.group import json_option, seconds_option, state_dir_option
from agenttrace.diagnosis import Finding, Level, examine, examine_process

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

HAS_PROBLEM: Final = 1
"""Exit code where a check has found a problem."""
_PATIENCE: Final = 5.0
_STYLES: Final = {
    Level.OK: ("✓", "+", "green"),
    Level.WARNING: ("!", "!", "yellow"),
    Level.PROBLEM: ("✗", "x", "bold red"),
}


@click.command(
    name="doctor",
    epilog="Exit codes: 0 no problem (there may be warnings), 1 a problem, 2 wrong "
    "usage.",
)
@click.argument("pid", type=int, required=False)
@seconds_option(
    "--timeout", "Longest wait for a destination.", least=0.1, usually=_PATIENCE
)
@json_option("Print a list of the checks.")
@state_dir_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    pid: int | None,
    timeout: float,
    as_json: bool,
    state_dir: Path,
) -> None:
    """Check whether spans are kept and delivered here, and what goes wrong in PID.

    Run it as the user and in the environment of the application: it looks at the state
    directory (rights, locks, maps, room, file system), at the processes that have
    files in it, at the destination that the environment names, which is sent an empty
    request, and at what is installed.  It changes nothing, and recovers nobody.

    And it tells what the processes there have noticed of the applications in them:
    event loops that are blocked or nested, clients that several loops share, requests
    without a time-out.  With PID: what that process has noticed, and no more.
    """
    # What the parts would log is in the table.
    logging.getLogger("agenttrace").addHandler(logging.NullHandler())
    found = list(
        examine(state_dir, timeout=timeout)
        if pid is None
        else examine_process(state_dir, pid)
    )
    if as_json:
        click.echo(json.dumps([each._asdict() for each in found], indent=2))
    else:
        _print(found)
    if any(each.level is Level.PROBLEM for each in found):
        ctx.exit(HAS_PROBLEM)


def _print(found: Sequence[Finding]) -> None:
    from rich import box  # noqa: PLC0415 - not needed for JSON
    from rich.table import Table  # noqa: PLC0415 - the same
    from rich.text import Text  # noqa: PLC0415 - the same

    from agenttrace import render  # noqa: PLC0415 - the same

    console = render.console()
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for title in ("", "check", "found"):
        table.add_column(title)
    for each in found:
        sign, plain, style = _STYLES[each.level]
        message = Text(each.message)
        if each.remedy:
            message.append(f"\nRemedy: {each.remedy}", "dim")
        sign = plain if console.options.ascii_only else sign
        table.add_row(Text(f"{sign} {each.level}", style), each.check, message)
    console.print(table)
