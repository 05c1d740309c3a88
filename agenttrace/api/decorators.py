"""One decorator with four operations: agent, tool, workflow, and a plain step."""

from __future__ import annotations

import copy
import inspect
from functools import partial
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

import wrapt
from opentelemetry import context as otel

from agenttrace import content, safety, semconv, tracing
from agenttrace.api.verbs import check_limits
from agenttrace.boundary.call import Call
from agenttrace.boundary.recorder import PlainRecorder
from agenttrace.model import NO_ATTRIBUTES, Attributes, Opening

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import SupportsIndex

F = TypeVar("F", bound="Callable[..., Any]")

_DEFERRED: Final = (
    inspect.CO_COROUTINE
    | inspect.CO_GENERATOR
    | inspect.CO_ASYNC_GENERATOR
    | inspect.CO_ITERABLE_COROUTINE
)
"""Flags of functions whose call only makes an object and runs none of the body."""


class _Decorated(PlainRecorder):
    """The recorder of one call of a decorated function."""

    __slots__ = ("_arguments", "_capture", "_fn")

    def __init__(
        self,
        fn: Callable[..., Any],
        opening: Opening,
        capture: bool | None,  # noqa: FBT001 - three-valued, from a keyword
        arguments: tuple[tuple[Any, ...], dict[str, Any]],
    ) -> None:
        super().__init__(opening)
        self._fn = fn
        self._capture = capture
        # A body may let go of its arguments long before it ends, and so do we.
        self._arguments = arguments if content.wanted(capture) else None

    def request(self) -> Opening:
        """Return the opening, with the arguments where they are wanted."""
        arguments, self._arguments = self._arguments, None
        if arguments is None:
            return self.opening
        captured = content.attribute_of(_ARGUMENTS, _bound(self._fn, *arguments))
        known = self.opening
        return Opening(
            known.name,
            known.operation,
            known.kind,
            {**known.attributes, **captured},
            known.links,
            known.heartbeat_timeout,
            known.max_duration,
        )

    def result(self, value: object, /) -> Attributes:
        """Return the result where it is wanted."""
        if value is None or not content.wanted(self._capture):
            return NO_ATTRIBUTES
        return content.attribute_of(_RESULT, value)


_ARGUMENTS: Final = semconv.GEN_AI_TOOL_CALL_ARGUMENTS
_RESULT: Final = semconv.GEN_AI_TOOL_CALL_RESULT


if TYPE_CHECKING:
    _FunctionWrapper = wrapt.FunctionWrapper[..., Any]
else:  # a class that wrapt before 2.0 cannot subscript
    _FunctionWrapper = wrapt.FunctionWrapper


class _TracedFunction(_FunctionWrapper):
    """A decorated function, to be told from the original by its type alone.

    As wrapt has it, every look at a method makes a wrapper of its own kind, which is
    not itself, and cannot be pickled, copied or referred to weakly as methods can.
    """

    def __get__(self, instance: object, owner: type | None = None) -> Any:  # noqa: ANN401 - as the original
        wrapped: object = self.__wrapped__
        if not isinstance(wrapped, FunctionType):
            return super().__get__(instance, owner)
        return self if instance is None else MethodType(self, instance)

    def __copy__(self) -> _TracedFunction:
        return self._of(copy.copy)

    def __deepcopy__(self, memo: dict[int, Any]) -> _TracedFunction:
        return self._of(partial(copy.deepcopy, memo=memo))

    def _of(self, copied: Callable[[Any], Any]) -> _TracedFunction:
        wrapped: Any = self.__wrapped__
        other = copied(wrapped)
        # Functions are not copied: the copy of one is itself.
        if other is wrapped:
            return self
        return _TracedFunction(other, self._self_wrapper)

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:  # noqa: ANN401 - see pickle
        wrapped: object = self.__wrapped__
        if isinstance(wrapped, FunctionType):
            # By name, as functions are: worker processes import it again.
            return str(self.__qualname__)
        return wrapped.__reduce_ex__(protocol)


def _deferral(fn: object) -> int:
    """Return the flag that says what a call of *fn* makes without running its body.

    0 if it runs.  Flags of what *fn* says that it wraps are not asked: what stands in
    front of a coroutine function may run it to its end.
    """
    inner: Any = fn
    # By type: a traced function only looks like the function it stands for.
    while type(inner) is not FunctionType:
        kind: Any = type(inner)  # pyright: ignore[reportUnknownVariableType]  # of anything
        if kind is _TracedFunction:
            inner = inner.__wrapped__
        elif kind is MethodType:
            inner = inner.__func__
        elif kind is partial:
            inner = inner.func
        else:
            return 0
    return int(inner.__code__.co_flags & _DEFERRED)


