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
from rich.segment import Segment, Segments
from rich.style import Style
from rich.table import Table
from rich.text import Text

from agenttrace import render, semconv
from agenttrace.demo.account import SERVICE
from agenttrace.settings import state_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator
    from contextlib import AbstractContextManager

    from rich.console import JustifyMethod, RenderableType

    from agenttrace.delivery.store import Node, Run
    from agenttrace.demo.account import Account, Entry
    from agenttrace.demo.scenarios import Scenario

_INDENT: Final = 3


class Screen(Protocol):
    """Where `stage` shows what it does."""

    def opening(self, live: str | None) -> AbstractContextManager[None]:
        """Say what is to come, while the block loads it."""
        ...

    def playing(
        self, scenario: Scenario, where: Callable[[], str]
    ) -> AbstractContextManager[None]:
        """Say which run begins; it goes on for as long as the block does.

        Args:
            scenario: The run.
            where: Returns which step it is in at the moment.
        """
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

    def playing(
        self, scenario: Scenario, where: Callable[[], str]
    ) -> AbstractContextManager[None]:
        """Say nothing."""
        del scenario, where
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
        self._console = render.console()
        self._ascii = self._console.options.ascii_only
        self._spinner = "line" if self._ascii else "dots"
        self._number = 0

    @contextmanager
    def opening(self, live: str | None) -> Generator[None]:
        """Say what is to come, while the block loads it."""
        self._console.print(Text("agenttrace demo", "bold"))
        who = f"the model {live}" if live else "a scripted model, all on this machine"
        self._print(
            Text(
                "Runs of a support desk: FastAPI, the real openai client, the OpenAI "
                f"Agents SDK, and {who}.\n"
                "Whatever happens to a run, every span must arrive, closed, and say "
                "how it ended."
            )
        )
        with self._busy(Text("loading FastAPI and openai", "dim")):
            yield

    @contextmanager
    def playing(self, scenario: Scenario, where: Callable[[], str]) -> Generator[None]:
        """Say which run begins; it goes on for as long as the block does."""
        self._number += 1
        self._console.print()
        head = Text(f"{self._number}  ", "bold cyan")
        head.append(_capital(scenario.title), "bold")
        head.append(f'   {scenario.route}  "{scenario.question}"', "dim")
        self._console.print(head)
        with self._busy(_Moment(where)):
            yield

    def tell(self, what: str, /) -> None:
        """Say what has just happened."""
        self._print(Text(render.plain(what)))

    def show(self, entry: Entry) -> None:
        """Show the tree of a run."""
        self._print(render.render(entry.forest, ascii_only=self._ascii))
        for node in (node for top in entry.forest for node in top.walk()):
            kept = _partial(node)
            if kept:
                self._print(Text(kept, "dim"))

    def close(self, account: Account) -> None:
        """Show the table, the verdict and where to look."""
        self._console.print()
        self._console.print(self._fitting_table(account))
        self._console.print(_verdict(account))
        sent = account.sent
        if sent is not None and sent.acknowledged >= account.started:
            self._console.print(
                f"{sent.to} acknowledged {sent.acknowledged:,} spans; "
                f"look there for the service {SERVICE}."
            )
        self._print_links(account)
        self._console.print(Text(f"See the runs again: {_tree_command(account)}"))

    def _print_links(self, account: Account) -> None:
        """Show where each run can be looked at, if that is known."""
        wide = max(
            (len(each.act.scenario.title) for each in account.entries), default=0
        )
        for entry in account.entries:
            link = account.link(entry)
            if link is not None:
                line = Text(f"  {entry.act.scenario.title:<{wide}}  ")
                # Whole on its line, however long: a terminal makes a link of that.
                self._console.print(line.append(link, Style(link=link)), soft_wrap=True)

    def _fitting_table(self, account: Account) -> Table:
        """Return the table, without what says least where the terminal is narrow."""
        unlimited = self._console.options.update(width=render.PIPE_WIDTH)
        titles = list(_COLUMNS)
        if account.backend is None or not account.backend.found:
            titles.remove("jaeger")
        for spared in _SPARED:
            table = self._table(account, titles)
            needed = self._console.measure(table, options=unlimited).maximum
            if needed <= self._console.width:
                return table
            titles.remove(spared)
        return self._table(account, titles)

    def _table(self, account: Account, titles: Collection[str]) -> Table:
        table = Table(
            box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0)
        )
        for title in titles:
            table.add_column(title, justify=_COLUMNS[title], no_wrap=True)
        for entry in account.entries:
            cells = self._cells(entry, account.in_jaeger(entry))
            table.add_row(*(cells[title] for title in titles))
        return table

    def _cells(self, entry: Entry, in_jaeger: int | None) -> dict[str, RenderableType]:
        judged, run, scenario = entry.judged, entry.run, entry.act.scenario
        complete = not entry.missing
        return {
            "run": scenario.title,
            "expected": scenario.expected.value,
            "seen": render.badge(
                judged.outcome if judged else None, ascii_only=self._ascii
            ),
            "started": str(len(entry.act.started)),
            "stored": Text(str(entry.found), "" if complete else "bold red"),
            "jaeger": "" if in_jaeger is None else str(in_jaeger),
            "took": render.duration(run.duration) if run else "",
            "tokens": _tokens(run),
        }

    def _print(self, what: RenderableType) -> None:
        """Print *what* indented, without blanks at the ends of its lines."""
        width = max(1, self._console.width - _INDENT)
        options = self._console.options.update(width=width)
        segments: list[Segment] = []
        for line in self._console.render_lines(what, options, pad=False):
            segments += [Segment(" " * _INDENT), *line, Segment.line()]
        self._console.print(Segments(segments), end="")

    @contextmanager
    def _busy(self, what: RenderableType) -> Generator[None]:
        if not self._console.is_terminal:
            yield
            return
        with self._console.status(what, spinner=self._spinner):
            yield


