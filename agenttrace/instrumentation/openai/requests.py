"""What is read of a request to the API: who is called, for what, with which settings.

Parameters are what the client puts into the body, `extra_body` included, which may
override any of them.  A value that is not of the kind the conventions want is left out:
the server will have its own word on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, cast

from opentelemetry.trace import SpanKind

from agenttrace import semconv
from agenttrace.model import Opening
from agenttrace.records import NamedTuple
from agenttrace.registry import AtLeast, Usual

if TYPE_CHECKING:
    from collections.abc import Hashable

_OPENAI: Final = "openai"
_AZURE: Final = "azure.ai.openai"
_AZURE_HOSTS: Final = (
    ".openai.azure.com",
    ".cognitiveservices.azure.com",
    ".services.ai.azure.com",
)
_PORTS: Final = {"https": 443, "http": 80}

# Once: to write `int | float` in a call makes a new object each time.
_NUMBERS: Final = (int, float)

USUAL_SILENCE: Final = 300.0
"""Seconds that a request may be silent for, if it does not say more itself."""
FIRST_WORD: Final = Usual(120.0)
"""Seconds that a stream may be silent for at its beginning: models think first."""
NEXT_WORD: Final = Usual(60.0)
"""Seconds that a stream may be silent for after that."""
_CLIENTS_OWN: Final = 600.0
"""The client's default time-out in seconds: nobody asked for it."""

Read = Callable[[object], object]
"""Reads one parameter; None where it is not what the conventions want."""


class Request:
    """One request of a client.

    Args:
        client: The openai client.
        options: Its `FinalRequestOptions`.
        streamed: Whether events are asked for, and not one body.
    """

    __slots__ = ("_client", "_options", "is_streamed", "parameters")

    def __init__(self, client: Any, options: Any, *, streamed: bool) -> None:  # noqa: ANN401 - the library's objects
        self.is_streamed = streamed
        self._client = client
        self._options = options
        given: object = options.json_data
        more: object = options.extra_json
        parameters: Any = given if _is_mapping(given) else {}
        if more and _is_mapping(more):
            extra: Any = more
            parameters = {**parameters, **extra}
        self.parameters: Mapping[str, Any] = parameters

    def opening(
        self,
        operation: str,
        readers: Mapping[str, tuple[str, Read]],
        more: Mapping[str, object],
    ) -> Opening:
        """Return how the span of this request opens.

        Args:
            operation: `gen_ai.operation.name`.
            readers: By parameter, its attribute and how it is read.
            more: Further attributes.
        """
        model = self.parameters.get("model")
        name = f"{operation} {model}" if model else operation
        # The type checkers do not believe that every class can be hashed.
        class_: Any = type(self._client)  # pyright: ignore[reportUnknownVariableType]  # of anything
        kind = _kind_of(class_)
        # In openai 3 the property imports a module each time: that is a microsecond.
        url = getattr(self._client, "_base_url", None) if kind.keeps_url else None
        url = url or self._client.base_url
        host: str = url.host
        is_azure = kind.is_azure or host.endswith(_AZURE_HOSTS)
        attributes: dict[str, object] = {
            semconv.GEN_AI_OPERATION_NAME: operation,
            semconv.GEN_AI_PROVIDER_NAME: _AZURE if is_azure else _OPENAI,
            semconv.SERVER_ADDRESS: host,
            semconv.SERVER_PORT: url.port or _PORTS.get(url.scheme, 0),
        }
        if model:
            attributes[semconv.GEN_AI_REQUEST_MODEL] = str(model)
        for parameter, given in self.parameters.items():
            reader = readers.get(parameter)
            if reader is not None:
                value = reader[1](given)
                if value is not None:
                    attributes[reader[0]] = value
        attributes.update(more)
        return Opening(
            name,
            operation,
            SpanKind.CLIENT,
            attributes,
            heartbeat_timeout=FIRST_WORD if self.is_streamed else self._patience(),
        )

    def _patience(self) -> AtLeast | None:
        """Return the longest silence that this request declares, if it is unusual."""
        seconds = _seconds(self._options.timeout)
        if seconds is None:
            seconds = _seconds(getattr(self._client, "timeout", None))
            if seconds == _CLIENTS_OWN:
                return None
        if seconds is None or seconds <= USUAL_SILENCE:
            return None
        return AtLeast(seconds)


def path_of(url: str) -> str:
    """Return the path that *url*, relative to a base, asks for: as the API names it.

    Callers of `client.post` may leave the slash out, and the client's own beta
    resources put a query behind it.

    >>> path_of("responses?beta=true")
    '/responses'
    """
    return "/" + url.partition("?")[0].strip("/")


def number(value: object) -> object:
    """Return *value* if it is a number."""
    is_number = isinstance(value, _NUMBERS) and not isinstance(value, bool)
    return value if is_number else None


def count(value: object) -> object:
    """Return *value* if it is a whole number."""
    is_count = isinstance(value, int) and not isinstance(value, bool)
    return value if is_count else None


def choices(value: object) -> object:
    """Return *value* if it is a number of choices other than the usual one."""
    return count(value) if value != 1 else None


def texts(value: object) -> object:
    """Return one text or several as a sequence of texts."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, Sequence):
        return tuple(str(each) for each in cast("Sequence[object]", value))
    return None


def yes(value: object) -> object:
    """Return True if *value* is; that something is off need not be said."""
    return True if value is True else None


def output_type(value: object) -> object:
    """Return `gen_ai.output.type` for a format the answer is asked for in."""
    kind = _field(value, "type")
    if kind in ("json_schema", "json_object"):
        return "json"
    return "text" if kind == "text" else None


def text_format(value: object) -> object:
    """Return `gen_ai.output.type` for the `text` of a Responses request."""
    return output_type(_field(value, "format"))


def identity(value: object) -> object:
    """Return the id of what is given by its id, or as an object that has one."""
    return value if isinstance(value, str) else _field(value, "id")


def _field(value: object, name: str) -> object:
    if isinstance(value, Mapping):
        return cast("Mapping[str, object]", value).get(name)
    return None


_KEEPERS: Final = ("openai._base_client", "openai._client")
"""Whose property returns what it keeps, in openai 2 and 3."""


class _Kind(NamedTuple):
    """What a class of clients says of its instances.

    Args:
        is_azure: Whether it is one of those for Azure.
        keeps_url: Whether the library's own property is what tells the base URL.  The
            client behind `openai.chat` looks at `openai.base_url` each time.
    """

    is_azure: bool
    keeps_url: bool


@lru_cache(maxsize=64)
def _kind_of(client: Hashable) -> _Kind:
    bases = cast("type", client).__mro__
    found = (vars(base)["base_url"] for base in bases if "base_url" in vars(base))
    # Where its function is from: the client's class calls itself one of `openai`.
    getter = getattr(next(found, None), "fget", None)
    return _Kind(
        any(base.__module__ == "openai.lib.azure" for base in bases),
        getattr(getter, "__module__", None) in _KEEPERS,
    )


def _is_mapping(value: object) -> bool:
    return type(value) is dict or isinstance(value, Mapping)


def _seconds(timeout: object) -> float | None:
    """Return a time-out in seconds: a number, or a `Timeout`'s for a read."""
    value: object = getattr(timeout, "read", timeout)
    return float(value) if isinstance(value, _NUMBERS) else None
