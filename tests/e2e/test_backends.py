"""When a backend counts as there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

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
