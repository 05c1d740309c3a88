"""A runtime context for OpenTelemetry whose tokens are safe to detach anywhere.

OTel keeps its current context in a `ContextVar` and hands out the variable's tokens.
Such a token can be reset only in the very `contextvars.Context` that set it, once,
and blindly puts the older value back.  Streams break all three rules: a generator is
advanced here and closed there, twice, out of order.  The stock answer is a logged
`Failed to detach context`, and a span that ended is current for ever.

`SafeRuntimeContext` keeps the *same* variable, so what was current when it is swapped
in stays current and tokens of before still work, and stores `Scope`s in it:

- detached by its owner, on top: the value before it is restored;
- detached in a copy of the owner's context: restored there, and the owner drops the
  dead scope at its next look (`Token.reset` succeeds in the owner alone, which is how
  the owner is recognised);
- detached out of order: it is taken out from under what was attached since;
- detached twice, or where it never was: it is marked dead, and that is all.

So a dead scope is never current where it was attached or detached, none is ever
resurrected, and work that was started under it keeps it as its parent.
"""

from __future__ import annotations

import contextvars
import logging
import sys
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context.context import Context

from agenttrace import _otel, safety
from agenttrace.context.collector import COLLECTOR, FINISHED, come_last
from agenttrace.records import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

# `Token.MISSING` by its use: from 3.12 on that name is not there in sub-interpreters,
# which mod_wsgi runs applications in.
_MISSING: Final = (
    contextvars.Context().run(contextvars.ContextVar[None]("any").set, None).old_value
)
_OURS: Final = ("agenttrace", "opentelemetry", "contextlib", "wrapt")


class Standin(NamedTuple):
    """What was attached in place of a scope that cannot stand in the variable."""

    token: Any


class Scope:
    """One attached context, and whether it still counts.

    Attributes:
        context: What is current while the scope is; None while nobody has asked.
        dead: Whether it was detached, or does not stand in the variable itself.
        token: The variable's token while that may still be reset, afterwards what was
            below.  A token keeps the `contextvars.Context` that it was made in, and
            the scope before it: a task that outlives this scope would keep all that.
            A `Standin` where something else was attached in its place.
        home: Where it was entered.
    """

    # Who is a scope has the slots: so it can be something else as well.
    __slots__ = tuple[str, ...]()

    context: Context | None
    dead: bool
    token: Any
    home: SafeRuntimeContext

    def seen(self) -> Context:
        """Return the context, making it where nobody has asked before."""
        context = self.context
        if context is None:
            self.context = context = self.made()
        return context

    def made(self) -> Context:
        """Make the context."""
        raise NotImplementedError

    def substitute(self, runtime: _otel.RuntimeContext) -> None:
        """Attach the bare context in its place, where a scope cannot stand.

        That is in another library's runtime context, and anywhere for the second time:
        tasks that were started under it may still have it, and would see what is new.
        """
        self.dead = True
        self.token = Standin(runtime.attach(self.made()))

    def leave_substitute(self) -> None:
        """Detach what was attached in its place, if that is still to be done."""
        if isinstance(self.token, Standin):
            standin, self.token = self.token, None
            detach(standin.token)


class Attached(Scope):
    """What `attach` returns."""

    __slots__ = ("context", "dead", "token")

    def __init__(self, context: Context) -> None:
        self.context = context
        self.dead = False


Value = Context | Scope
"""What the variable holds: a bare context (attached by others) or a scope."""


