"""Values of a metric's attributes, of which there can be only so many.

Each combination of values is a series that every reader and every backend keeps.  Names
of agents and models come from applications, which may make them up for every call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from agenttrace import semconv

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST: Final = 10_000
"""How many are remembered of what is soon of no use."""
_LONGEST: Final = 128
"""Characters of the longest value that is told."""
_USUAL: Final = 100
_MOST: Final = {
    semconv.GEN_AI_PROVIDER_NAME: 20,
    semconv.GEN_AI_OPERATION_NAME: 50,
}
"""Values of an attribute, where there are less than of others."""

Values = dict[str, str | int | bool]


class Bounded:
    """Remembers the values that each attribute has had, up to a number.

    Whatever comes later is told as `_OTHER`.
    """

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[str, set[object]] = {}

    def values(self, told: Iterable[tuple[str, object]]) -> Values:
        """Return as attributes what of *told* there is a value of.

        Args:
            told: Keys and values; None is none.
        """
        return {key: self.value(key, value) for key, value in told if value is not None}

    def value(self, key: str, value: object) -> str | int | bool:
        """Return what *value*, which is not None, is told as under *key*."""
        if isinstance(value, bool):
            return value
        known: str | int = value if isinstance(value, int) else str(value)[:_LONGEST]
        seen = self._seen.setdefault(key, {semconv.OTHER})
        if known not in seen:
            if len(seen) > _MOST.get(key, _USUAL):
                return semconv.OTHER
            seen.add(known)
        return known


def remember(known: dict[Any, Any], key: object, value: object) -> None:
    """Remember *value*, in the place of the oldest where there are too many."""
    if len(known) >= MOST:
        known.pop(next(iter(known)), None)
    known[key] = value
