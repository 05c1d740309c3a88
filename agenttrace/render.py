"""Draws runs for a terminal, with rich: the demo and the command line show the same.

What is drawn is decided in `delivery.store.forest`.  Here it becomes words, symbols and
colours, and nothing is told by colour alone.  Text that comes from spans is never read
as markup, and its control characters do not reach the terminal.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final

from agenttrace.delivery.store.forest import Node, Tokens, most_telling
from agenttrace.errors import MissingExtraError
from agenttrace.model import (
    LOST_ERROR_TYPE,
    STUCK_ERROR_TYPE,
    TIMEOUT_ERROR_TYPE,
    Outcome,
)
from agenttrace.semconv import (
    CODE_FILE_PATH,
    CODE_FUNCTION_NAME,
    CODE_LINE_NUMBER,
    EXCEPTION_EVENT,
    EXCEPTION_MESSAGE,
    EXCEPTION_TYPE,
    HANG,
    HANG_CAUSE,
    HANG_EXPLANATION,
    LOOP_BLOCKED,
)
from agenttrace.watchdog.frames import short

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

    from agenttrace.delivery.store.reader import Run
    from agenttrace.model import EventData

LIMIT: Final = 100
"""Spans of one run that are drawn unless more are asked for."""
SIBLINGS: Final = 20
"""Of these, children of one span that are drawn although they ended well."""
PIPE_WIDTH: Final = 10_000
"""Columns where there is no terminal: who reads a pipe wants a line for each thing."""
_MAX_NAME: Final = 80
_MAX_NOTE: Final = 160
_MAX_EVENTS: Final = 3

_SYMBOLS: Final = {
    Outcome.OK: ("✓", "+", "green"),
    Outcome.ERROR: ("✗", "x", "bold red"),
    Outcome.TIMED_OUT: ("◷", "t", "bold red"),
    Outcome.CANCELLED: ("⊘", "-", "yellow"),
    Outcome.ABANDONED: ("◌", "o", "yellow"),
    Outcome.STUCK: ("■", "#", "bold magenta"),
    Outcome.LOST: ("†", "!", "bold magenta"),
}
"""Symbol, the same in ASCII, and style."""
_SAID_BY_OUTCOME: Final = frozenset(
    {None, TIMEOUT_ERROR_TYPE, STUCK_ERROR_TYPE, LOST_ERROR_TYPE}
)
_UNKNOWN: Final = ("·", ".", "dim")
_OPEN: Final = ("▶", ">", "blue")


def console() -> Console:
    """Return the standard output, for text that is nobody's markup."""
    from rich.console import Console  # noqa: PLC0415 - it comes with an extra

    # A character that the terminal's encoding does not have must not end the command.
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
    found = Console(highlight=False, markup=False, emoji=False)
    if not found.is_terminal:
        found.width = PIPE_WIDTH
    return found


def render(
    nodes: Node | Sequence[Node],
    *,
    run: Run | None = None,
    limit: int | None = LIMIT,
    ascii_only: bool = False,
) -> Tree:
    """Return the tree of a run as rich draws it.

    Args:
        nodes: The top of the run, or its tops where parents are missing.
        run: Puts a line above it that says which run this is.
        limit: Spans that are drawn; those that did not end well are drawn first, and
            what is left out is counted in its place.  None: all.
        ascii_only: Use no symbol that an ASCII terminal cannot show.

    Raises:
        MissingExtraError: rich is not installed.
    """
    try:
        from rich.text import Text  # noqa: PLC0415 - comes with an extra
        from rich.tree import Tree  # noqa: PLC0415 - comes with an extra
    except ImportError:
        feature = "Showing runs in the terminal"
        raise MissingExtraError(feature, "cli") from None

    tops = [nodes] if isinstance(nodes, Node) else nodes
    if limit is None:
        chosen = {id(node) for top in tops for node in top.walk()}
    else:
        chosen = most_telling(tops, limit, SIBLINGS)
    head = headline(run, ascii_only=ascii_only) if run else Text()
    root = Tree(head, guide_style="dim", hide_root=run is None)
    waiting: list[tuple[Tree, Sequence[Node]]] = [(root, tops)]
    while waiting:
        branch, siblings = waiting.pop()
        for group in _groups(siblings, chosen):
            if id(group[0]) in chosen:
                node = group[0]
                below = branch.add(label(node, ascii_only=ascii_only))
                told_below = {
                    child.error for child in node.children if id(child) in chosen
                }
                for note in _notes(node, told_below, ascii_only=ascii_only):
                    below.add(note)
                waiting.append((below, node.children))
            else:
                branch.add(_left_out(group, ascii_only=ascii_only))
    return root