class SafeRuntimeContext(_otel.RuntimeContext):
    """OTel's runtime context with detaches that are right wherever they happen.

    Args:
        variable: OTel's own variable; None makes one, as OTel does when the entry
            point loads this class before there is any.
    """

    def __init__(self, variable: contextvars.ContextVar[Any] | None = None) -> None:
        if variable is None:
            variable = _otel.new_context_variable()
        # Under this name other tools reach for OTel's variable.
        self._current_context = variable
        self.variable = variable

    def attach(self, context: Context) -> Any:  # noqa: ANN401 - OTel's tokens are opaque
        """Make *context* current and return the token that ends it."""
        scope = Attached(context)
        self.push(scope)
        return scope

    def push(self, scope: Scope) -> None:
        """Make *scope* current, or leave all as it was."""
        if COLLECTOR.event is not FINISHED.stop and COLLECTOR.is_here():
            scope.token = self._untouched()
            COLLECTOR.current = scope
            return
        variable = self.variable
        value = variable.get()
        try:
            scope.token = variable.set(scope)
        except BaseException:
            # A signal handler raised before the token was kept: nobody could end it.
            variable.set(value)
            raise

    def get_current(self) -> Context:
        """Return the current context, dropping dead scopes that are ours to drop."""
        value = self.top()
        return value.seen() if isinstance(value, Scope) else value

    def top(self) -> Value:
        """Return what stands in the variable, as `get_current` would leave it."""
        if COLLECTOR.event is not FINISHED.stop and COLLECTOR.is_here():
            return self._untouched()
        value: Value = self.variable.get()
        if isinstance(value, Scope) and value.dead:
            return self._settle(value)
        return value

    def detach(self, token: Any) -> None:  # noqa: ANN401 - OTel's tokens are opaque
        """End what *token* attached.  Never raises, never revives anything."""
        if isinstance(token, Scope):
            self.end(token)
        else:
            self._detach_stock(token)

    def end(self, token: Scope) -> None:
        """End a scope.  Also where it is dead already, it is not current any more."""
        if COLLECTOR.event is not FINISHED.stop and COLLECTOR.is_here():
            token.dead = True  # in the variable, whoever looks next drops it
            COLLECTOR.current = before(COLLECTOR.current)
            return
        variable = self.variable
        if variable.get() is not token and not self._uncover(token):
            return
        token.dead = True
        # `_drop` in place: its call would cost as much as what it does.
        try:
            variable.reset(token.token)
        except (ValueError, RuntimeError, TypeError):
            variable.set(before(token))
            _note_foreign_detach()
        else:
            old: Value = variable.get()
            token.token = before(old) if isinstance(old, Scope) and old.dead else old

    def _untouched(self) -> Value:
        """Return what is current while the collector is at work.

        Not by the variable's `get`, which notes what it finds for the next one to
        find faster: in the middle of a `reset` that is what is about to be freed.
        """
        come_last()
        value: Any = COLLECTOR.current
        if value is None:
            value = contextvars.copy_context().get(self.variable, Context())
        return before(value)

    def _uncover(self, token: Scope) -> bool:
        """Return whether only the dead were above *token*; else end it from below."""
        self.top()
        if self.variable.get() is token:
            return True
        if not token.dead:
            token.dead = True
            _note_foreign_detach()
        self.take_out(token)
        return False

    def _drop(self, scope: Scope) -> bool:
        """Take *scope* off the top; False where it was not attached here."""
        variable = self.variable
        try:
            variable.reset(scope.token)
        except (ValueError, RuntimeError, TypeError):
            return False
        below: Value = variable.get()
        # Passing over the dead, or every task that starts its own successor would
        # keep all its predecessors.
        scope.token = before(below) if isinstance(below, Scope) else below
        return True

    def _settle(self, scope: Scope) -> Value:
        """Drop dead scopes from the top as far as this context owns them."""
        variable = self.variable
        value: Value = scope
        while isinstance(value, Scope) and value.dead:
            if not self._drop(value):
                # A copy made while the scope lived: work that was started under it
                # and keeps it as parent.  A bare context spares the next look.
                context = value.seen()
                variable.set(context)
                return context
            value = variable.get()
        return value

    def take_out(self, scope: Scope) -> None:
        """Take *scope* out from under what was attached here since, if it is there.

        Else it would be uncovered one day, and where it was inherited by a copy be
        taken for the parent of the work there, which has just closed it.
        """
        variable = self.variable
        value: Value = variable.get()
        above: list[Scope] = []
        while isinstance(value, Scope) and value is not scope:
            above.append(value)
            value = below(value)
        if value is not scope:
            return
        lifted: list[Scope] = []
        for each in above:
            try:
                variable.reset(each.token)
            except (ValueError, RuntimeError, TypeError):
                break  # inherited as well: what is below is never uncovered here
            lifted.append(each)
        else:
            if not self._drop(scope):
                variable.set(before(scope))
        for each in reversed(lifted):
            if not each.dead:
                each.token = variable.set(each)

    def _detach_stock(self, token: Any) -> None:  # noqa: ANN401 - OTel's tokens are opaque
        if COLLECTOR.is_here():
            return
        try:
            self.variable.reset(token)
        except (ValueError, RuntimeError, TypeError):
            _note_foreign_detach()


