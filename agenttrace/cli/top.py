"""`agenttrace top`: what is open now in every process, and how close to its limit."""

from __future__ import annotations

import contextlib
import json
from functools import partial
from typing import TYPE_CHECKING, Final

import click

from agenttrace.cli.endless import draw, ended_by_sigterm, is_screen, print_lines
from agenttrace.cli.group import json_option, seconds_option, state_dir_option
from agenttrace.live import Live, picture_as_json

if TYPE_CHECKING:
    from pathlib import Path

    from agenttrace.live import Picture

NOTHING: Final = 1
"""Exit code of `--once` where there was no process to show."""
_EVERY: Final = 0.25


@click.command(
    name="top",
    epilog="Exit codes: 0 ended by q, Ctrl-C or SIGTERM; with --once: 0 there was a "
    "process to show, 1 there was none; 2 wrong usage.",
)
@click.option("--once", is_flag=True, help="Print one picture, complete, and exit.")
@click.option("--service", metavar="NAME", help="Only processes of this service.")
@click.option(
    "--stuck-only",
    is_flag=True,
    help="Only runs with a step that was judged or has come to its limit, and "
    "processes that are frozen.",
)
@seconds_option("--every", "How often to look.", least=0.05, usually=_EVERY)
@json_option("Print one JSON object a line for each look; with --once, one object.")
@state_dir_option
@click.pass_context
def command(  # noqa: PLR0913 - one argument per option
    ctx: click.Context,
    *,
    once: bool,
    service: str | None,
    stuck_only: bool,
    every: float,
    as_json: bool,
    state_dir: Path,
) -> None:
    """Show what is open now in every process, the most urgent first.

    Each process with its runs, each run with its open steps: how long it has been open,
    how long it has shown no progress, and how close that is to the limit at which it
    is judged to be stuck.  A step that waits for another one is not judged.  A process
    is frozen when it has not ticked for 3 seconds, though it has a step open.

    It reads the journals and asks nobody, so a process that hangs is shown like any
    other.  A terminal is filled with what is most urgent, until q or Ctrl-C; anywhere
    else one picture is printed, as with --once.
    """
    view = _View(state_dir, service, stuck_only=stuck_only)
    if once or not (as_json or is_screen()):
        picture = view.look()
        if as_json:
            click.echo(json.dumps(picture_as_json(picture), indent=2))
        else:
            from agenttrace.cli import top_table  # noqa: PLC0415 - not needed for JSON

            top_table.show(picture, state_dir)
        if not picture.processes:
            ctx.exit(NOTHING)
        return
    with contextlib.suppress(KeyboardInterrupt), ended_by_sigterm():
        if as_json:
            print_lines(lambda: [picture_as_json(view.look())], every)
        else:
            from agenttrace.cli import top_table  # noqa: PLC0415 - not needed for JSON

            draw(view.look, partial(top_table.screen, state_dir), every)


class _View:
    """What was chosen of what there is to see."""

    def __init__(
        self, state_dir: Path, service: str | None, *, stuck_only: bool
    ) -> None:
        self._live = Live(state_dir)
        self._service = service
        self._stuck_only = stuck_only

    def look(self) -> Picture:
        """Return what there is to see now."""
        picture = self._live.look()
        processes, dead = picture.processes, picture.dead
        if self._service is not None:
            processes = [each for each in processes if each.service == self._service]
            dead = [each for each in dead if each.service == self._service]
        if self._stuck_only:
            processes = [each.stuck_only() for each in processes if not each.rank[0]]
        return picture._replace(processes=processes, dead=dead)
