"""`agenttrace tree`: the last runs of the embedded store, as trees or as JSON."""

from __future__ import annotations

import contextlib
import json
import sys
from functools import partial
from typing import TYPE_CHECKING, Final

import click

from agenttrace import render
from agenttrace.cli.endless import draw, ended_by_sigterm, is_screen, print_lines
from agenttrace.cli.group import json_option, state_dir_option
from agenttrace.cli.tree_watch import READ, Watch, screen
from agenttrace.delivery.store import FILE_NAME, Node, Reader, Run, build_forest
from agenttrace.delivery.store.as_json import nested, run_as_json, span_as_json
from agenttrace.model import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NOTHING: Final = 1
"""Exit code where there was nothing to show."""
_LAST: Final = 5
_EVERY: Final = 0.5
"""Seconds between two looks of `--watch`."""
_READ_PER_LIMIT: Final = 20
"""Spans that are read for each that is drawn: the most telling are chosen of these."""


@click.command(
    name="tree",
    epilog="Exit codes: 0 runs were found, or --watch was ended, 1 nothing was found, "
    "2 wrong usage.",
)
@click.argument("trace", required=False, metavar="[TRACE]")
@click.option(
    "--last",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"How many of the latest runs.  [default: {_LAST}]",
)
@click.option("--service", metavar="NAME", help="Only runs in which it took part.")
@click.option(
    "--outcome",
    type=click.Choice([outcome.value for outcome in Outcome]),
    help="Only runs in which a step ended so; ok: in which every step did.",
)
@click.option(
    "--watch",
    is_flag=True,
    help="Go on until q or Ctrl-C, and show what is open as well.",
)
@click.option("--all", "everything", is_flag=True, help="Draw every span of a run.")
@json_option(
    f"Print JSON, always complete; with --watch, of a run the first {READ:,} spans."
)
@state_dir_option
@click.pass_context
def command(  # noqa: PLR0913 - one argument per option
    ctx: click.Context,
    *,
    trace: str | None,
    last: int | None,
    service: str | None,
    outcome: str | None,
    watch: bool,
    everything: bool,
    as_json: bool,
    state_dir: Path,
) -> None:
    """Show the last runs as trees, the newest at the bottom.

    TRACE is the beginning of a trace id and shows that run alone.  Of a very large run
    the steps that did not end well are drawn first, and the rest is counted.

    With --json: a list of runs, the newest first, each with its nested spans.

    With --watch: what is open stands above what is over.  With --json, and where there
    is no terminal: a line of JSON for each run whenever something of it has begun or
    ended.
    """
    if trace is not None and (last, service, outcome) != (None, None, None):
        message = (
            "TRACE names one run: --last, --service and --outcome do not go with it."
        )
        raise click.UsageError(message)
    if trace is not None and not trace.strip():
        # Most likely a shell variable that is not set.
        message = (
            "TRACE is empty: give the beginning of a trace id, or leave it out for the "
            "last runs."
        )
        raise click.UsageError(message)
    if watch and everything:
        message = "--all does not go with --watch, which draws what fits the screen."
        raise click.UsageError(message)
    most = min(last or _LAST, sys.maxsize)  # SQLite's integers end there
    chosen = Outcome(outcome) if outcome else None
    if watch:
        watched = Watch(state_dir, most, trace=trace, service=service, outcome=chosen)
        with contextlib.suppress(KeyboardInterrupt), ended_by_sigterm():
            if as_json or not is_screen():
                print_lines(watched.changed, _EVERY)
            else:
                draw(watched.look, partial(screen, state_dir), _EVERY)
        return
    reader = Reader(state_dir / FILE_NAME)
    if trace is not None:
        found = reader.run(trace)
        runs = [found] if found else []
    else:
        runs = reader.runs(most, service=service, outcome=chosen)
    if as_json:
        _print_json(reader, runs)
    else:
        _print_trees(reader, runs, limit=None if everything else render.LIMIT)
    if not runs:
        narrowed = service is not None or outcome is not None
        click.echo(_why_nothing(reader, trace, chosen=narrowed), err=True)
        ctx.exit(NOTHING)


def _why_nothing(reader: Reader, trace: str | None, *, chosen: bool) -> str:
    if reader.runs(1):
        if trace is not None:
            return f"No run in {reader.path} has a trace id that begins with {trace!r}."
        if chosen:
            return f"No run in {reader.path} is like that."
    return (
        f"No runs yet in {reader.path}. Run `agenttrace demo`, or call "
        "agenttrace.configure() in your application without an OTLP endpoint."
    )


def _print_trees(reader: Reader, runs: Sequence[Run], *, limit: int | None) -> None:
    console = render.console()
    ascii_only = console.options.ascii_only
    for index, run in enumerate(reversed(runs)):
        to_read = None if limit is None else limit * _READ_PER_LIMIT
        forest = build_forest(reader.spans(run.trace_id, limit=to_read))
        if index:
            console.print()
        console.print(
            render.render(forest, run=run, limit=limit, ascii_only=ascii_only)
        )
        unread = 0 if to_read is None else run.spans - to_read
        if not forest:
            # A writer with little room may evict a run while we look.
            console.print("No span to show: newer runs took their place, or damage.")
        elif unread > 0:
            console.print(f"{unread:,} more spans were not read: --all shows them.")


def _print_json(reader: Reader, runs: Sequence[Run]) -> None:
    told = [_run_as_json(run, build_forest(reader.spans(run.trace_id))) for run in runs]
    click.echo(json.dumps(told, indent=2, allow_nan=False))


def _run_as_json(run: Run, forest: Sequence[Node]) -> dict[str, object]:
    return {**run_as_json(run), "spans": nested(forest, span_as_json)}
