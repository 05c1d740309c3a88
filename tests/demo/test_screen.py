"""What the demo shows fits where it is shown."""

from __future__ import annotations

import pytest
from rich.text import Text

from agenttrace.demo.screen import Terminal
from tests.demo.test_account import CALLS, FIRST, account, entry

EVERY = ["run", "expected", "seen", "started", "stored", "took", "tokens"]


@pytest.mark.parametrize(
    ("width", "titles"),
    [
        (80, EVERY),
        (60, ["run", "expected", "seen", "started", "stored"]),
        (50, ["run", "seen", "started", "stored"]),
    ],
)
def test_the_table_does_without_columns_rather_than_without_their_ends(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    width: int,
    titles: list[str],
) -> None:
    """What cuts every number and outcome short tells nobody how the runs ended."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(width))

    Terminal().close(account(entry(FIRST, *CALLS)))

    shown = Text.from_ansi(capsys.readouterr().out).plain
    assert "…" not in shown
    assert shown.splitlines()[1].split() == titles
