"""Content in the form of the GenAI conventions: messages of a role and parts.

https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-input-messages.json is the
schema of what is asked, `...-output-messages.json` of what is answered.  What has no
name there keeps its type and nothing else: images and audio are sent by reference, and
never in full.  Called only where content is captured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Part = dict[str, Any]
Message = dict[str, Any]

_TEXTS: Final = frozenset({"text", "input_text", "output_text", "refusal"})
_REASONS: Final = {"tool_calls": "tool_call", "function_call": "tool_call"}
"""The conventions' words for finish reasons, where they differ from the API's."""
UNFINISHED: Final = ""
"""The finish reason of what was cut: it has none."""


def of_chat(given: object) -> list[Message]:
    """Return the `messages` of a chat request."""
    return [_chat_message(message) for message in _objects(given)]


def of_input(given: object) -> list[Message]:
    """Return the `input` of a Responses request: a text, or items of all kinds."""
    if isinstance(given, str):
        return [{"role": "user", "parts": [_text(given)]}]
    return [_input_item(item) for item in _objects(given)]


def of_instructions(given: object) -> list[Part]:
    """Return the `instructions` of a Responses request."""
    return [_text(given)] if isinstance(given, str) else []


def of_choice(choice: Any) -> Message:  # noqa: ANN401 - a Choice, or plain JSON
    """Return one choice of a completion."""
    message = choice.message
    parts = _parts(message.content) if message.content else []
    if message.refusal:
        parts.append(_text(message.refusal))
    parts += [_chat_call(call) for call in message.tool_calls or ()]
    return _answered(parts, choice.finish_reason)


def of_output(output: Iterable[Any], reason: str) -> list[Message]:
    """Return the output items of a response as the one message they are."""
    parts: list[Part] = []
    for item in output:
        if item.type == "message":
            for part in item.content or ():
                said = part.refusal if part.type == "refusal" else part.text
                parts.append(_text(said))
        elif item.type == "function_call":
            parts.append(_call(item.call_id, item.name, item.arguments))
        elif item.type == "reasoning":
            parts += [_reasoning(each.text) for each in item.summary or ()]
        else:
            parts.append({"type": str(item.type)})
    return [_answered(parts, reason)]


def of_text(text: str) -> Message:
    """Return the beginning of an answer that was cut."""
    return _answered([_text(text)], UNFINISHED)


def unmodelled(delta: Any) -> Iterator[object]:  # noqa: ANN401 - a delta, or plain JSON
    """Yield the values in a delta that the client has no field for."""
    extra = delta.model_extra
    if extra:
        yield from extra.values()
    elif isinstance(delta, dict):
        items = cast("dict[str, object]", delta).items()
        yield from (value for key, value in items if key.startswith("reasoning"))


class Spoken:
    """What a stream has said so far, put together."""

    def __init__(self) -> None:
        self._texts: dict[int, list[str]] = {}
        self._calls: dict[int, dict[int, Part]] = {}

    def text(self, index: int, text: object) -> None:
        """Add *text*, which compatible servers may send in parts, to a choice."""
        self._texts.setdefault(index, []).append(_plain_text(text))

    def tool_call(self, index: int, call: Any) -> None:  # noqa: ANN401 - a delta, or plain JSON
        """Add a piece of a tool call to the choice *index*."""
        calls = self._calls.setdefault(index, {})
        function = call.function
        part = calls.setdefault(call.index, _call(call.id, function.name, ""))
        part["arguments"] += function.arguments or ""

    def messages(self, finished: Mapping[int, str]) -> list[Message]:
        """Return one message a choice, with the reasons of those that have finished."""
        found: list[Message] = []
        for index in sorted({*self._texts, *self._calls, *finished}):
            parts = [_text("".join(text)) for text in (self._texts.get(index),) if text]
            parts += self._calls.get(index, {}).values()
            found.append(_answered(parts, finished.get(index, UNFINISHED)))
        return found


def _chat_message(message: Mapping[str, Any]) -> Message:
    role = str(message.get("role"))
    if role == "tool":
        result = _plain_text(message.get("content"))
        return {
            "role": role,
            "parts": [_call_result(message.get("tool_call_id"), result)],
        }
    parts = _parts(message.get("content"))
    if message.get("refusal"):
        parts.append(_text(message["refusal"]))
    for call in _objects(message.get("tool_calls")):
        given = _objects([call.get("function") or call.get("custom")])
        function: Mapping[str, Any] = given[0] if given else {}
        arguments = function.get("arguments", function.get("input"))
        parts.append(_call(call.get("id"), function.get("name"), arguments))
    return {"role": role, "parts": parts}


def _input_item(item: Mapping[str, Any]) -> Message:
    kind = item.get("type", "message")
    if kind == "message":
        return {"role": str(item.get("role")), "parts": _parts(item.get("content"))}
    if kind == "function_call":
        part = _call(item.get("call_id"), item.get("name"), item.get("arguments"))
        return {"role": "assistant", "parts": [part]}
    if kind == "function_call_output":
        result = _call_result(item.get("call_id"), _plain_text(item.get("output")))
        return {"role": "tool", "parts": [result]}
    if kind == "reasoning":
        told = [str(each.get("text")) for each in _objects(item.get("summary"))]
        return {"role": "assistant", "parts": [_reasoning(text) for text in told]}
    return {"role": "assistant", "parts": [{"type": str(kind)}]}


def _parts(given: object) -> list[Part]:
    if isinstance(given, str):
        return [_text(given)]
    return [_part(part) for part in _objects(given)]


def _part(part: Mapping[str, Any]) -> Part:
    kind = str(part.get("type"))
    if kind in _TEXTS:
        return _text(part.get("text", part.get("refusal")))
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, Mapping) else image  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType]  # any JSON
    if isinstance(url, str) and not url.startswith("data:"):
        return {"type": "uri", "modality": "image", "uri": url}
    return {"type": kind}


def _plain_text(given: object) -> str:
    if isinstance(given, str):
        return given
    return "".join(str(part.get("text", "")) for part in _objects(given))


def _answered(parts: list[Part], reason: str | None) -> Message:
    reason = reason or UNFINISHED
    return {
        "role": "assistant",
        "parts": parts,
        "finish_reason": _REASONS.get(reason, reason),
    }


def _text(text: object) -> Part:
    return {"type": "text", "content": text}


def _reasoning(text: object) -> Part:
    return {"type": "reasoning", "content": text}


def _call(identity: object, name: object, arguments: object) -> Part:
    return {"type": "tool_call", "id": identity, "name": name, "arguments": arguments}


def _chat_call(call: Any) -> Part:  # noqa: ANN401 - a tool call, or plain JSON
    if call.type == "custom":
        return _call(call.id, call.custom.name, call.custom.input)
    return _call(call.id, call.function.name, call.function.arguments)


def _call_result(identity: object, result: str) -> Part:
    return {"type": "tool_call_response", "id": identity, "response": result}


def _objects(given: object) -> list[Mapping[str, Any]]:
    if not isinstance(given, Sequence) or isinstance(given, str):
        return []
    items = cast("Sequence[object]", given)
    return [cast("Mapping[str, Any]", item) for item in items if _is_object(item)]


def _is_object(item: object) -> bool:
    return isinstance(item, Mapping)