def _decorate(
    fn: Callable[..., Any],
    opening: Opening,
    capture_content: bool | None,  # noqa: FBT001 - three-valued, from a keyword
) -> Any:  # noqa: ANN401 - of the type of fn
    descriptor: Any = fn
    if isinstance(fn, staticmethod | classmethod):
        inside = _decorate(descriptor.__func__, opening, capture_content)
        return type(descriptor)(inside)
    deferral = _deferral(fn)

    def traced_call(
        wrapped: Callable[..., Any],
        _instance: object,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:  # noqa: ANN401 - whatever the function returns
        if tracing.installed is tracing.DISABLED:
            return wrapped(*args, **kwargs)
        call = Call(
            _Decorated(wrapped, opening, capture_content, (args, kwargs)),
            otel.get_current(),
        )
        if deferral == inspect.CO_GENERATOR:
            return call.generate(wrapped, args, kwargs)
        if deferral:
            return call.settle(wrapped(*args, **kwargs))
        return call.run(wrapped, args, kwargs)

    return _TracedFunction(fn, traced_call)


def _decorator(
    operation: str | None,
    name_key: str | None,
    fn: Any,  # noqa: ANN401 - a function, or None
    options: Mapping[str, Any],
) -> Any:  # noqa: ANN401 - of the type of fn
    """Return *fn* traced as *operation*, or the decorator that does it."""
    unknown = options.keys() - _OPTIONS
    if unknown:
        message = f"unexpected arguments: {', '.join(sorted(unknown))}"
        raise TypeError(message)
    check_limits(options.get("heartbeat_timeout"), options.get("max_duration"))

    def decorate(fn: Any) -> Any:  # noqa: ANN401 - of the type of fn
        target = getattr(fn, "__func__", fn)
        if isinstance(fn, type) or not callable(target):
            message = (
                f"{fn!r} cannot be traced: decorate a function or method, or use "
                "`with agenttrace.span(...)` for a block"
            )
            raise TypeError(message)
        name = str(
            options.get("name") or getattr(target, "__name__", type(fn).__name__)
        )
        attributes = dict(options.get("attributes") or {})
        title = name
        if operation is not None and name_key is not None:
            attributes = {
                semconv.GEN_AI_OPERATION_NAME: operation,
                name_key: name,
                **attributes,
            }
            title = f"{operation} {name}"
        opening = Opening(
            title,
            operation,
            attributes=attributes,
            heartbeat_timeout=options.get("heartbeat_timeout"),
            max_duration=options.get("max_duration"),
        )
        return _decorate(fn, opening, options.get("capture_content"))

    return decorate if fn is None else decorate(fn)


_OPTIONS: Final = frozenset(
    {"name", "heartbeat_timeout", "max_duration", "attributes", "capture_content"}
)


@overload
def agent(fn: F, /) -> F: ...
@overload
def agent(
    *,
    name: str | None = None,
    heartbeat_timeout: float | None = None,
    max_duration: float | None = None,
    attributes: Attributes | None = None,
    capture_content: bool | None = None,
) -> Callable[[F], F]: ...
def agent(fn: Any = None, /, **options: Any) -> Any:
    """Trace every call of a function as an agent (`invoke_agent NAME`).

    Takes functions, coroutine functions, generator and async generator functions,
    methods, static and class methods.  The span ends when what the call returned
    ends: a coroutine with its result, a generator with its last item.  Anything that
    is neither is returned untouched.

    Args:
        fn: The function; without it the decorator takes options.
        name: `gen_ai.agent.name`; default the function's name.
        heartbeat_timeout: Longest healthy silence in seconds; None = the default.
        max_duration: Longest total time in seconds; None = the default.
        attributes: Attributes of every call.
        capture_content: Capture arguments and result; None = as configured.
        **options: The arguments above.

    Raises:
        SettingError: A limit is negative or not a number.
        TypeError: *fn* is a class or cannot be called.
    """
    return _decorator(semconv.INVOKE_AGENT, semconv.GEN_AI_AGENT_NAME, fn, options)


@overload
def tool(fn: F, /) -> F: ...
@overload
def tool(
    *,
    name: str | None = None,
    heartbeat_timeout: float | None = None,
    max_duration: float | None = None,
    attributes: Attributes | None = None,
    capture_content: bool | None = None,
) -> Callable[[F], F]: ...
def tool(fn: Any = None, /, **options: Any) -> Any:
    """Trace every call of a function as a tool (`execute_tool NAME`).  See `agent`."""
    return _decorator(semconv.EXECUTE_TOOL, semconv.GEN_AI_TOOL_NAME, fn, options)


@overload
def workflow(fn: F, /) -> F: ...
@overload
def workflow(
    *,
    name: str | None = None,
    heartbeat_timeout: float | None = None,
    max_duration: float | None = None,
    attributes: Attributes | None = None,
    capture_content: bool | None = None,
) -> Callable[[F], F]: ...
def workflow(fn: Any = None, /, **options: Any) -> Any:
    """Trace every call as a workflow (`invoke_workflow NAME`).  See `agent`."""
    return _decorator(
        semconv.INVOKE_WORKFLOW, semconv.GEN_AI_WORKFLOW_NAME, fn, options
    )


@overload
def traced(fn: F, /) -> F: ...
@overload
def traced(
    *,
    name: str | None = None,
    heartbeat_timeout: float | None = None,
    max_duration: float | None = None,
    attributes: Attributes | None = None,
    capture_content: bool | None = None,
) -> Callable[[F], F]: ...
def traced(fn: Any = None, /, **options: Any) -> Any:
    """Trace every call of a function as a plain step, by its name.  See `agent`."""
    return _decorator(None, None, fn, options)


def _bound(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Return the arguments of a call by name."""
    try:
        return dict(inspect.signature(fn).bind(*args, **kwargs).arguments)
    except (TypeError, ValueError) as error:
        # A wrong call, which the function itself will complain about, or a builtin.
        # By name: the text of a partial or of an object's method holds values.
        name = getattr(fn, "__qualname__", type(fn).__qualname__)
        safety.logger.debug("arguments of %s not bound: %s", name, error)
        return {"args": args, "kwargs": kwargs}
