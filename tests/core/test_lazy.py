"""A package that imports its names late has each of them, once, and no others."""

from __future__ import annotations

import importlib
import sys

import pytest

from agenttrace.lazy import exports


def test_a_name_is_imported_when_it_is_asked_for_and_kept() -> None:
    """It is asked for as often as a caller likes: the second time costs nothing."""
    get = exports("agenttrace", {"Outcome": "model"})

    found = get("Outcome")

    assert found is importlib.import_module("agenttrace.model").Outcome
    assert vars(sys.modules["agenttrace"])["Outcome"] is found


@pytest.mark.parametrize("name", ["agenttrace", "agenttrace.journal"])
def test_a_name_that_is_nowhere_is_told_as_python_tells_it(name: str) -> None:
    """`hasattr` and `from ... import` go by it."""
    module = importlib.import_module(name)

    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'no'"):
        _ = module.no
