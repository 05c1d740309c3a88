"""What a client asked for, in the words of the API.  Pure.

`read_request` turns one HTTP request into a `Request`, whichever of the API's paths it
came by: `/v1/...`, Azure's `/openai/deployments/NAME/...` and `/openai/...`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, TypeAlias, cast
from urllib.parse import parse_qsl, unquote

Message: TypeAlias = Mapping[str, Any]

_AZURE: Final = "openai"
_DEPLOYMENTS: Final = "deployments"
_VERSION: Final = "v1"
_SCHEMA: Final = "json_schema"


class Kind(StrEnum):
    """Which of the API's calls it is."""

    CHAT = "chat"
    RESPONSES = "responses"
    RETRIEVE = "retrieve"
    """`GET /responses/ID`, which is also how a background response is polled."""
    CANCEL = "cancel"
    EMBEDDINGS = "embeddings"
    MODELS = "models"
    UNKNOWN = "unknown"


_COLLECTIONS: Final = ("responses", "models")
_ID: Final = "*"
_ROUTES: Final[Mapping[tuple[str, ...], Kind]] = {
    ("POST", "chat", "completions"): Kind.CHAT,
    ("POST", "responses"): Kind.RESPONSES,
    ("GET", "responses", _ID): Kind.RETRIEVE,
    ("POST", "responses", _ID, "cancel"): Kind.CANCEL,
    ("POST", "embeddings"): Kind.EMBEDDINGS,
    ("GET", "models"): Kind.MODELS,
    ("GET", "models", _ID): Kind.MODELS,
}
_REQUIRED: Final[Mapping[Kind, tuple[str, ...]]] = {
    Kind.CHAT: ("model", "messages"),
    Kind.RESPONSES: ("model",),
    Kind.EMBEDDINGS: ("model", "input"),
}
"""What those calls need that ask a model for something."""


class BadRequestError(Exception):
    """What the API answers with a status of 400 or 404.

    Args:
        message: For the developer.
        status: The HTTP status.
        param: The parameter that is wrong.
        code: The API's word for it.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, as a script sees it.

    Headers and body are kept out of its `repr`: they hold API keys and prompts.

    Args:
        kind: Which call of the API it is.
        method: The HTTP method.
        path: The path, decoded, without the query.
        query: The query; of a repeated name, the last value.
        headers: By lower-case name.
        body: The JSON body; empty where there is none.
        model: The model asked for, or Azure's deployment.
        azure: Whether it came by one of Azure's paths.
        resource_id: The id in the path: of a response, or of a model.
    """

    kind: Kind
    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict[str, str])
    headers: Mapping[str, str] = field(repr=False, default_factory=dict[str, str])
    body: Message = field(repr=False, default_factory=dict[str, Any])
    model: str = ""
    azure: bool = False
    resource_id: str | None = None

    @property
    def wants_answer(self) -> bool:
        """Whether a model is asked for something, not the server for its records."""
        return self.kind in _REQUIRED

    @property
    def stream(self) -> bool:
        """Whether the client wants server-sent events."""
        if self.kind is Kind.RETRIEVE:
            return self.query.get("stream", "") == "true"
        return self.body.get("stream") is True

    @property
    def messages(self) -> Sequence[Message]:
        """The messages of a chat, the input items of a response; never a bare string.

        Roles and types are those of the API that was called.
        """
        given = self.body.get("messages", self.body.get("input"))
        if isinstance(given, str):
            return ({"role": "user", "content": given},)
        return tuple(_objects(given))

    @property
    def text(self) -> str:
        """What the user said last; empty where they said nothing."""
        for message in reversed(self.messages):
            if message.get("role") == "user":
                return text_of(message.get("content"))
        return ""

    @property
    def tool_results(self) -> Sequence[str]:
        """What the tools have answered since the user spoke last.

        So `if not request.tool_results` is the first round of a turn.
        """
        results: list[str] = []
        for message in reversed(self.messages):
            if message.get("role") == "user":
                break
            if message.get("role") == "tool":
                results.append(text_of(message.get("content")))
            elif message.get("type") == "function_call_output":
                results.append(text_of(message.get("output")))
        return tuple(reversed(results))

    @property
    def json_schema(self) -> Message | None:
        """The schema that the answer must follow, with its name, if one was given."""
        chat = _object(self.body.get("response_format"))
        if chat.get("type") == _SCHEMA:
            return _object(chat.get("json_schema"))
        form = _object(_object(self.body.get("text")).get("format"))
        return form if form.get("type") == _SCHEMA else None


def text_of(content: object) -> str:
    """Return the text of a message's content, which may come in typed parts."""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in _objects(content))


def read_request(
    method: str, target: str, headers: Mapping[str, str], body: bytes
) -> tuple[Request, BadRequestError | None]:
    """Return what was asked for, and what is wrong with it.

    A bad request is still a `Request`: tests want to see what their client sent.
    """
    path, _, query = target.partition("?")
    # Split first, decode then: a model may be called `a/b`.
    segments = [unquote(segment) for segment in path.split("/") if segment]
    deployment = None
    azure = segments[:1] == [_AZURE]
    if azure:
        segments = segments[1:]
        if segments[:1] == [_DEPLOYMENTS]:
            deployment, segments = "".join(segments[1:2]), segments[2:]
    if segments[:1] == [_VERSION]:
        segments = segments[1:]
    kind, resource_id = _route(method, segments)
    parsed, problem = _read_body(body)
    model = parsed.get("model")
    request = Request(
        kind=kind,
        method=method,
        path=unquote(path),
        query=dict(parse_qsl(query, keep_blank_values=True)),
        headers=headers,
        body=parsed,
        model=model if isinstance(model, str) and model else deployment or "",
        azure=azure,
        resource_id=resource_id,
    )
    return request, problem or _problem_of(request)


def _route(method: str, segments: list[str]) -> tuple[Kind, str | None]:
    shape, resource_id = list(segments), None
    if len(segments) > 1 and segments[0] in _COLLECTIONS:
        shape[1], resource_id = _ID, segments[1]
    return _ROUTES.get((method, *shape), Kind.UNKNOWN), resource_id


def _read_body(body: bytes) -> tuple[Message, BadRequestError | None]:
    if not body:
        return {}, None
    try:
        parsed: object = json.loads(body)
    except (ValueError, RecursionError):
        parsed = None
    if isinstance(parsed, dict):
        return cast("Message", parsed), None
    message = "We could not parse the JSON body of your request as an object."
    return {}, BadRequestError(message)


def _problem_of(request: Request) -> BadRequestError | None:
    if request.kind is Kind.UNKNOWN:
        message = f"Unknown request URL: {request.method} {request.path}."
        return BadRequestError(message, status=404, code="unknown_url")
    # Azure's older paths are versioned by the query; its `/openai/v1/` is not.
    versioned = request.path.startswith(f"/{_AZURE}/{_VERSION}/")
    if request.azure and not versioned and "api-version" not in request.query:
        return BadRequestError("Resource not found", status=404, code="404")
    for name in _REQUIRED.get(request.kind, ()):
        given = request.model if name == "model" else request.body.get(name)
        if given in (None, ""):
            message = f"Missing required parameter: '{name}'."
            return BadRequestError(
                message, param=name, code="missing_required_parameter"
            )
    return None


def _object(value: object) -> Message:
    return cast("Message", value) if isinstance(value, Mapping) else {}


def _objects(value: object) -> Iterable[Message]:
    if not isinstance(value, list):
        return ()
    items = cast("list[object]", value)
    return (cast("Message", item) for item in items if isinstance(item, Mapping))
