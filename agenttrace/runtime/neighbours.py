"""Notices other distributions that install a folder of our name.

Two on the package index do.  Whoever comes later overwrites files of whoever was there,
and what is imported then is half of each.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Final

from agenttrace import safety

OURS: Final = "agenttrace-otel"
_FOREIGN: Final = re.compile(r"(agenttrace|agenttrace[-_]sdk)-[^-]+\.dist-info")


def foreign_distributions(folder: Path | None = None) -> list[str]:
    """Return the names of other distributions that write where this package is.

    Looks at names of files only: asking `importlib.metadata` costs more than all else
    that `configure()` does.

    Args:
        folder: Where distributions are installed; None means where this package is.
    """
    folder = folder or Path(__file__).parents[2]
    try:
        names = [each.name for each in folder.iterdir()]
    except OSError:
        return []
    return sorted({found[1] for name in names if (found := _FOREIGN.fullmatch(name))})


def warn_of_foreign_distributions() -> None:
    """Log once which other distributions there are, and the remedy."""
    for name in foreign_distributions():
        safety.log_once(
            f"foreign distribution {name}",
            logging.WARNING,
            "The distribution %s is installed too and writes into the same folder as "
            "%s. Remedy: pip uninstall %s, then pip install --force-reinstall %s",
            name,
            OURS,
            name,
            OURS,
        )
