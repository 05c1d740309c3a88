"""What the demo shows: to people as it happens, to programs as one JSON object.

Everything is words and symbols first; colours and the spinner come with a terminal.
"""

from __future__ import annotations

import json
import shlex
import sys
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Final, Protocol

from rich import box
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from agenttrace import render
from agenttrace.demo.account import SERVICE
from agenttrace.settings import state_dir

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextlib import AbstractContextManager

    from agenttrace.delivery.store import Run
    from agenttrace.demo.account import Account, Entry
    from agenttrace.demo.scenarios import Scenario

_PIPE_WIDTH: Final = 10_000
_INDENT: Final = 3


class Screen(Protocol):
    """Where `stage` shows what it does."""

    def opening(self, live: str | None) -> AbstractContextManager[None]:
        """Say what is to come, while the block loads it."""
        ...

    def playing(self, scenario: Scenario) -> AbstractContextManager[None]:
        """Say which run begins; it goes on for as long as the block does."""
        ...

    def tell(self, what: str, /) -> None:
        """Say what has just happened."""
        ...

    def show(self, entry: Entry) -> None:
        """Show what a run came to."""
        ...

    def close(self, account: Account) -> None:
        """Show the account."""
        ...


class Program:
    """The screen of `--json`: the account alone."""

    def opening(self, live: str | None) -> AbstractContextManager[None]:
        """Say nothing."""
        del live
        return nullcontext()

    def playing(self, scenario: Scenario) -> AbstractContextManager[None]:
        """Say nothing."""
        del scenario
        return nullcontext()

    def tell(self, what: str, /) -> None:
        """Say nothing."""

    def show(self, entry: Entry) -> None:
        """Say nothing."""

    def close(self, account: Account) -> None:
        """Write the account."""
        sys.stdout.write(f"{json.dumps(account.as_json(), indent=2)}\n")


class Terminal:
    """The screen for people."""

    def __init__(self) -> None:
        # A character that the terminal's encoding does not have must not end it.
        reconfigure = getattr(sys.stdout, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
        self._console = Console(highlight=False, markup=False, emoji=False)
        if not self._console.is_terminal:
            # Whoever reads the pipe wants one line per span, not 80 columns.
            self._console.width = _PIPE_WIDTH
        self._ascii = self._console.options.ascii_only
        self._spinner = "line" if self._ascii else "dots"
        self._number = 0

    @contextmanager
    def opening(self, live: str | None) -> Generator[None]:
        """Say what is to come, while the block loads it."""
        self._console.print(Text("agenttrace demo", "bold"))
        who = f"the model {live}" if live else "a scripted model"
        self._print(
            f"A support desk (FastAPI, the real openai client) and {who}; "
            f"{'the rest is' if live else 'all of it'} on this machine. "
            "Five things happen to it. Every span must reach the store, closed, "
            "and say how it ended.",
        )
        with self._busy("loading FastAPI and openai"):
            yield

    @contextmanager
    def playing(self, scenario: Scenario) -> Generator[None]:
        """Say which run begins; it goes on for as long as the block does."""
        self._number += 1
        self._console.print()
        head = Text(f"{self._number}  ", "bold cyan")
        head.append(_capital(scenario.title), "bold")
        head.append(f"   {scenario.route}  \"{scenario.question}\"", "dim")
        self._console.print(head)
        with self._busy("running"):
            yield

    def tell(self, what: str, /) -> None:
        """Say what has just happened."""
        self._print(Text(render.plain(what)))

    def show(self, entry: Entry) -> None:
        """Show the tree of a run."""
        self._print(render.render(entry.forest, ascii_only=self._ascii))

    def close(self, account: Account) -> None:
        """Show the table, the verdict and where to look."""
        self._console.print()
        self._console.print(self._table(account))
        self._console.print(_verdict(account))
        if account.sent is not None:
            self._console.print(
                f"{account.sent.to} acknowledged {account.sent.acknowledged:,} spans; "
                f"look there for the service {SERVICE}."
            )
        self._console.print(Text(f"See the runs again: {_tree_command(account)}"))

    def _table(self, account: Account) -> Table:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for title, right in _COLUMNS:
            table.add_column(
                title, justify="right" if right else "left", no_wrap=not right
            )
        for entry in account.entries:
            table.add_row(*self._cells(entry))
        return table

    def _cells(self, entry: Entry) -> list[RenderableType]:
        root, run, scenario = entry.root, entry.run, entry.act.scenario
        complete = not entry.missing
        return [
            scenario.title,
            scenario.expected.value,
            render.badge(root.outcome if root else None, ascii_only=self._ascii),
            str(len(entry.act.started)),
            Text(str(entry.found), "" if complete else "bold red"),
            render.duration(run.duration) if run else "",
            _tokens(run),
        ]

    def _print(self, what: RenderableType) -> None:
        # Not expanded: no blanks at the ends of lines that go into a file.
        self._console.print(Padding(what, (0, 0, 0, _INDENT), expand=False))

    @contextmanager
    def _busy(self, what: str) -> Generator[None]:
        if not self._console.is_terminal:
            yield
            return
        with self._console.status(Text(what, "dim"), spinner=self._spinner):
            yield


_COLUMNS: Final = (
    ("run", False),
    ("expected", False),
    ("seen", False),
    ("spans started", True),
    ("in the store", True),
    ("took", True),
    ("tokens", True),
)


def _verdict(account: Account) -> Text:
    """Return the last word on the account."""
    if account.closes:
        every = f"{account.started:,} started, {account.found:,} in the store"
        return Text().append("Every span is accounted for", "bold green").append(
            f": {every}, closed, each run with its own outcome."
        )
    text = Text().append("The account does not close", "bold red").append(
        f": {account.started:,} spans started, {account.found:,} in the store."
    )
    for problem in account.problems():
        text.append(f"\n - {problem}")
    return text


def _tokens(run: Run | None) -> str:
    if run is None or run.tokens == (None, None):
        return "-"
    read, written = run.tokens
    return f"{read or 0:,} / {written or 0:,}"


def _tree_command(account: Account) -> str:
    command = f"agenttrace tree --last {len(account.entries)}"
    directory = account.store.parent
    if directory != state_dir():
        command += f" --state-dir {shlex.quote(str(directory))}"
    return command


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
