"""`agenttrace run`: a program traced without a change of its code.

Options become the variables that they stand for; what is run, and how, is `launch`'s.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import click
from click.core import ParameterSource

from agenttrace.cli.group import state_dir_option
from agenttrace.errors import UnknownInstrumentationError
from agenttrace.instrumentation import uninstrument
from agenttrace.launch import NO_INSTRUMENT_VARIABLE, named, program, tell
from agenttrace.settings import STATE_DIR_VARIABLE, resolve, variable_of

if TYPE_CHECKING:
    from pathlib import Path

_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_TRACES_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"


@click.command(
    name="run",
    # What comes after the program is its own, options and all.
    context_settings={"allow_interspersed_args": False},
    epilog="Exit codes: the program's own; 2 it was not begun, for an option or a "
    "setting that cannot be meant, 126 it cannot be executed, 127 it was not found.",
)
@click.option(
    "-m", "is_module", is_flag=True, help="APP is a module, as for `python -m`."
)
@click.option("--service-name", metavar="NAME", help="`service.name` of every span.")
@click.option(
    "--endpoint", metavar="URL", help="Send spans there by OTLP, not to the store."
)
@click.option(
    "--capture-content",
    is_flag=True,
    help="Capture prompts, outputs, arguments and results.",
)
@click.option(
    "--on-stuck",
    type=click.Choice(["off", "observe", "warn", "fail", "cancel"]),
    help="What becomes of a step that makes no progress.",
)
@click.option(
    "--no-instrument",
    "left_out",
    multiple=True,
    metavar="NAME",
    help="Leave this library alone, by the name of its distribution; may be repeated.",
)
@state_dir_option
@click.argument("app")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARGS]...")
@click.pass_context
def command(  # noqa: PLR0913 - one for each option
    ctx: click.Context,
    *,
    is_module: bool,
    service_name: str | None,
    endpoint: str | None,
    capture_content: bool,
    on_stuck: str | None,
    left_out: tuple[str, ...],
    state_dir: Path,
    app: str,
    arguments: tuple[str, ...],
) -> None:
    """Run a program and trace it, without a change of its code.

    APP is a program that a shell would find (uvicorn, gunicorn, celery, python), a
    Python file, or with -m a module.  It is traced as if its first lines were
    agenttrace.configure() and agenttrace.instrument(), and so is every Python that it
    starts: workers, reloaders, subprocesses.

    It takes the place of this process: signals, the terminal and the exit code are its
    own.  (On Windows this process waits for it.)  Options here come before APP, and
    those after it are APP's.  All settings are variables as well, AGENTTRACE_* and
    OTEL_*.
    """
    if endpoint is not None and not endpoint.strip():
        # Most likely a shell variable that is not set; the store would be taken.
        message = "--endpoint is empty: give a URL, or leave it out for the store."
        raise click.UsageError(message)
    said: dict[str, str | None] = {
        variable_of("service_name"): service_name,
        _ENDPOINT: endpoint,
        variable_of("capture_content"): "true" if capture_content else None,
        variable_of("on_stuck"): on_stuck,
    }
    if ctx.get_parameter_source("state_dir") is not ParameterSource.DEFAULT:
        said[STATE_DIR_VARIABLE] = str(state_dir)
    if left_out:
        said[NO_INSTRUMENT_VARIABLE] = ",".join(left_out)
    environ = {**os.environ, **{name: text for name, text in said.items() if text}}
    if endpoint is not None:
        environ.pop(_TRACES_ENDPOINT, None)  # it would go before what is said here
    _check(environ)
    try:
        run = program.module if is_module else program.program
        chosen = run(app, arguments)
        why = program.deafness(chosen)
        if why is not None:
            tell(f"{app}: {why}; leave that option out")
        program.hand_over(chosen, program.environment(environ, chosen.name))
    except program.CannotRunError as error:
        click.echo(f"Error: {error}", err=True)
        ctx.exit(error.code)


def _check(environ: dict[str, str]) -> None:
    """Refuse what each process would only complain of.

    Raises:
        SettingError: A setting cannot be meant.
        UsageError: A library is to be left alone that is none.
    """
    resolve({}, environ)
    names = named(environ)
    try:
        if names:
            uninstrument(*names)  # in this process there is nothing to undo
    except UnknownInstrumentationError as error:
        message = f"--no-instrument, {NO_INSTRUMENT_VARIABLE}: {error}"
        raise click.UsageError(message) from None
