"""`agenttrace dashboards DIR`: dashboards and rules, written there as files."""

from __future__ import annotations

import json
from pathlib import Path

import click

from agenttrace import dashboards
from agenttrace.cli.group import json_option


@click.command(
    name="dashboards",
    epilog="Exit codes: 0 all files are there, 1 they cannot be written, or would "
    "replace others.",
)
@click.argument(
    "directory", metavar="DIR", type=click.Path(file_okay=False, path_type=Path)
)
@click.option("--force", is_flag=True, help="Replace files that say something else.")
@json_option("Print one JSON object.")
def command(*, directory: Path, force: bool, as_json: bool) -> None:
    """Write Grafana dashboards and Prometheus rules below DIR.

    DIR/grafana gets three dashboards (overview, hang detection, one run), to be
    imported or provisioned; DIR/prometheus gets recording and alert rules, and unit
    tests of these for promtool.

    Files that are there and say something else are left alone, and then nothing is
    written, unless --force is given.
    """
    try:
        paths = dashboards.write(directory, overwrite=force)
    except dashboards.FilesExistError as error:
        message = f"{error}\nWith --force they are replaced."
        raise click.ClickException(message) from None
    except OSError as error:
        message = f"{error.filename} cannot be written: {error.strerror}"
        raise click.ClickException(message) from None
    if as_json:
        click.echo(json.dumps({"files": [str(path) for path in paths]}, indent=2))
    else:
        for path in paths:
            click.echo(path)