def headline(run: Run, *, ascii_only: bool = False) -> Text:
    """Return the line that says which run this is; what it came to stands below."""
    from rich.text import Text  # noqa: PLC0415 - comes with an extra

    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.started / 1e9))
    spans = "1 span" if run.spans == 1 else f"{run.spans:,} spans"
    missing = "" if run.name is not None else run.title
    parts = [at, plain(run.service or ""), spans, missing]
    separator = " - " if ascii_only else " · "
    line = Text().append(run.trace_id[:8], "bold")
    line.append(separator + separator.join(filter(None, parts)), "dim")
    if run.errors:
        line.append(separator, "dim")
        line.append("1 error" if run.errors == 1 else f"{run.errors:,} errors", "red")
    return line


def label(node: Node, *, ascii_only: bool = False) -> Text:
    """Return the line of one span: how it ended, its name, how long, what it took."""
    from rich.text import Text  # noqa: PLC0415 - comes with an extra

    outcome = node.outcome
    symbol, in_ascii, style = _UNKNOWN if outcome is None else _SYMBOLS[outcome]
    if node.going_on is not None and outcome is None:
        symbol, in_ascii, style = _OPEN
    name = plain(node.span.name, _MAX_NAME)
    line = Text().append(in_ascii if ascii_only else symbol, style).append(" ")
    line.append(name or "(no name)", "" if node.is_fine else "bold")
    if not node.is_fine and outcome is not None:
        line.append("  ").append(outcome.value, style)
    ended_by = node.ended_by
    if ended_by not in (None, "return"):
        line.append(f" ({plain(ended_by or '', _MAX_NAME)})", "dim")
    line.append(f"  {duration(node.duration)}")
    facts = f"  {node.going_on}" if node.going_on else ""
    facts += _tokens(node.tokens)
    if node.items is not None:
        facts += "  1 item" if node.items == 1 else f"  {node.items:,} items"
    model = node.model
    if model is not None and model not in node.span.name:
        facts += f"  {plain(model, _MAX_NAME)}"
    if node.parent_elsewhere:
        facts += "  (parent elsewhere)"
    return line.append(facts, "dim")


def badge(outcome: Outcome | None, *, ascii_only: bool = False) -> Text:
    """Return symbol and word of *outcome*, None meaning that nobody has said."""
    from rich.text import Text  # noqa: PLC0415 - comes with an extra

    symbol, in_ascii, style = _UNKNOWN if outcome is None else _SYMBOLS[outcome]
    word = "unknown" if outcome is None else outcome.value
    return Text(f"{in_ascii if ascii_only else symbol} {word}", style)


def duration(seconds: float) -> str:
    """Return *seconds* to three digits or so.

    >>> [duration(s) for s in (1e-9, 0.00042, 0.31, 2.306, 65, 7500)]
    ['0 ms', '0.42 ms', '310 ms', '2.31 s', '1 min 05 s', '2 h 05 min']
    """
    if seconds < 0.9995:  # noqa: PLR2004 - below, it rounds to 1000 ms
        return f"{round(seconds * 1000, 3):.3g} ms"
    if seconds < 59.995:  # noqa: PLR2004 - below, it rounds to 60.00 s
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"  # noqa: PLR2004 - digits
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:  # noqa: PLR2004 - minutes in an hour
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} min"


