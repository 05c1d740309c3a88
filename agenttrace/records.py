"""`typing.NamedTuple`, at a tenth of what one costs to define.

That one compiles a constructor for each class, which takes 0.1 to 0.3 ms.  agenttrace
defines thirty before the first span can start, in every process, also in those that
trace nothing.  Type checkers see the original.

Instances are what they would be: tuples with names, compared, hashed, unpacked,
pickled and shown alike.  Making one takes twice as long, so the hot path makes none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from typing import NamedTuple
else:
    from collections import _tuplegetter  # where `collections.namedtuple` has it

    class _Named(type):
        """Makes of the annotations in a class's body the names of a tuple's items."""

        def __new__(cls, name: str, bases: tuple[type, ...], body: dict) -> type:
            fields = tuple(body.get("__annotations__", ()))
            defaults = {field: body[field] for field in fields if field in body}
            for index, field in enumerate(fields):
                body[field] = _tuplegetter(index, None)
            body["__slots__"] = ()
            body["__match_args__"] = body["_fields"] = fields
            body["_field_defaults"] = defaults
            return super().__new__(cls, name, bases, body)

    class NamedTuple(tuple, metaclass=_Named):  # noqa: SLOT001 - the metaclass does
        """A tuple whose items have the names of the class's annotations."""

        def __new__(cls, /, *values: object, **named: object) -> Self:
            """Return a tuple of the values, of defaults where there are none."""
            if named or len(values) != len(cls._fields):
                given = dict(zip(cls._fields, values, strict=False))
                known = {**cls._field_defaults, **given, **named}
                if (
                    len(values) > len(cls._fields)
                    or not named.keys().isdisjoint(given)
                    or known.keys() != set(cls._fields)
                ):
                    fields = ", ".join(cls._fields)
                    message = f"expected {cls.__name__}({fields}), other values given"
                    raise TypeError(message)
                values = [known[field] for field in cls._fields]
            return tuple.__new__(cls, values)

        def __repr__(self) -> str:
            told = (f"{name}={value!r}" for name, value in self._asdict().items())
            return f"{type(self).__name__}({', '.join(told)})"

        def __getnewargs__(self) -> tuple[object, ...]:
            return tuple(self)

        def _asdict(self) -> dict[str, object]:
            return dict(zip(self._fields, self, strict=True))

        def _replace(self, /, **named: object) -> Self:
            return type(self)(**{**self._asdict(), **named})


__all__ = ["NamedTuple"]
