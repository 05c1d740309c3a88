"""The API that openai's own tests ask, answered as the library's types say.

Upstream they have a mock server that is fed with a description of the API, and neither
comes with the source.  Yet the source says all that an answer needs: which method and
path, and what type comes back.  So it is read, and each request is answered with the
smallest value of its type; what is asked is not judged, for it is asked with agenttrace
and without it alike.

Run by itself, in the environment of the suite: it imports nothing of this folder.  It
prints the port that it listens on, and answers until it is ended.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import json
import pkgutil
import re
from functools import cached_property, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

import openai.resources
from pydantic import BaseModel, TypeAdapter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import ModuleType

_VERBS: Final = ("get", "post", "put", "patch", "delete")
_JSON: Final = "application/json"
_BINARY: Final = "HttpxBinaryResponseContent"
_SMALLEST: Final[dict[str, Any]] = {
    "array": [],
    "boolean": True,
    "integer": 0,
    "null": None,
    "number": 0,
    "string": "",
}
_TEXTS: Final = {
    "binary": "",
    "date": "2020-01-01",
    "date-time": "2020-01-01T00:00:00Z",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_EVENTS: Final = b"data: [DONE]\n\n"


class _Spoken(BaseModel):
    text: str


def smallest(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> Any:  # noqa: ANN401 - any JSON
    """Return a small value that *schema* allows.

    Args:
        schema: Of JSON, as pydantic writes it.
        defs: What it refers to, by name.
    """
    match schema:
        case {"$ref": name}:
            value = smallest(defs[name.rpartition("/")[2]], defs)
        case {"const": value} | {"default": value} | {"enum": [value, *_]}:
            pass
        case {"anyOf": [first, *_]} | {"oneOf": [first, *_]} | {"allOf": [first, *_]}:
            value = smallest(first, defs)
        case {"properties": fields}:
            required = schema.get("required", ())
            value = {name: smallest(fields[name], defs) for name in required}
        case {"prefixItems": items}:
            value = [smallest(each, defs) for each in items]
        case {"type": "string"}:
            value = _TEXTS.get(schema.get("format", ""), "")
        case _:
            value = _SMALLEST.get(schema.get("type", ""), {})
    return value


class Operation:
    """A method of the API: what is asked, and what is answered.

    Args:
        verb: Of HTTP, in capitals.
        template: Its path, with `{names}`.
        answer: The type of what comes back, as the library has it.
    """

    def __init__(self, verb: str, template: str, answer: object) -> None:
        self.verb = verb
        pieces = re.split(r"\{[^{}]*\}", template)
        self.variables = len(pieces) - 1
        self.path = re.compile("[^/]+".join(map(re.escape, pieces)))
        self._answer: Any = answer

    @cached_property
    def content(self) -> tuple[str, bytes]:
        """The content type of what comes back, and the bytes."""
        if getattr(self._answer, "__name__", "") == _BINARY:
            return "application/binary", b"binary"
        schema = TypeAdapter[object](self._answer).json_schema()
        value = smallest(schema, schema.get("$defs", {}))
        return _JSON, json.dumps(value).encode()


def operations() -> list[Operation]:
    """Return all that the library can ask, what has the fewest variables first."""
    found: dict[tuple[str, str], Operation] = {}
    for each in pkgutil.walk_packages(
        openai.resources.__path__, f"{openai.resources.__name__}."
    ):
        module = importlib.import_module(each.name)
        for verb, template, answer in _asked_in(module):
            key = verb, template
            if key not in found:
                found[key] = Operation(verb, template, answer)
    return sorted(found.values(), key=lambda it: it.variables)


def _asked_in(module: ModuleType) -> Iterator[tuple[str, str, object]]:
    """Yield verb, path and type of whatever *module* asks of its client."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        said = {it.arg: it.value for it in node.keywords}
        verb = node.func.attr.removeprefix("_")
        if verb == "get_api_list":
            verb = ast.literal_eval(said["method"]) if "method" in said else "get"
        elif verb not in _VERBS or "cast_to" not in said:
            continue
        [path, *_] = node.args
        if isinstance(path, ast.Call):  # of `path_template`
            path = path.args[0]
        answer = said.get("page", said.get("cast_to"))
        yield verb.upper(), ast.literal_eval(path), _evaluated(answer, module)


def _evaluated(expression: ast.expr | None, module: ModuleType) -> object:
    if expression is None:
        return None
    source = ast.unparse(expression)
    try:
        return eval(source, vars(module))  # noqa: S307 - as the library does
    except NameError:  # it depends on what is asked, in what hears speech
        return _Spoken


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"

    def __init__(self, known: Sequence[Operation], *connection: Any) -> None:  # noqa: ANN401 - as there
        self._known = known
        super().__init__(*connection)

    def handle(self) -> None:
        """Answer what is asked until the client has gone, also by a reset."""
        with contextlib.suppress(ConnectionError):
            super().handle()

    def answer(self) -> None:
        """Answer a request, whatever it is."""
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        path = self.path.partition("?")[0]
        for each in self._known:
            if each.verb == self.command and each.path.fullmatch(path):
                kind, content = each.content
                if kind == _JSON and _is_streamed(body):
                    kind, content = "text/event-stream", _EVENTS
                self._send(200, kind, content)
                return
        self._send(404, _JSON, b'{"error": {"message": "no such path"}}')

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - theirs

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - theirs
        """Say nothing."""

    def _send(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _is_streamed(body: bytes) -> bool:
    if b'name="stream"\r\n\r\ntrue' in body:
        return True
    try:
        said: Any = json.loads(body)
    except ValueError:
        return False
    return type(said) is dict and "stream" in said and said["stream"] is True


def serving() -> ThreadingHTTPServer:
    """Return a server on a port of its own, which answers all that is known."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, operations()))
    server.daemon_threads = True
    return server


if __name__ == "__main__":
    listening = serving()
    print(listening.server_port, flush=True)
    listening.serve_forever()