def plain(text: str, limit: int = _MAX_NOTE) -> str:
    r"""Return *text* in one line that a terminal shows and never obeys.

    >>> plain("a\x1b[31mb\n c")
    'a?[31mb c'
    """
    short = text if len(text) <= limit else f"{text[:limit]}..."
    joined = " ".join(short.split())
    return "".join(char if char.isprintable() else "?" for char in joined)


def _groups(siblings: Sequence[Node], chosen: set[int]) -> Iterable[list[Node]]:
    """Yield every chosen node alone, and the others as one group per gap."""
    gap: list[Node] = []
    for node in siblings:
        if id(node) in chosen:
            if gap:
                yield gap
                gap = []
            yield [node]
        else:
            gap.append(node)
    if gap:
        yield gap


def _left_out(group: Sequence[Node], *, ascii_only: bool) -> Text:
    from rich.text import Text  # noqa: PLC0415 - comes with an extra

    every = [node for top in group for node in top.walk()]
    bad = sum(not node.is_fine for node in every)
    dots = "..." if ascii_only else "…"
    text = Text(f"{dots} {len(every):,} more", "dim")
    return text.append(f", {bad:,} of them not ok", "red") if bad else text


def _notes(
    node: Node, told_below: set[str | None], *, ascii_only: bool
) -> Iterable[Text]:
    from rich.text import Text  # noqa: PLC0415 - comes with an extra

    style = _UNKNOWN[2] if node.outcome is None else _SYMBOLS[node.outcome][2]
    # An exception passes through every span on its way up: it is told once, where it
    # came from.
    if node.error not in _SAID_BY_OUTCOME | told_below:
        arrow = "> " if ascii_only else "↳ "
        yield Text(f"{arrow}{plain(node.error or '')}", style.removeprefix("bold "))
    if node.span.name == LOOP_BLOCKED and (place := _place(node.span.attributes)):
        bullet = "* " if ascii_only else "∙ "
        yield Text(f"{bullet}{plain(place)}", "dim")
    events = node.events()
    for event in events[:_MAX_EVENTS]:
        bullet = "* " if ascii_only else "∙ "
        after = max(0, event.time - node.span.start_time) / 1e9
        yield Text(f"{bullet}{_event(event)}  at +{duration(after)}", "dim")
    if len(events) > _MAX_EVENTS:
        dots = "..." if ascii_only else "…"
        yield Text(f"{dots} {len(events) - _MAX_EVENTS:,} more events", "dim")


def _event(event: EventData) -> str:
    if event.name == HANG:
        said = [event.attributes.get(key) for key in (HANG_CAUSE, HANG_EXPLANATION)]
        parts = [": ".join(str(each) for each in said if each)]
        told = ", ".join(filter(None, [*parts, _place(event.attributes)]))
        return plain(told or event.name)
    if event.name != EXCEPTION_EVENT:
        return plain(event.name)
    kind = event.attributes.get(EXCEPTION_TYPE, "exception")
    message = str(event.attributes.get(EXCEPTION_MESSAGE, "")).strip()
    first = message.splitlines()[0] if message else ""
    return plain(f"{kind}: {first}" if first else f"{kind}")


def _place(attributes: Mapping[str, object]) -> str:
    """Return the line of code that *attributes* name, empty where they name none."""
    function, file = attributes.get(CODE_FUNCTION_NAME), attributes.get(CODE_FILE_PATH)
    if not function or not file:
        return ""
    return f"in {function} ({short(str(file))}:{attributes.get(CODE_LINE_NUMBER)})"


def _tokens(tokens: Tokens) -> str:
    read, written = tokens
    parts = [
        f"{number:,} {what}"
        for number, what in ((read, "in"), (written, "out"))
        if number is not None
    ]
    return f"  {' / '.join(parts)} tokens" if parts else ""
