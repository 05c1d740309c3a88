"""Starts agenttrace in a Python that finds this folder on its `PYTHONPATH`.

The interpreter imports one `sitecustomize`, the first on its path.  So this one goes
out of the way, has the application's own imported as if it had been found at once, and
then starts agenttrace: what that one sets up is there by then.

Any Python that a program starts may come here, so this file is for old ones as well,
and for environments that agenttrace is not installed in: those are told of in one line.
"""

import importlib
import os
import sys

_NAME = "sitecustomize"


def _go_out_of_the_way() -> None:
    """Leave path and modules as they would be without this file."""
    folder = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - nothing is to be imported
    sys.path[:] = [each for each in sys.path if each != folder]
    sys.path_importer_cache.pop(folder, None)
    sys.modules.pop(_NAME, None)


def _begin() -> None:
    """Start agenttrace, or say in one line why not."""
    try:
        from agenttrace.launch import begin  # noqa: PLC0415 - it may be missing
    # A SyntaxError is what an old Python says of a new package.
    except (ImportError, SyntaxError):
        if sys.stderr is not None:  # pyright: ignore[reportUnnecessaryComparison] - of a process without a console it is
            sys.stderr.write(
                f"agenttrace: this process is not traced: {sys.executable} has no "
                "agenttrace, or another version; pip install agenttrace-otel there\n"
            )
        return
    begin()


def _main() -> None:
    """Be the application's `sitecustomize`, then start agenttrace."""
    _go_out_of_the_way()
    failure = None
    try:
        importlib.import_module(_NAME)
    except BaseException as error:  # noqa: BLE001 - it is the interpreter's to tell, below
        failure = error
    _begin()
    if failure is not None:
        # Where there is no other one, the interpreter takes this for its usual "none".
        raise failure


if __name__ == _NAME:
    _main()
