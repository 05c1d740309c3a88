"""The command line: `agenttrace COMMAND`, one file per command.

Importing this needs nothing beyond the core, so that a missing extra is told in one
line instead of a traceback.  `group` holds what all commands share.
"""

from __future__ import annotations

import sys
from typing import Final

from agenttrace.errors import MissingExtraError

USAGE: Final = 2
"""Exit code of a command that could not even begin; 1 is each command's own."""
_OF_THE_EXTRA: Final = frozenset({"click", "rich"})


def main() -> int:
    """Run the command in `sys.argv` and exit, or return the exit code."""
    try:
        from agenttrace.cli.group import group  # noqa: PLC0415 - may be missing click

        group(prog_name="agenttrace")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _OF_THE_EXTRA:
            raise
        sys.stderr.write(f"Error: {MissingExtraError('The command line', 'cli')}\n")
        return USAGE
    return 0
