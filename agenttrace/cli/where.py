"""`agenttrace where`: the stack of an open span of a running process, now."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import click

from agenttrace import clock
from agenttrace.cli.asked import IDLE, OWES, told_of
from agenttrace.cli.group import json_option, seconds_option, state_dir_option
from agenttrace.live import Live
from agenttrace.live.wanted import AmbiguousError, find
from agenttrace.settings import INSTANCES

if TYPE_CHECKING:
    from pathlib import Path


NOTHING: Final = 1
"""Exit code where there was no stack to show: nothing is open, or nobody is there."""
SILENT: Final = 3
"""Exit code where a process has a span open and could not answer."""
_PATIENCE: Final = 1.0
_MOST_NAMED: Final = 10
_MOST_DIGITS: Final = 9
"""Of a process id."""
_NAME: Final = re.compile("[0-9a-fA-F]{1,32}")


@click.command(
    name="where",
    epilog="Exit codes: 0 a stack was shown, 1 there was none to show, 2 wrong usage, "
    "3 the process has a span open and did not answer.",
)
@click.argument("target", metavar="PID|SPAN")
@seconds_option(
    "--timeout",
    "How long the process may take to see the question.",
    least=0.1,
    usually=_PATIENCE,
)
@json_option("Print one JSON object.")
@state_dir_option
@click.pass_context
def command(
    ctx: click.Context, *, target: str, timeout: float, as_json: bool, state_dir: Path
) -> None:
    """Show where an open span is now: its stack, and what it waits for.

    PID is a process, and shows every span that is open in it, the deepest first.  SPAN
    is the beginning of a span id, and shows that one; or that of a trace id, and shows
    what is open of that run, in every process.

    The process is asked, and answers from a thread of its own, also while its event
    loop is blocked.  One that is stopped, or in which C code keeps the GIL, cannot;
    then it is said which, with the stacks that `gil_dump_after` has written if it is
    set.
    """
    if not _NAME.fullmatch(target):
        message = (
            f"{target!r} is neither a process id nor the beginning of a span id or "
            "trace id, in hexadecimal."
        )
        raise click.UsageError(message)
    directory = state_dir / INSTANCES
    live = Live(state_dir)
    try:
        wanted = find(live.look(), directory, target)
    except AmbiguousError as error:
        raise click.UsageError(_said_of(target, error)) from None
    told = [told_of(each, live, directory, timeout) for each in wanted]
    if as_json:
        said = {"time": clock.iso(time.time_ns()), "target": target, "processes": told}
        click.echo(json.dumps(said, indent=2))
    else:
        _print(told)
    if not told:
        click.echo(_why_nothing(target, directory), err=True)
    if any(each["steps"] for each in told):
        return
    ctx.exit(SILENT if any(each["state"] in OWES for each in told) else NOTHING)


def _said_of(target: str, error: AmbiguousError) -> str:
    named = "\n".join(f"  {each}" for each in map(_plain, error.found[:_MOST_NAMED]))
    more = len(error.found) - _MOST_NAMED
    rest = f"\n  and {more:,} more" if more > 0 else ""
    return f"Several ids begin with {target!r}: give more of one.\n{named}{rest}"


def _why_nothing(target: str, directory: Path) -> str:
    try:
        os.listdir(directory)  # noqa: PTH208 - only whether that can be done
    except FileNotFoundError:  # nobody has traced anything there
        pass
    except OSError as error:
        return f"{directory} cannot be read: {error.strerror}."
    if not target.isdecimal() or len(target) > _MOST_DIGITS:
        return f"No open span or run has an id that begins with {target!r}."
    try:
        if sys.platform != "win32":  # there it is no question, but Ctrl-C
            os.kill(int(target), 0)
    except (ProcessLookupError, OverflowError):
        return (
            f"There is no process {target}, and no open span or run has an id that "
            "begins so."
        )
    except PermissionError:
        return f"Process {target} is another user's: ask as that user."
    except OSError as error:
        return f"Nothing can be told of process {target}: {error.strerror}."
    return (
        f"Process {target} keeps no journal in {directory.parent}: it has not called "
        "agenttrace.configure(), or with durable=False, or has another state directory "
        "(--state-dir)."
    )


def _print(told: list[dict[str, Any]]) -> None:
    # A name that the terminal's encoding does not have must not end the command.
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
    for index, each in enumerate(told):
        if index:
            click.echo()
        service = f" ({_plain(each['service'])})" if each["service"] else ""
        who = f"process {each['pid'] or each['instances'][0]}{service}"
        if each["message"] is None:
            _print_steps(who, each)
        else:
            _print_reason(who, each)


def _print_steps(who: str, told: dict[str, Any]) -> None:
    number = "1 span" if told["open"] == 1 else f"{told['open']:,} spans"
    click.echo(f"{click.style(who, bold=True)}, {number} open")
    for step in told["steps"]:
        head, _, rest = str(step.get("text")).partition("\n")
        click.echo(f"\n{click.style(_plain(head), bold=True)}")
        _print_lines(rest)
        if step.get("stacktrace"):
            click.echo()
            _print_lines(str(step["stacktrace"]))
    if told["left_out"]:
        click.echo(f"\nand {told['left_out']:,} more: name one of them")


def _print_reason(who: str, told: dict[str, Any]) -> None:
    click.echo(f"{click.style(who, bold=True)}: {_plain(told['message'])}.")
    if told["state"] != IDLE:
        for path in told["paths"]:
            click.echo(f"  open       {_plain(path)}")
    if told["dump"] is not None:
        click.echo(f"\nIts stacks, written at {told['dump_time']}:\n")
        _print_lines(told["dump"])


def _print_lines(text: str) -> None:
    for line in text.splitlines():
        click.echo(_plain(line))


def _plain(text: object) -> str:
    """Return *text* as a terminal shows it and never obeys it."""
    return "".join(char if char.isprintable() else "?" for char in str(text))
