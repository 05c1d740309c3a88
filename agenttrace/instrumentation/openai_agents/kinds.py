"""What each type of the Agents SDK's spans says: how it opens, and what it came to.

Reads the SDK's `span_data` and nothing else.  What is content (inputs, outputs,
arguments, results, data of custom spans) is read only where it is captured, and the
SDK itself fills it in only where `trace_include_sensitive_data` lets it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.trace import SpanKind

from agenttrace import content, semconv
from agenttrace.instrumentation import _messages as messages
from agenttrace.model import NO_ATTRIBUTES, Attributes, Opening
from agenttrace.records import NamedTuple

if TYPE_CHECKING:
    from typing_extensions import TypeIs

Found = dict[str, object]


class Kind(NamedTuple):
    """How spans of one type are read.

    Args:
        opening: Returns how such a span opens.
        facts: Returns what is known of it when it ends.
        is_model_call: Whether a client may go on in it.
        is_of_run: Whether it is the SDK's own loop that makes it and ends it.
        is_whole: Whether it is about a run or an agent, and not about one turn.
    """

    opening: Callable[[Any], Opening]
    facts: Callable[[Any], Attributes]
    is_model_call: bool = False
    is_of_run: bool = False
    is_whole: bool = False


def kind_of(data: Any) -> Kind:  # noqa: ANN401 - the SDK's SpanData
    """Return how a span with this data is read."""
    return _KINDS.get(data.type, _OTHER)


def opening_of_trace(trace: Any) -> Opening:  # noqa: ANN401 - the SDK's Trace
    """Return how the span of a trace opens."""
    attributes: Found = {
        semconv.GEN_AI_OPERATION_NAME: semconv.INVOKE_WORKFLOW,
        semconv.GEN_AI_WORKFLOW_NAME: trace.name,
        semconv.AGENTS_TRACE_ID: trace.trace_id,
    }
    if trace.metadata and content.wanted():
        attributes |= content.attribute_of(semconv.DATA, trace.metadata)
    name = f"{semconv.INVOKE_WORKFLOW} {trace.name}"
    return Opening(name, semconv.INVOKE_WORKFLOW, attributes=attributes)


def nothing(_: object) -> Attributes:
    """Say nothing more."""
    return NO_ATTRIBUTES


def _task(data: Any) -> Opening:  # noqa: ANN401 - the SDK's SpanData, as below
    return Opening(f"run {data.name}")


def _turn(data: Any) -> Opening:  # noqa: ANN401 - the SDK's
    attributes: Found = {
        semconv.TURN: data.turn,
        semconv.GEN_AI_AGENT_NAME: data.agent_name,
    }
    return Opening(f"turn {data.turn}", attributes=attributes)


def _agent(data: Any) -> Opening:  # noqa: ANN401 - the SDK's
    attributes: Found = {
        semconv.GEN_AI_OPERATION_NAME: semconv.INVOKE_AGENT,
        semconv.GEN_AI_AGENT_NAME: data.name,
    }
    if data.output_type:
        is_text = data.output_type == "str"
        attributes[semconv.GEN_AI_OUTPUT_TYPE] = "text" if is_text else "json"
    name = f"{semconv.INVOKE_AGENT} {data.name}"
    return Opening(name, semconv.INVOKE_AGENT, attributes=attributes)


def _function(data: Any) -> Opening:  # noqa: ANN401 - the SDK's
    attributes: Found = {
        semconv.GEN_AI_OPERATION_NAME: semconv.EXECUTE_TOOL,
        semconv.GEN_AI_TOOL_NAME: data.name,
    }
    name = f"{semconv.EXECUTE_TOOL} {data.name}"
    return Opening(name, semconv.EXECUTE_TOOL, attributes=attributes)


def _function_facts(data: Any) -> Attributes:  # noqa: ANN401 - the SDK's
    found: Found = {}
    if content.wanted():
        if data.input is not None:
            found |= content.attribute_of(
                semconv.GEN_AI_TOOL_CALL_ARGUMENTS, data.input
            )
        if data.output is not None:
            found |= content.attribute_of(semconv.GEN_AI_TOOL_CALL_RESULT, data.output)
    return found


def _model_call(provider: str, model: object) -> Opening:
    attributes: Found = {
        semconv.GEN_AI_OPERATION_NAME: semconv.CHAT,
        semconv.GEN_AI_PROVIDER_NAME: provider,
    }
    name = semconv.CHAT
    if model:
        attributes[semconv.GEN_AI_REQUEST_MODEL] = str(model)
        name = f"{semconv.CHAT} {model}"
    return Opening(name, semconv.CHAT, SpanKind.CLIENT, attributes)


def _response(_: object) -> Opening:
    return _model_call("openai", None)


def _response_facts(data: Any) -> Attributes:  # noqa: ANN401 - the SDK's
    response = data.response
    found = _usage(data.usage)
    if response is None:
        return found
    found[semconv.GEN_AI_RESPONSE_ID] = response.id
    found[semconv.GEN_AI_RESPONSE_MODEL] = str(response.model)
    found[semconv.GEN_AI_REQUEST_MODEL] = str(response.model)
    reason = _REASONS.get(response.status, "")
    if any(item.type == "function_call" for item in response.output):
        reason = "tool_calls"
    if reason:
        found[semconv.GEN_AI_RESPONSE_FINISH_REASONS] = (reason,)
    if not found.keys() & {semconv.GEN_AI_USAGE_INPUT_TOKENS}:
        found |= _usage(getattr(response.usage, "__dict__", None))
    if content.wanted():
        asked = messages.of_input(data.input)
        found |= content.attribute_of(semconv.GEN_AI_INPUT_MESSAGES, asked)
        if isinstance(response.instructions, str):
            told = messages.of_instructions(response.instructions)
            found |= content.attribute_of(semconv.GEN_AI_SYSTEM_INSTRUCTIONS, told)
        said = messages.of_output(response.output, reason)
        found |= content.attribute_of(semconv.GEN_AI_OUTPUT_MESSAGES, said)
    return found


def _generation(data: Any) -> Opening:  # noqa: ANN401 - the SDK's
    config: Mapping[str, object] = data.model_config or {}
    provider = config.get("model_impl") or "openai"
    return _model_call(str(provider), data.model)


def _generation_facts(data: Any) -> Attributes:  # noqa: ANN401 - the SDK's
    found = _usage(data.usage)
    if content.wanted():
        if data.input:
            asked = messages.of_chat(data.input)
            found |= content.attribute_of(semconv.GEN_AI_INPUT_MESSAGES, asked)
        if data.output:
            said = [message for each in data.output for message in _said(each)]
            found |= content.attribute_of(semconv.GEN_AI_OUTPUT_MESSAGES, said)
    return found


def _said(output: object) -> list[messages.Message]:
    """Return a message, or those of the response that a stream is put together to."""
    if _is_object(output) and "output" in output:
        return messages.of_input(output["output"])
    return messages.of_chat((output,))


def _is_object(value: object) -> TypeIs[Mapping[str, Any]]:
    return isinstance(value, Mapping)


def _usage(told: object) -> Found:
    if not _is_object(told):
        return {}
    given, said = told.get("input_tokens"), told.get("output_tokens")
    counts = {
        semconv.GEN_AI_USAGE_INPUT_TOKENS: given,
        semconv.GEN_AI_USAGE_OUTPUT_TOKENS: said,
        semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: _detail(
            told.get("input_tokens_details"), "cached_tokens"
        ),
        semconv.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: _detail(
            told.get("output_tokens_details"), "reasoning_tokens"
        ),
    }
    return {name: count for name, count in counts.items() if isinstance(count, int)}


def _detail(details: object, name: str) -> object:
    if _is_object(details):
        return details.get(name)
    return getattr(details, name, None)


def _handoff(data: Any) -> Opening:  # noqa: ANN401 - the SDK's
    return Opening("handoff", attributes={semconv.HANDOFF_FROM: data.from_agent or ""})


def _handoff_facts(data: Any) -> Attributes:  # noqa: ANN401 - the SDK's
    return {semconv.HANDOFF_TO: data.to_agent} if data.to_agent else NO_ATTRIBUTES


def _guardrail(data: Any) -> Opening:  # noqa: ANN401 - the SDK's
    return Opening(f"guardrail {data.name}")


def _guardrail_facts(data: Any) -> Attributes:  # noqa: ANN401 - the SDK's
    return {semconv.GUARDRAIL_TRIGGERED: bool(data.triggered)}


def _mcp(data: Any) -> Opening:  # noqa: ANN401 - the SDK's
    server = str(data.server or "")
    return Opening(
        f"list_tools {server}".strip(), attributes={semconv.MCP_SERVER: server}
    )


def _mcp_facts(data: Any) -> Attributes:  # noqa: ANN401 - the SDK's
    tools: Iterable[object] = data.result or ()
    return {semconv.MCP_TOOLS: tuple(str(tool) for tool in tools)}


def _custom(data: Any) -> Opening:  # noqa: ANN401 - the SDK's
    return Opening(data.name)


def _custom_facts(data: Any) -> Attributes:  # noqa: ANN401 - the SDK's
    if data.data and content.wanted():
        return content.attribute_of(semconv.DATA, data.data)
    return NO_ATTRIBUTES


def _voice(data: Any) -> Opening:  # noqa: ANN401 - the SDK's
    model = getattr(data, "model", None)
    attributes: Found = {semconv.GEN_AI_REQUEST_MODEL: str(model)} if model else {}
    return Opening(data.type, kind=SpanKind.CLIENT, attributes=attributes)


def _other(data: Any) -> Opening:  # noqa: ANN401 - the SDK's
    return Opening(str(data.type))


_REASONS: Final = {"completed": "stop", "incomplete": "length"}
_OTHER: Final = Kind(_other, nothing)
_KINDS: Final = {
    "task": Kind(_task, nothing, is_of_run=True, is_whole=True),
    "turn": Kind(_turn, nothing, is_of_run=True),
    "agent": Kind(_agent, nothing, is_of_run=True, is_whole=True),
    "function": Kind(_function, _function_facts),
    "response": Kind(_response, _response_facts, is_model_call=True),
    "generation": Kind(_generation, _generation_facts, is_model_call=True),
    "handoff": Kind(_handoff, _handoff_facts),
    "guardrail": Kind(_guardrail, _guardrail_facts),
    "mcp_tools": Kind(_mcp, _mcp_facts),
    "custom": Kind(_custom, _custom_facts),
    "speech": Kind(_voice, nothing),
    "transcription": Kind(_voice, nothing),
    "speech_group": Kind(_other, nothing),
}
"""By `span_data.type`."""

TRACE: Final = Kind(opening_of_trace, nothing, is_of_run=True, is_whole=True)
