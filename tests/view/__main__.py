"""Takes the pictures of the documentation: `python -m tests.view docs/pictures`.

Real runs, by real processes, in a real browser: what is in a picture is what the page
shows.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from tests.view import scenes
from tests.view.browser import browser

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.view.browser import Page

WIDTH, HEIGHT = 1200, 460


def main(arguments: Sequence[str] | None = None) -> None:
    """Take all pictures and put them into the directory that *arguments* name."""
    parser = argparse.ArgumentParser(prog="python -m tests.view", description=__doc__)
    parser.add_argument("directory", type=Path)
    directory: Path = parser.parse_args(arguments).directory
    with (
        tempfile.TemporaryDirectory() as home,
        browser() as page,
        ExitStack() as stack,
    ):
        state_dir = Path(home)
        page.size(WIDTH, HEIGHT)
        for scene in (scenes.STUCK, scenes.BUSY):
            stack.enter_context(scenes.playing(state_dir, scene))
        page.open(stack.enter_context(scenes.viewing(state_dir)))
        _open(page, 1, "crawl")
        # Some seconds of silence, so that there is something to see of them.
        page.until_text("#steps", "idle 8 s")
        page.look(directory / "view-running.png", width=WIDTH, height=HEIGHT)
        page.press("Escape")
        _open(page, 1, "reserve")
        page.press("n", "Enter")
        page.until_text("#details", "Where it hangs")
        page.look(directory / "view-stuck.png", width=WIDTH, height=HEIGHT)


def _open(page: Page, down: int, step: str) -> None:
    """Open the run that stands so far below the one that is pointed at."""
    page.until("document.querySelectorAll('#run-list .row').length")
    page.press(*"j" * down, "Enter")
    page.until_text("#steps", step)


if __name__ == "__main__":
    main()