class _Moment:
    """The step that a run is in, looked up whenever the spinner is drawn.

    Args:
        where: Returns it.
    """

    def __init__(self, where: Callable[[], str]) -> None:
        self._where = where

    def __rich__(self) -> Text:
        return Text(render.plain(self._where()), "dim")


_COLUMNS: Final[dict[str, JustifyMethod]] = {
    "run": "left",
    "expected": "left",
    "seen": "left",
    "started": "right",
    "stored": "right",
    "jaeger": "right",
    "took": "right",
    "tokens": "right",
}
_SPARED: Final = ("tokens", "took", "expected")
"""Columns that a narrow terminal does without, first to last."""


def _verdict(account: Account) -> Text:
    """Return the last word on the account, and the words before it if it has any."""
    every = f"{account.started:,} started, {account.found:,} in the store"
    if account.closes:
        text = Text("Every span is accounted for", "bold green")
        return text.append(f": {every}.", "not bold default")
    text = Text("The account does not close", "bold red")
    text.append(f": {every}.", "not bold default")
    for problem in account.problems():
        text.append(f"\n - {problem}", "not bold default")
    return text


def _partial(node: Node) -> str | None:
    """Return what is known of an answer that did not come to its end."""
    attributes = node.span.attributes
    if attributes.get(semconv.PARTIAL) is not True:
        return None
    characters = attributes.get(semconv.OUTPUT_CHARACTERS)
    return f"Kept on the span: {characters} characters of the answer had arrived."


def _tokens(run: Run | None) -> str:
    if run is None or run.tokens == (None, None):
        return "-"
    read, written = run.tokens
    return f"{read or 0:,} / {written or 0:,}"


def _tree_command(account: Account) -> str:
    command = f"agenttrace tree --last {account.latest}"
    directory = account.store.parent
    if directory != state_dir():
        command += f" --state-dir {shlex.quote(str(directory))}"
    return command


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
