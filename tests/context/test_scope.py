"""A scope that is closed is current nowhere it should not be, whoever closes it."""

from __future__ import annotations

import contextvars
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from opentelemetry.context.context import Context
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext

from agenttrace import safety
from agenttrace.context.scope import SafeRuntimeContext

if TYPE_CHECKING:
    from collections.abc import Callable

FEW = 4
"""So many contexts and tokens are alive at once: the odd orders need no more."""


@dataclass
class Attached:
    """What the model knows of one `attach`."""

    number: int
    token: Any
    home: int
    is_scope: bool
    below: list[Attached]
    dead: bool = False
    left: set[int] = field(default_factory=set[int])
    """Contexts in which it must never be current again."""


@dataclass
class World:
    """A `contextvars.Context` and what the model has on its stack.

    Each entry says whether it was attached here, or inherited by a copy.
    """

    context: contextvars.Context
    stack: list[tuple[Attached, bool]]


class Detaching(RuleBasedStateMachine):
    """`SafeRuntimeContext` against lists.

    The model keeps a stack for each context.  A dead scope falls off the top where it
    was attached; where it was inherited it stays, as parent of the work that was
    started under it.  Tokens of the stock class do what `ContextVar.reset` does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stock = ContextVarsRuntimeContext()
        self.runtime: Any = self.stock
        self.worlds = [World(contextvars.Context(), [])]
        self.tokens: list[Attached] = []
        self.count = 0
        self.pool = ThreadPoolExecutor(1)

    def teardown(self) -> None:
        self.pool.shutdown()

    def in_world(self, world: World, fn: Callable[..., Any], *args: Any) -> Any:  # noqa: ANN401 - as fn
        """Run *fn* there, in a thread of its own every other time."""
        self.count += 1
        if self.count % 2:
            return world.context.run(fn, *args)
        return self.pool.submit(world.context.run, fn, *args).result()

    def drop(self, world: World) -> None:
        """Drop the dead scopes that this world owns from the top."""
        while world.stack and world.stack[-1][0].dead and world.stack[-1][1]:
            world.stack.pop()

    @precondition(lambda self: self.runtime is self.stock)
    @rule()
    def swap(self) -> None:
        """Late, as `configure()` does it."""
        self.runtime = SafeRuntimeContext(self.stock._current_context)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # what the swap takes over

    @rule(where=st.integers(0, FEW), stock=st.booleans())
    def attach(self, where: int, stock: bool) -> None:  # noqa: FBT001 - drawn
        world = self.worlds[where % len(self.worlds)]
        runtime = self.stock if stock else self.runtime
        number = len(self.tokens)
        self.drop(world)
        below = list(world.stack)
        # An instrumentation looks before it attaches, to derive from what it sees.
        self.in_world(world, self.runtime.get_current)
        token = self.in_world(world, runtime.attach, Context({"number": number}))
        attached = Attached(
            number,
            token,
            where % len(self.worlds),
            runtime is not self.stock,
            [entry for entry, _ in below],
        )
        attached.snapshot = below  # type: ignore[attr-defined]  # for stock tokens alone
        self.tokens.append(attached)
        world.stack.append((attached, True))

    @precondition(lambda self: len(self.worlds) < FEW)
    @rule(where=st.integers(0, FEW))
    def copy(self, where: int) -> None:
        """Start a task, a thread with a copied context, a callback."""
        world = self.worlds[where % len(self.worlds)]
        self.worlds.append(
            World(
                world.context.copy(),
                [(entry, False) for entry, _ in world.stack],
            )
        )

    @precondition(lambda self: self.tokens)
    @rule(which=st.integers(0, 99), where=st.integers(0, FEW))
    def detach(self, which: int, where: int) -> None:
        """Detach any token in any context, for the first or the fifth time."""
        attached = self.tokens[-1 - which % min(len(self.tokens), FEW)]
        here = where % len(self.worlds)
        world = self.worlds[here]
        if not attached.is_scope and self.runtime is self.stock:
            if here != attached.home or attached.dead:
                return  # stock raises: that is what is repaired
        self.in_world(world, self.runtime.detach, attached.token)
        if attached.is_scope:
            self.model_scope(attached, world, here)
        elif not attached.dead and here == attached.home:
            attached.dead = True
            world.stack = list(attached.snapshot)  # type: ignore[attr-defined]  # set in attach

    def model_scope(self, attached: Attached, world: World, here: int) -> None:
        """Detach a scope in the model."""
        if attached.dead:
            return
        attached.dead = True
        attached.left |= {here, attached.home}
        if world.stack and world.stack[-1][0] is attached:
            owned = world.stack.pop()[1]
            while (
                not owned
                and world.stack
                and world.stack[-1][0].is_scope
                and world.stack[-1][0].dead
            ):
                world.stack.pop()

    @invariant()
    def what_is_current_is_right(self) -> None:
        for here, world in enumerate(self.worlds):
            current = self.in_world(world, self.runtime.get_current)
            if self.runtime is not self.stock:
                while (
                    world.stack
                    and world.stack[-1][1]
                    and world.stack[-1][0].is_scope
                    and world.stack[-1][0].dead
                ):
                    world.stack.pop()
            expected = world.stack[-1][0].number if world.stack else None
            assert current.get("number") == expected
            if expected is not None:
                assert here not in self.tokens[expected].left


TestDetaching = Detaching.TestCase
