"""What a check says."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    """Works, and may cost spans one day."""
    PROBLEM = "problem"
    """Costs spans as it is."""


class Finding(NamedTuple):
    """One check.

    Args:
        check: What was looked at.
        level: How bad it is.
        message: What was found.
        remedy: What to do, empty where nothing need be.
    """

    check: str
    level: Level
    message: str
    remedy: str = ""


def ok(check: str, message: str) -> Finding:
    """Return that all is well."""
    return Finding(check, Level.OK, message)


def warning(check: str, message: str, remedy: str) -> Finding:
    """Return what may cost spans one day."""
    return Finding(check, Level.WARNING, message, remedy)


def problem(check: str, message: str, remedy: str) -> Finding:
    """Return what costs spans as it is."""
    return Finding(check, Level.PROBLEM, message, remedy)
