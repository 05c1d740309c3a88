"""Every attribute, event and metric name that agenttrace writes, and nothing else.

This is the only file that knows which version of the semantic conventions is meant:
`gen_ai.*`, `error.*`, `server.*`, `exception.*` and `user.*` are OpenTelemetry's
(GenAI conventions, Development, as of `opentelemetry-semantic-conventions` 0.66b2;
a test compares the two), `agenttrace.*` are our own and documented in
`docs/reference/attributes.md`.
"""

from typing import Final

# How a span ended (ours).
OUTCOME: Final = "agenttrace.outcome"
"""How the span ended; the status follows from it."""
ENDED_BY: Final = "agenttrace.ended_by"
"""What ended the span."""
DISCOVERED_AT: Final = "agenttrace.discovered_at"
"""When a span that was collected without an end was found, ISO 8601, UTC."""
ITEMS: Final = "agenttrace.items"
"""How many items a stream or generator yielded before it ended."""
OPERATION: Final = "agenttrace.operation"
"""The operation of a span that no GenAI convention names."""
FALLBACKS: Final = "agenttrace.fallbacks"
"""How many attribute values of this span had to be replaced by text."""
LATE_FINISH: Final = "agenttrace.late_finish"
"""Name of the span that tells the end of one whose end had been told before."""
PARTIAL: Final = "agenttrace.partial"
"""True where output or usage is only what had arrived when the span ended."""
OUTPUT_CHARACTERS: Final = "agenttrace.output.characters"
"""How many characters of output had arrived when a stream ended before its end."""
STREAM_UNREAD: Final = "agenttrace.stream.unread"
"""True where a stream ended without a single item having been read."""
RESPONSE_STATUS: Final = "agenttrace.response.status"
"""Status of a background response when last heard of (`in_progress`, ...)."""
POLLS: Final = "agenttrace.response.polls"
"""How often a background response was asked for."""

# GenAI.
GEN_AI_OPERATION_NAME: Final = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME: Final = "gen_ai.provider.name"
GEN_AI_CONVERSATION_ID: Final = "gen_ai.conversation.id"
GEN_AI_OUTPUT_TYPE: Final = "gen_ai.output.type"
GEN_AI_AGENT_NAME: Final = "gen_ai.agent.name"
GEN_AI_TOOL_NAME: Final = "gen_ai.tool.name"
GEN_AI_TOOL_CALL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
GEN_AI_TOOL_CALL_RESULT: Final = "gen_ai.tool.call.result"
GEN_AI_WORKFLOW_NAME: Final = "gen_ai.workflow.name"
GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
GEN_AI_REQUEST_STREAM: Final = "gen_ai.request.stream"
GEN_AI_REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
GEN_AI_REQUEST_TOP_P: Final = "gen_ai.request.top_p"
GEN_AI_REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
GEN_AI_REQUEST_FREQUENCY_PENALTY: Final = "gen_ai.request.frequency_penalty"
GEN_AI_REQUEST_PRESENCE_PENALTY: Final = "gen_ai.request.presence_penalty"
GEN_AI_REQUEST_STOP_SEQUENCES: Final = "gen_ai.request.stop_sequences"
GEN_AI_REQUEST_SEED: Final = "gen_ai.request.seed"
GEN_AI_REQUEST_CHOICE_COUNT: Final = "gen_ai.request.choice.count"
GEN_AI_REQUEST_ENCODING_FORMATS: Final = "gen_ai.request.encoding_formats"
GEN_AI_EMBEDDINGS_DIMENSION_COUNT: Final = "gen_ai.embeddings.dimension.count"
GEN_AI_RESPONSE_ID: Final = "gen_ai.response.id"
GEN_AI_RESPONSE_MODEL: Final = "gen_ai.response.model"
GEN_AI_RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
GEN_AI_USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
GEN_AI_INPUT_MESSAGES: Final = "gen_ai.input.messages"
GEN_AI_OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
GEN_AI_SYSTEM_INSTRUCTIONS: Final = "gen_ai.system_instructions"

# Core conventions.
ERROR_TYPE: Final = "error.type"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
USER_ID: Final = "user.id"
EXCEPTION_EVENT: Final = "exception"
EXCEPTION_TYPE: Final = "exception.type"
EXCEPTION_MESSAGE: Final = "exception.message"
EXCEPTION_STACKTRACE: Final = "exception.stacktrace"
SERVICE_NAME: Final = "service.name"
SERVICE_INSTANCE_ID: Final = "service.instance.id"

# Values of gen_ai.operation.name.
CHAT: Final = "chat"
EMBEDDINGS: Final = "embeddings"
INVOKE_AGENT: Final = "invoke_agent"
INVOKE_WORKFLOW: Final = "invoke_workflow"
EXECUTE_TOOL: Final = "execute_tool"
