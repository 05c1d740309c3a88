"""The examples in docstrings are true."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

_PACKAGE = Path(__file__).parents[2] / "agenttrace"


def modules() -> list[str]:
    """Return the dotted name of every module of the checkout."""
    names = (
        ".".join(file.relative_to(_PACKAGE.parent).with_suffix("").parts)
        for file in _PACKAGE.rglob("*.py")
        if file.name != "__main__.py"
    )
    return sorted(name.removesuffix(".__init__") for name in names)


@pytest.mark.parametrize("name", modules())
def test_the_examples_of_a_module_hold(name: str) -> None:
    """They are its specification, and the first thing that is copied from it.

    That the module can be imported on its own is held by the way.
    """
    module = importlib.import_module(name)

    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS)

    assert result.failed == 0
