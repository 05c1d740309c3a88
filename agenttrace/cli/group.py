"""The group `agenttrace`: finds commands by name, and imports only the one that runs.

It owns what is common to them: the version, how errors of agenttrace are told, and the
options that several share.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Final, TypeVar

import click

from agenttrace import __version__
from agenttrace.cli import USAGE
from agenttrace.errors import AgenttraceError, MissingExtraError, SettingError
from agenttrace.settings import STATE_DIR_VARIABLE, state_dir

if TYPE_CHECKING:
    from pathlib import Path

F = TypeVar("F", bound=Callable[..., object])

COMMANDS: Final = {
    "dashboards": "Write Grafana dashboards and Prometheus rules.",
    "demo": "Watch eight runs go well and wrong, and every span arrive.",
    "doctor": "Check whether spans are kept and delivered here.",
    "guard": "Stay, and deliver what processes leave when they die.",
    "recover": "Deliver what processes that died have left, once.",
    "run": "Trace a program without a change of its code.",
    "top": "Show what is open now, the most urgent first.",
    "tree": "Show the last runs as trees.",
    "view": "Show runs in a browser, as they happen.",
    "where": "Show the stack of an open span of a running process.",
}
"""Every command and its short help, so that `--help` imports none of them.

The command NAME is the object `command` in `agenttrace.cli.NAME`.
"""


_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class CannotBeginError(click.ClickException):
    """The command was not even begun."""

    exit_code = USAGE


class LazyGroup(click.Group):
    """A group whose commands are imported when they are run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of `COMMANDS`."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command *cmd_name*, None if there is none."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"agenttrace.cli.{cmd_name}").command
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; what agenttrace raises on purpose is told in one line."""
        try:
            result: object = super().invoke(ctx)
        except AgenttraceError as error:
            if isinstance(error, SettingError | MissingExtraError):
                raise CannotBeginError(str(error)) from None
            raise click.ClickException(str(error)) from None
        except OSError as error:
            # The store's errors are told by the commands: this is a redirected output.
            if error.errno not in _NO_ROOM:
                raise
            message = f"The output cannot be written: {error.strerror}"
            raise click.ClickException(message) from None
        return result

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write the list of commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _print_version(ctx: click.Context, _param: click.Parameter, asked: bool) -> None:  # noqa: FBT001 - click's signature
    if asked and not ctx.resilient_parsing:
        click.echo(f"agenttrace {__version__}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    name="agenttrace",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Show the version and exit.",
)
def group() -> None:
    """See what your agents did, and how every step of it ended."""


def json_option(meaning: str) -> Callable[[F], F]:
    """Add `--json`, which arrives as `as_json`.

    Args:
        meaning: What is printed then.
    """
    return click.option("--json", "as_json", is_flag=True, help=meaning)


def seconds_option(
    name: str, meaning: str, *, least: float, usually: float
) -> Callable[[F], F]:
    """Add an option in seconds, `name`.

    Args:
        name: With its dashes.
        meaning: What takes so long.
        least: The smallest that makes sense.
        usually: What it is where it is not given.
    """
    return click.option(
        name,
        type=click.FloatRange(min=least),
        default=usually,
        show_default=True,
        metavar="SECONDS",
        help=meaning,
    )


def state_dir_option(function: F) -> F:
    """Add `--state-dir`, which arrives as an absolute `Path`."""

    def resolve(
        _ctx: click.Context, _param: click.Parameter, value: str | None
    ) -> Path:
        return state_dir(value)

    return click.option(
        "--state-dir",
        metavar="DIR",
        callback=resolve,
        help=f"Where agenttrace keeps its files.  [default: {STATE_DIR_VARIABLE}, or "
        "agenttrace in $XDG_STATE_HOME]",
    )(function)
