"""`agenttrace top`: what is open now in every process, and how close to its limit."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Final

import click

from agenttrace.cli.endless import ended_by_sigterm
from agenttrace.cli.group import json_option, state_dir_option
from agenttrace.live import Live, picture_as_json

if TYPE_CHECKING:
    from pathlib import Path

    from agenttrace.cli.keyboard import Wait
    from agenttrace.cli.top_table import Draw
    from agenttrace.live import Picture

NOTHING: Final = 1
"""Exit code of `--once` where there was no process to show."""
_EVERY: Final = 0.25
_SHARE: Final = 4
"""How many times as long it rests as a look has taken: it is a guest on the machine."""


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
@click.option(
    "--every",
    type=click.FloatRange(min=0.05),
    default=_EVERY,
    show_default=True,
    metavar="SECONDS",
    help="How often to look.",
)
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
    if once or not (as_json or _is_screen()):
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
            _print_lines(view, every)
        else:
            _watch(view, state_dir, every)


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


def _is_screen() -> bool:
    from rich.console import Console  # noqa: PLC0415 - not needed for JSON

    return sys.stdout.isatty() and not Console().is_dumb_terminal


def _watch(view: _View, state_dir: Path, every: float) -> None:
    from agenttrace.cli import top_table  # noqa: PLC0415 - not needed for JSON
    from agenttrace.cli.keyboard import QUIT, keys  # noqa: PLC0415 - the same

    while True:
        with keys() as key, top_table.screen(state_dir) as draw:
            pressed = _draw_until_key(view, every, draw, key)
        if pressed == QUIT:
            return
        # With the terminal as the shell expects it, and not as it is while we draw.
        os.kill(os.getpid(), signal.SIGSTOP)


def _draw_until_key(view: _View, every: float, draw: Draw, key: Wait) -> str:
    """Draw what there is to see until a key is pressed that means something."""
    from agenttrace.cli.keyboard import QUIT, STOP  # noqa: PLC0415 - as above

    while True:
        begun = time.monotonic()
        draw(view.look())
        now = time.monotonic()
        look_at = now + _rest(every, now - begun)
        while (left := look_at - time.monotonic()) > 0:
            pressed = key(left).lower()
            if pressed in {QUIT, STOP}:
                return pressed


def _print_lines(view: _View, every: float) -> None:
    while True:
        begun = time.monotonic()
        click.echo(json.dumps(picture_as_json(view.look())))
        time.sleep(_rest(every, time.monotonic() - begun))


def _rest(every: float, taken: float) -> float:
    return max(every - taken, _SHARE * taken)
