"""`agenttrace view`: a local web page that shows runs as they happen."""

from __future__ import annotations

import contextlib
import json
import threading
import webbrowser
from typing import TYPE_CHECKING

import click

from agenttrace.cli.endless import ended_by_sigterm
from agenttrace.cli.group import CannotBeginError, json_option, state_dir_option
from agenttrace.view import Runs, Server

if TYPE_CHECKING:
    from pathlib import Path

_LAST_PORT = 65_535


@click.command(
    name="view",
    epilog="Exit codes: 0 ended by Ctrl-C or SIGTERM, 2 it could not begin.",
)
@click.option(
    "--port",
    type=click.IntRange(0, _LAST_PORT),
    default=0,
    metavar="N",
    help="Port on loopback.  [default: one that is free]",
)
@click.option("--no-open", is_flag=True, help="Do not open a browser.")
@json_option("Print the address as JSON, and do not open a browser.")
@state_dir_option
def command(*, port: int, no_open: bool, as_json: bool, state_dir: Path) -> None:
    """Show runs in a browser, as they happen, until Ctrl-C.

    The list of runs with what each came to, and for each its steps on a time line: how
    long each took, which are open, how long those have been silent and how close that
    is to their limit; and where a step hangs that was judged to be stuck.

    It reads the embedded store and the journals, and asks nobody.  The page is served
    on loopback, to whoever has the address: the token in it is new each time.

    With --json: one object, {"address": "http://127.0.0.1:..."}.
    """
    try:
        server = Server(Runs(state_dir), port)
    except OSError as error:
        message = f"Port {port} cannot be used: {error.strerror or error}"
        raise CannotBeginError(message) from None
    with contextlib.suppress(KeyboardInterrupt), ended_by_sigterm(), server:
        if as_json:
            click.echo(json.dumps({"address": server.address}))
        else:
            click.echo(f"Runs of {state_dir}: {server.address}")
            click.echo("Ctrl-C ends it.")
            if not no_open:
                # A browser of the terminal's would keep us from answering it.
                threading.Thread(
                    target=webbrowser.open, args=(server.address,), daemon=True
                ).start()
        server.serve_forever()