class Accessors(NamedTuple):
    """The current context as three calls, for code that activates step by step.

    `set` returns a token for `reset`, which returns None; `get` a value for `set`.
    """

    get: Callable[[], Any]
    set: Callable[[Any], Any]
    reset: Callable[[Any], Any]


def context_of(value: Value) -> Context:
    """Return the context that *value* stands for."""
    return value.seen() if isinstance(value, Scope) else value


def below(scope: Scope) -> Value:
    """Return what was current before *scope*, dead or alive."""
    token = scope.token
    if not isinstance(token, contextvars.Token):
        value: Value = token
        return value
    old: Any = token.old_value
    return Context() if old is _MISSING else old


def before(value: Value) -> Value:
    """Return *value*, or what lives beneath it if it is a scope that has died."""
    while isinstance(value, Scope) and value.dead:
        value = below(value)
    return value


def accessors() -> Accessors:
    """Return how the runtime context in use is read and set."""
    runtime = _otel.runtime_context()
    variable: contextvars.ContextVar[Any] | None
    if isinstance(runtime, SafeRuntimeContext):
        variable = runtime.variable
    else:
        variable = _otel.context_variable(runtime)
    if variable is None:
        # Another library's (ddtrace has one): its public methods have the same shape.
        usual = Accessors(runtime.get_current, runtime.attach, runtime.detach)
    else:
        usual = Accessors(variable.get, variable.set, variable.reset)
    return _careful(usual) if COLLECTOR.is_here() else usual


def _careful(usual: Accessors) -> Accessors:
    """Return *usual* such that nothing is set while the collector is at work.

    For what a finalizer drives.  It may be driven on when the collector is done.
    """

    def get() -> Any:  # noqa: ANN401 - see Accessors
        return COLLECTOR.current if COLLECTOR.is_here() else usual.get()

    def activate(value: Any) -> Any:  # noqa: ANN401 - see Accessors
        if not COLLECTOR.is_here():
            return usual.set(value)
        aside = Standin(COLLECTOR.current)
        COLLECTOR.current = value
        return aside

    def put_away(token: Any) -> None:  # noqa: ANN401 - see Accessors
        if not isinstance(token, Standin):
            usual.reset(token)
        elif COLLECTOR.is_here():
            COLLECTOR.current = token.token

    return Accessors(get, activate, put_away)


def detach(token: Any) -> None:  # noqa: ANN401 - OTel's tokens are opaque
    """Detach *token* from whichever runtime context is in use, without a word.

    `opentelemetry.context.detach` logs an ERROR where the stock context fails.
    """
    try:
        _otel.runtime_context().detach(token)
    except (ValueError, RuntimeError, TypeError):
        _note_foreign_detach()


def install() -> bool:
    """Swap the safe runtime context in; False where another library's is in place."""
    come_last()
    runtime = _otel.runtime_context()
    if isinstance(runtime, SafeRuntimeContext):
        return True
    variable = _otel.context_variable(runtime)
    if variable is None:
        return False
    safe = SafeRuntimeContext(variable)
    _otel.set_runtime_context(safe)
    # Some libraries took the object itself when they were imported (Langfuse 5 does):
    # to it our tokens would be of the wrong type, and our scopes no contexts.
    for method in (safe.attach, safe.get_current, safe.detach):
        setattr(runtime, method.__name__, method)
    return True


def _note_foreign_detach() -> None:
    safety.count(safety.Count.FOREIGN_DETACHES)
    if not safety.logger.isEnabledFor(logging.DEBUG):
        return
    frame = sys._getframe(1)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # the documented way to one's caller
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith(
        _OURS
    ):
        frame = frame.f_back
    site = f"{frame.f_code.co_filename}:{frame.f_lineno}"
    safety.log_once(
        f"foreign detach at {site}",
        logging.DEBUG,
        "%s detaches an OpenTelemetry context in another context than it was "
        "attached in, or out of order. agenttrace has put things right; the usual "
        "cause is a `with` block of a span around a `yield`.",
        site,
    )
