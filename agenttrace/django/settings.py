"""The setting `AGENTTRACE` of a Django project: what it may say.

Names are those of `agenttrace.configure`, in capitals as Django's are; what they mean,
and which values are refused, is decided there.  `INSTRUMENT` is ours: the distributions
to trace.  Nothing is read from it but when Django starts.
"""

# Django brings no types.
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from django.core.exceptions import ImproperlyConfigured

INSTRUMENT: Final = "INSTRUMENT"


class Wanted(NamedTuple):
    """What a project asks for.

    Attributes:
        options: Arguments of `agenttrace.configure`.
        instrument: The distributions to trace, none of them meaning all; None = not
            any.
    """

    options: dict[str, Any]
    instrument: tuple[str, ...] | None


def wanted(setting: object, known: Sequence[str]) -> Wanted:
    """Return what *setting* says.

    Args:
        setting: The value of `AGENTTRACE`.
        known: The arguments of `agenttrace.configure`.

    Raises:
        ImproperlyConfigured: It is no dictionary, or has a name that there is not.
    """
    if not isinstance(setting, Mapping):
        message = f"AGENTTRACE must be a dictionary, not {type(setting).__name__}"
        raise ImproperlyConfigured(message)
    given = dict(cast("Mapping[str, Any]", setting))
    instrument = _names_of(given.pop(INSTRUMENT, True))
    allowed = {name.upper(): name for name in known}
    unknown = sorted(str(name) for name in given if name not in allowed)
    if unknown:
        message = (
            f"AGENTTRACE has {', '.join(unknown)}: must be of "
            f"{', '.join(sorted([*allowed, INSTRUMENT]))}"
        )
        raise ImproperlyConfigured(message)
    return Wanted({allowed[name]: value for name, value in given.items()}, instrument)


def _names_of(said: object) -> tuple[str, ...] | None:
    if said is True:
        return ()
    if said is False:
        return None
    if isinstance(said, list | tuple | set | frozenset):
        names = tuple(cast("Sequence[object]", said))
        if all(isinstance(name, str) for name in names):
            return cast("tuple[str, ...]", names) or None
    message = (
        f"AGENTTRACE[{INSTRUMENT!r}]={said!r}: must be True (all that is supported), "
        "False, or a list of distributions"
    )
    raise ImproperlyConfigured(message)
