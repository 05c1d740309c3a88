"""`agenttrace demo`: eight runs of a real application, and every span's account."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from agenttrace import demo
from agenttrace.cli.group import json_option, state_dir_option

if TYPE_CHECKING:
    from pathlib import Path

DOES_NOT_CLOSE: Final = 1
"""Exit code where a span is missing, or a run came to something else."""
INTERRUPTED: Final = 130
"""Exit code after Ctrl-C, as shells have it."""


@click.command(
    name="demo",
    epilog="Exit codes: 0 every span is accounted for, 1 one is not, 2 the demo could "
    "not begin, 130 interrupted.",
)
@click.option(
    "--live",
    metavar="MODEL",
    help="Ask this model, with OPENAI_API_KEY at OPENAI_BASE_URL, in place of the "
    "scripted one.  Plays only the runs that need no accident.",
)
@click.option(
    "--trace-url",
    metavar="TEMPLATE",
    help="Address of a trace where what the OTLP endpoint gets is shown, with "
    "{trace_id} in it: each run's is printed.  [default: "
    "http://HOST:16686/trace/{trace_id}, on the endpoint's host, if a Jaeger answers "
    "there that has the traces]",
)
@json_option("Print the account as JSON.")
@state_dir_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    live: str | None,
    trace_url: str | None,
    as_json: bool,
    state_dir: Path,
) -> None:
    """Watch eight runs go well and wrong, and every span arrive.

    A small support desk (FastAPI, the real openai client, the OpenAI Agents SDK) is
    driven through a run that finishes, a reader who leaves in the middle of a stream, a
    run that is cancelled, a stream that is cut, a request that is retried, a sub-agent
    that hangs, a tool that blocks the event loop, and a worker that is killed with
    SIGKILL.  Then the store is read back and compared with an independent count of what
    had started.

    The model is a scripted one on loopback: no question leaves this machine, unless
    --live says so.  Spans go to the store, where `agenttrace tree` shows them, and to
    an OTLP endpoint as well if one is set.  Where a Jaeger shows what that gets, it is
    asked how many spans it has of each run, and the links to the traces are printed.

    With --json: one object with the runs and the account.
    """
    demo.check_extra()
    # What it draws with comes with the extra, so only from here on.
    from agenttrace.demo.screen import Program, Terminal  # noqa: PLC0415

    screen = Program() if as_json else Terminal()
    try:
        played = demo.play(screen, state_dir, live=live, trace_url=trace_url)
        account = demo.close(played, screen)
    except KeyboardInterrupt:
        click.echo("\nInterrupted.", err=True)
        ctx.exit(INTERRUPTED)
    if not account.closes:
        ctx.exit(DOES_NOT_CLOSE)
