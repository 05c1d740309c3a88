"""`SafeRuntimeContext` against a model of lists, in every odd order.

The model keeps a stack for each `contextvars.Context`, and looks through OTel's eyes.
"""

from __future__ import annotations

import contextvars
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from opentelemetry.context.context import Context
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext

from agenttrace.context.scope import SafeRuntimeContext

if TYPE_CHECKING:
    from collections.abc import Callable

FEW = 4
"""So many contexts and tokens are in play at once: odd orders need no more."""
PLACES = st.integers(0, FEW - 1)


@dataclass(eq=False)
class Attached:
    """What one `attach` came to.

    Attributes:
        number: What its context says.
        token: What `attach` returned.
        home: The world it was attached in.
        is_scope: Whether the token is ours, or one of the stock class.
        below: The stack it was put on: what a stock token goes back to.
        dead: Whether it was detached.
        left: The worlds in which it must not be current any more.
    """

    number: int
    token: Any
    home: World
    is_scope: bool
    below: tuple[Entry, ...]
    dead: bool = False
    left: list[World] = field(default_factory=list["World"])


@dataclass(frozen=True, eq=False)
class Entry:
    """Something on a stack: attached there, or inherited by a copy.

    What is inherited and dead is kept, from the first look on, as a bare context.
    """

    what: Attached
    own: bool
    kept: bool = False

    @property
    def is_over(self) -> bool:
        """Whether it is a scope that has died."""
        return self.what.is_scope and self.what.dead


@dataclass(eq=False)
class World:
    """A `contextvars.Context` and what the model believes is on its stack."""

    context: contextvars.Context
    stack: list[Entry] = field(default_factory=list[Entry])

    def current(self) -> Attached | None:
        """Return what is current.

        A dead scope falls off the top where it was attached.  Where it was inherited it
        stays, as the parent of the work that was started under it.
        """
        while self.stack and self.stack[-1].own and self.stack[-1].is_over:
            self.stack.pop()
        if not self.stack:
            return None
        top = self.stack[-1]
        if top.is_over and not top.kept:
            self.stack = [Entry(top.what, own=False, kept=True)]
        return top.what

    def detach(self, attached: Attached) -> None:
        """Take a scope off the stack.

        What is above keeps its place.  What is inherited cannot be taken off its
        place, but then nothing uncovers what is below it either; a stock token does.
        """
        if self.place_of(attached) != len(self.stack) - 1:
            self.current()
        place = self.place_of(attached)
        if place is None:
            return
        above = self.stack[place + 1 :]
        if any(not entry.what.is_scope or entry.kept for entry in above):
            return
        attached.left.append(self)
        if all(entry.own for entry in above):
            rest = self.stack[:place]
            if not self.stack[place].own:
                while rest and rest[-1].is_over and not rest[-1].kept:
                    rest.pop()
            self.stack = rest + [entry for entry in above if not entry.what.dead]

    def place_of(self, attached: Attached) -> int | None:
        """Return where on the stack a scope is."""
        for place, entry in enumerate(self.stack):
            if entry.what is attached and not entry.kept:
                return place
        return None


class Detaching(RuleBasedStateMachine):
    """Attaches, copies, looks and detaches anywhere, with a late swap at some time."""

    def __init__(self) -> None:
        super().__init__()
        self.stock = ContextVarsRuntimeContext()
        self.runtime: Any = self.stock
        self.worlds = [World(contextvars.Context())]
        self.tokens: list[Attached] = []
        self.pool = ThreadPoolExecutor(1)

    def teardown(self) -> None:
        """Look everywhere once more."""
        try:
            for place in range(len(self.worlds)):
                self.look(place)
        finally:
            self.pool.shutdown()

    def world(self, place: int) -> World:
        """Return one of the worlds."""
        return self.worlds[place % len(self.worlds)]

    def there(self, world: World, fn: Callable[..., Any], *args: Any) -> Any:  # noqa: ANN401 - as fn
        """Call *fn* in *world*: in this thread for even worlds, in another for odd."""
        if self.worlds.index(world) % 2:
            return self.pool.submit(world.context.run, fn, *args).result()
        return world.context.run(fn, *args)

    @precondition(lambda self: self.runtime is self.stock)
    @rule()
    def swap(self) -> None:
        """Late, as `configure()` does it."""
        variable = self.stock._current_context  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # what the swap takes over
        self.runtime = SafeRuntimeContext(variable)

    @rule(place=PLACES)
    def look(self, place: int) -> None:
        """Whoever starts a span looks for its parent."""
        world = self.world(place)

        seen = self.there(world, self.runtime.get_current).get("number")

        current = world.current()
        assert seen == (None if current is None else current.number)
        assert current is None or world not in current.left

    @rule(place=PLACES, stock=st.booleans())
    def attach(self, place: int, *, stock: bool) -> None:
        """With the runtime in use, or with the stock one that somebody has kept."""
        world = self.world(place)
        runtime = self.stock if stock else self.runtime
        below = tuple(world.stack)

        number = len(self.tokens)
        token = self.there(world, runtime.attach, Context({"number": number}))

        made = Attached(number, token, world, runtime is not self.stock, below)
        self.tokens.append(made)
        world.stack.append(Entry(made, own=True))

    @precondition(lambda self: len(self.worlds) < FEW)
    @rule(place=PLACES)
    def copy(self, place: int) -> None:
        """Start a task, a callback, a thread with a copied context."""
        world = self.world(place)
        inherited = [
            Entry(each.what, own=False, kept=each.kept) for each in world.stack
        ]
        self.worlds.append(World(world.context.copy(), inherited))

    @precondition(lambda self: self.tokens)
    @rule(place=PLACES, back=PLACES)
    def detach(self, place: int, back: int) -> None:
        """Detach one of the last tokens in any world, the first or the fifth time."""
        world = self.world(place)
        attached = self.tokens[max(0, len(self.tokens) - 1 - back)]
        was_dead = attached.dead
        fits = not was_dead and world is attached.home
        if self.runtime is self.stock and not fits:
            return  # it would raise: that is what the swap repairs

        self.there(world, self.runtime.detach, attached.token)

        if attached.is_scope:
            if not was_dead:
                attached.left.append(attached.home)
            world.detach(attached)
            attached.dead = True
        elif fits:
            attached.dead = True
            world.stack = list(attached.below)


TestDetaching = Detaching.TestCase
TestDetaching.settings = settings(
    max_examples=settings().max_examples * 2, stateful_step_count=25
)
