"""A server over a state directory, and a browser."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from agenttrace.view import Runs, Server
from tests.view.browser import CHROMIUM, browser

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.view.browser import Page

    Serving = Callable[[Path], AbstractContextManager[Server]]


@pytest.fixture
def serving() -> Serving:
    """Return what serves the page over a state directory, in this process."""
    return _serving


@contextmanager
def _serving(state_dir: Path) -> Generator[Server]:
    with Server(Runs(state_dir)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """Return a page of a real browser."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    with browser() as found:
        found.size(1280, 720)
        yield found
