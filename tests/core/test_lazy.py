"""A package that imports its names late has each of them, once, and no others."""

from __future__ import annotations

import importlib
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from agenttrace.lazy import exports

if TYPE_CHECKING:
    from collections.abc import Generator


def test_a_name_is_imported_when_it_is_asked_for_and_kept() -> None:
    """It is asked for as often as a caller likes: the second time costs nothing."""
    get = exports("agenttrace", {"Outcome": "model"})

    found = get("Outcome")

    assert found is importlib.import_module("agenttrace.model").Outcome
    assert vars(sys.modules["agenttrace"])["Outcome"] is found


def test_a_name_of_a_module_that_is_there_keeps_no_fork_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor does it wait for an import that another thread is in the middle of."""
    importlib.import_module("agenttrace.model")
    forks_kept: list[str] = []

    @contextmanager
    def no_fork() -> Generator[None]:
        forks_kept.append("model")
        yield

    monkeypatch.setattr("agenttrace.lazy.no_fork", no_fork)

    exports("agenttrace", {"Outcome": "model"})("Outcome")

    assert forks_kept == []


@pytest.mark.parametrize("name", ["agenttrace", "agenttrace.journal"])
def test_a_name_that_is_nowhere_is_told_as_python_tells_it(name: str) -> None:
    """`hasattr` and `from ... import` go by it."""
    module = importlib.import_module(name)

    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'no'"):
        _ = module.no
