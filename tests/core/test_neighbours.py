"""Another distribution that installs a folder of our name is noticed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenttrace.runtime.neighbours import foreign_distributions

if TYPE_CHECKING:
    from pathlib import Path


def test_the_two_foreign_distributions_are_told_from_ours(tmp_path: Path) -> None:
    """Half of their files and half of ours is what would be imported."""
    for name in (
        "agenttrace-0.3.1.dist-info",
        "agenttrace_sdk-1.0.dist-info",
        "agenttrace_otel-0.1.0.dist-info",
        "agenttraceback-1.0.dist-info",
        "agenttrace",
    ):
        (tmp_path / name).mkdir()

    assert foreign_distributions(tmp_path) == ["agenttrace", "agenttrace_sdk"]


def test_a_folder_that_cannot_be_read_holds_nothing_foreign(tmp_path: Path) -> None:
    """Inside a zip or an executable there is no folder to look into."""
    assert foreign_distributions(tmp_path / "nowhere") == []
