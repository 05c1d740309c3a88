"""When a backend counts as there, and what it is started with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e import servers
from tests.e2e.backends import BACKENDS, MODULES, PHOENIX, recipe_of

if TYPE_CHECKING:
    from pathlib import Path


def test_another_recipe_is_another_folder(tmp_path: Path) -> None:
    """What was built from the recipe of before lacks what the tests ask for now."""
    recipe = tmp_path / "builder.yaml"
    recipe.write_text("receivers: []")
    before = recipe_of(tmp_path)

    recipe.write_text("receivers: [otlp]")

    assert before
    assert recipe_of(tmp_path) not in (before, "")
    for backend in BACKENDS:
        assert backend.folder.name.endswith(recipe_of(MODULES / backend.name))


@pytest.mark.parametrize("missing", ["phoenix", "python"])
def test_a_phoenix_without_its_python_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """It leads to an environment beside it, which may be gone or of another Python."""
    monkeypatch.setenv("AGENTTRACE_BACKENDS", str(tmp_path))
    programs = PHOENIX.folder / "bin"
    programs.mkdir(parents=True)
    for name in ("phoenix", "python"):
        (programs / name).touch()
    assert PHOENIX.is_there

    (programs / missing).unlink()

    assert not PHOENIX.is_there


@pytest.mark.timeout(900)
def test_a_phoenix_does_not_take_the_settings_of_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that has one would have tests write to its database."""
    monkeypatch.setenv("PHOENIX_SQL_DATABASE_URL", "postgresql://127.0.0.1:1/theirs")
    monkeypatch.setenv("PHOENIX_ENABLE_AUTH", "true")

    with servers.phoenix(tmp_path) as phoenix:
        assert phoenix.spans() == []
