"""`agenttrace recover`: what processes that died have left, delivered once."""

from __future__ import annotations

import json
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

import click

from agenttrace.cli.group import json_option, seconds_option, state_dir_option
from agenttrace.cli.recovered import found_as_json, left_of, sentences
from agenttrace.recovery import Recovered
from agenttrace.runtime.rescue import Rescue

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path
    from threading import Thread

INCOMPLETE: Final = 1
"""Exit code where something could not be delivered or taken over."""
INTERRUPTED: Final = 130
"""Exit code after Ctrl-C, as shells have it."""
_PATIENCE: Final = 30.0
_BEAT: Final = 0.1
"""Seconds between two looks at how far it is."""
_LONG: Final = 1.0
"""Seconds after which a recovery is long enough for a progress bar."""


class _Draw(Protocol):
    """Shows how far it is."""

    def __call__(self, done: int, found: int, /) -> None:
        """Show that *done* of the spans that were *found* so far are settled."""
        ...


@click.command(
    name="recover",
    epilog="Exit codes: 0 all that was found is delivered, 1 something could not be "
    "delivered or taken over, 2 it could not begin, 130 interrupted.",
)
@seconds_option(
    "--timeout", "Give up after so long without progress.", least=0, usually=_PATIENCE
)
@json_option("Print one JSON object.")
@state_dir_option
@click.pass_context
def command(
    ctx: click.Context, *, timeout: float, as_json: bool, state_dir: Path
) -> None:
    """Deliver what processes that died have left, once.

    Spans that were open end as lost, when their process was last known to be alive,
    under their true parents.  What had ended, and was not acknowledged, is sent as it
    is.  Processes that live are left alone.

    Spans go where configure() would send them: to the OTLP endpoint of the environment,
    else to the embedded store.  What is not delivered stays on disk; applications do
    the same by themselves when they start.
    """
    with Rescue(state_dir) as rescue:
        interrupted = False
        try:
            with _progress() as draw:
                thread = _deliver(rescue, timeout, draw)
        except KeyboardInterrupt:
            interrupted = True
            thread = None
    if thread is not None:
        thread.join(_LONG)  # it has been told to stop, and has the last figures
    found, progress = rescue.found, rescue.progress()
    left = left_of(found, progress)
    if as_json:
        told = {
            "state_dir": str(state_dir),
            "destinations": list(rescue.destinations),
            **found_as_json(found),
            "delivered": progress.delivered,
            "refused": progress.refused,
            "left": left,
            "error": progress.error,
        }
        click.echo(json.dumps(told, indent=2))
    elif found == Recovered():
        click.echo(f"No process has died and left anything in {state_dir}.")
    else:
        for sentence in sentences(found, progress, rescue.whereto()):
            click.echo(sentence)
    if interrupted:
        click.echo("Interrupted.", err=True)
        ctx.exit(INTERRUPTED)
    if left or progress.refused or found.failed:
        ctx.exit(INCOMPLETE)


def _deliver(rescue: Rescue, timeout: float, draw: _Draw) -> Thread:
    """Wait until all that is found is settled, or for *timeout* without progress."""
    spans = 0

    def tell(total: Recovered) -> None:
        nonlocal spans
        spans = total.spans

    thread = rescue.look(tell)
    before, give_up_at = (-1, -1), 0.0
    while True:
        if thread.is_alive():
            thread.join(_BEAT)
        elif rescue.wait(_BEAT):
            return thread
        progress = rescue.progress()
        now = (spans, progress.delivered + progress.refused)
        draw(now[1], spans)
        if now != before:
            before, give_up_at = now, time.monotonic() + timeout
        elif time.monotonic() >= give_up_at:
            rescue.stop()
            return thread


@contextmanager
def _progress() -> Generator[_Draw]:
    """Yield what draws a bar, where stderr is a terminal, once it takes long."""
    if not sys.stderr.isatty():
        yield lambda _done, _found: None
        return
    from rich.console import Console  # noqa: PLC0415 - only where somebody looks
    from rich.progress import (  # noqa: PLC0415 - the same
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    bar = Progress(
        TextColumn("delivering spans"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task("", total=None)
    begun = time.monotonic()

    def draw(done: int, found: int) -> None:
        bar.update(task, completed=done, total=found)
        if time.monotonic() - begun > _LONG:
            bar.start()

    try:
        yield draw
    finally:
        bar.stop()
