"""Caches that cannot grow without end, however many different things pass through.

Both are emptied when they are full: what is in use comes back within one batch, and no
order of use has to be kept on the way.  Losing a race costs one computation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

K = TypeVar("K")
V = TypeVar("V")
Key = TypeVar("Key")

MAX_TEXT: Final = 64
"""Longer strings are not worth remembering: they seldom come twice."""
_MAX_OWNERS: Final = 64


class BoundedDict(dict[K, V]):
    """A dict that starts afresh when *capacity* entries have been remembered.

    A dict, so that asking it costs what asking a dict does.
    """

    __slots__ = ("_capacity",)

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self._capacity = capacity

    def remember(self, key: K, value: V) -> V:
        """Keep *value* under *key*, and return it."""
        if len(self) >= self._capacity:
            self.clear()
        self[key] = value
        return value


class PerObject(Generic[Key, V]):
    """What has been computed from an object, found again by the object's identity.

    For resources and scopes, which are immutable, few, shared by all spans, and not
    hashable.  The object is kept too: an id is only unique while its object lives.
    """

    __slots__ = ("_compute", "_known")

    def __init__(self, compute: Callable[[Key], V]) -> None:
        self._compute = compute
        self._known: dict[int, tuple[Key, V]] = {}

    def __len__(self) -> int:
        """Return how many objects are known."""
        return len(self._known)

    def __call__(self, owner: Key) -> V:
        """Return what belongs to *owner*, computed at most once while it is known."""
        known = self._known.get(id(owner))
        if known is not None:
            return known[1]
        value = self._compute(owner)
        if len(self._known) >= _MAX_OWNERS:
            self._known.clear()
        self._known[id(owner)] = (owner, value)
        return value
