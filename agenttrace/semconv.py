"""Every attribute, event and metric name that agenttrace writes, and nothing else.

This is the only file that knows which version of the semantic conventions is meant:
`gen_ai.*`, `code.*`, `error.*`, `server.*`, `exception.*` and `user.*` are
OpenTelemetry's (GenAI conventions, Development, as of
`opentelemetry-semantic-conventions` 0.66b2; a test compares the two), `agenttrace.*`
are our own and documented in `docs/reference/attributes.md` and, those of metrics, in
`docs/reference/metrics.md`.
"""

from typing import Final

# How a span ended (ours).
OUTCOME: Final = "agenttrace.outcome"
"""How the span ended; the status follows from it."""
ENDED_BY: Final = "agenttrace.ended_by"
"""What ended the span."""
DISCOVERED_AT: Final = "agenttrace.discovered_at"
"""When a span that was collected without an end was found, ISO 8601, UTC."""
LAST_HEARTBEAT: Final = "agenttrace.last_heartbeat"
"""When a span that is stuck, or lost, had last shown progress, ISO 8601, UTC."""
WAITING_ON: Final = "agenttrace.waiting_on"
"""Name of the step below this span that was judged while this one was open."""
HANG: Final = "agenttrace.hang"
"""Event on a span that the watchdog has judged: what is known of where it hangs."""
ATTRIBUTES_LOST: Final = "agenttrace.attributes_lost"
"""True on a span that had ended when its process died, before all of it was on disk."""
ITEMS: Final = "agenttrace.items"
"""How many items a stream or generator yielded before it ended."""
OPERATION: Final = "agenttrace.operation"
"""The operation of a span that no GenAI convention names."""
FALLBACKS: Final = "agenttrace.fallbacks"
"""How many attribute values of this span had to be replaced by text."""
LINK: Final = "agenttrace.link"
"""On a link: `resumed` where its span goes on with the linked one."""
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
VIEW: Final = "agenttrace.view"
"""The view of the web framework that it was started for, by its dotted name."""
MARKER: Final = "agenttrace.marker"
"""`open` on a marker: a span that says that another one, its parent, is still open."""
MARKER_OPEN: Final = "open"
MARKER_NAME: Final = "agenttrace.open"
"""What the name of a marker begins with; that of the open span follows."""
PATH: Final = "agenttrace.path"
"""Where the open span of a marker stands: the names from its outermost open ancestor
down to it."""
LOOP_BLOCKED: Final = "agenttrace.event_loop.blocked"
"""Name of the span that tells when an event loop was blocked, and by what."""
LOOP_GC_TIME: Final = "agenttrace.event_loop.gc_time"
"""Seconds of that time that the garbage collector took."""
LOOP_GOES_ON: Final = "agenttrace.event_loop.goes_on"
"""True where it was still blocked when this was told; the next span tells the rest."""
LOOP_UNTOLD: Final = "agenttrace.event_loop.untold"
"""How many blocks of event loops were not told just before, because there were many."""
LOOP_DUMP: Final = "agenttrace.event_loop.dump"
"""The stack of the loop's thread as faulthandler saw it while the GIL was held."""
LOOP_NESTED: Final = "agenttrace.event_loop.nested"
"""Where a span has run an event loop within its own: file, line and function."""
MESSAGE_FROM: Final = "agenttrace.message.from"
"""Name of the agent that sends a message to another one and waits for its answer."""
MESSAGE_TO: Final = "agenttrace.message.to"
"""Name of the agent that such a message is for."""
ABANDONED_AT: Final = "agenttrace.abandoned_at"
"""When the last listener of an agent run that goes on has left it, ISO 8601, UTC."""
AGENTS_TRACE_ID: Final = "agenttrace.agents.trace_id"
"""The id of the Agents SDK's own trace, by which its vendor knows the run."""
TURN: Final = "agenttrace.turn"
"""Which turn of its run this one is, the first being 1."""
HANDOFF_FROM: Final = "agenttrace.handoff.from"
"""Name of the agent that hands over."""
HANDOFF_TO: Final = "agenttrace.handoff.to"
"""Name of the agent that takes over."""
GUARDRAIL_TRIGGERED: Final = "agenttrace.guardrail.triggered"
"""Whether a guardrail has found what it guards against."""
MCP_SERVER: Final = "agenttrace.mcp.server"
"""Name of the MCP server that was asked."""
MCP_TOOLS: Final = "agenttrace.mcp.tools"
"""Names of the tools that it has."""
DATA: Final = "agenttrace.data"
"""What an application has said of a step of its own, where content is captured."""

# Where and why a span hangs (ours).
HANG_CAUSE: Final = "agenttrace.hang.cause"
"""Why a span hangs: `network_wait`, `event_loop_blocked`, `lock`, `thread`, ..."""
HANG_EXPLANATION: Final = "agenttrace.hang.explanation"
"""The cause in words."""
HANG_RULE: Final = "agenttrace.hang.rule"
"""Which limit has passed: `silence` (no progress) or `overdue` (total time)."""
HANG_IDLE: Final = "agenttrace.hang.idle"
"""Seconds since the last sign of progress."""
HANG_LIMIT: Final = "agenttrace.hang.limit"
"""The limit that has passed, in seconds."""
HANG_WAITS_FOR: Final = "agenttrace.hang.waits_for"
"""Tasks and threads that wait one for the other, from the span's own to the last."""
HANG_NOTE: Final = "agenttrace.hang.note"
"""What the last `heartbeat()` of a stuck span said."""
HANG_PROGRESS: Final = "agenttrace.hang.progress"
"""The share of the work that was done by the last `heartbeat()` of a stuck span."""
HANG_CERTAIN: Final = "agenttrace.hang.certain"
"""False where the stack told is not known to be the span's own."""

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
CODE_FILE_PATH: Final = "code.file.path"
CODE_FUNCTION_NAME: Final = "code.function.name"
CODE_LINE_NUMBER: Final = "code.line.number"
CODE_STACKTRACE: Final = "code.stacktrace"
ERROR_TYPE: Final = "error.type"
HTTP_ROUTE: Final = "http.route"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
USER_ID: Final = "user.id"
EXCEPTION_EVENT: Final = "exception"
EXCEPTION_TYPE: Final = "exception.type"
EXCEPTION_MESSAGE: Final = "exception.message"
EXCEPTION_STACKTRACE: Final = "exception.stacktrace"
SERVICE_NAME: Final = "service.name"
SERVICE_INSTANCE_ID: Final = "service.instance.id"

# Values of agenttrace.link.
RESUMED: Final = "resumed"

# Values of gen_ai.operation.name.
CHAT: Final = "chat"
EMBEDDINGS: Final = "embeddings"
RETRIEVAL: Final = "retrieval"
INVOKE_AGENT: Final = "invoke_agent"
INVOKE_WORKFLOW: Final = "invoke_workflow"
EXECUTE_TOOL: Final = "execute_tool"

# Metrics (ours).
METRICS: Final = (
    (
        "agenttrace.delivery.queued",
        "updowncounter",
        "{span}",
        "delivery.queued",
        "Spans that have ended and are not encoded yet.",
    ),
    (
        "agenttrace.delivery.buffered",
        "updowncounter",
        "{span}",
        "delivery.buffered_spans",
        "Spans that are encoded, and some destination has not acknowledged.",
    ),
    (
        "agenttrace.delivery.acknowledged",
        "counter",
        "{span}",
        "counts.spans_acknowledged",
        "Spans that every destination has acknowledged.",
    ),
    (
        "agenttrace.delivery.retries",
        "counter",
        "1",
        "counts.export_retries",
        "Attempts to send that were put off, to be made again.",
    ),
    (
        "agenttrace.delivery.failures",
        "counter",
        "1",
        "counts.export_failures",
        "Attempts to send that failed: put off, refused, or taken in part.",
    ),
    (
        "agenttrace.delivery.dropped",
        "counter",
        "{span}",
        "counts.spans_dropped",
        "Spans that some destination will never have.",
    ),
    (
        "agenttrace.delivery.left",
        "counter",
        "{span}",
        "counts.spans_left",
        "Spans that a shutdown out of time left on disk, for the next process.",
    ),
    (
        "agenttrace.journal.size",
        "updowncounter",
        "By",
        "journal_bytes",
        "Size of the journal's file; 0 where there is none.",
    ),
    (
        "agenttrace.journal.missed",
        "counter",
        "{span}",
        "counts.spans_not_journaled",
        "Spans that found no room in the journal: a crash would lose them.",
    ),
    (
        "agenttrace.spool.size",
        "updowncounter",
        "By",
        "spool_bytes",
        "Bytes on disk of what has ended and is not settled.",
    ),
    (
        "agenttrace.spool.missed",
        "counter",
        "{span}",
        "counts.spans_not_spooled",
        "Spans that could not be written to disk before they were sent.",
    ),
    (
        "agenttrace.spool.damaged",
        "counter",
        "1",
        "counts.segments_damaged",
        "Files of the spool that could not be read to their end.",
    ),
    (
        "agenttrace.watchdog.late",
        "counter",
        "1",
        "counts.ticks_late",
        "Ticks that came a second late or more, and judged nobody.",
    ),
    (
        "agenttrace.watchdog.put_off",
        "counter",
        "1",
        "counts.looks_put_off",
        "Looks at a span that a tick had no time for: they came with a later one.",
    ),
    (
        "agenttrace.watchdog.hung",
        "counter",
        "1",
        "counts.calls_hung",
        "Calls of processors or log handlers that did not come back for seconds.",
    ),
    (
        "agenttrace.recovery.recovered",
        "counter",
        "{span}",
        "counts.spans_recovered",
        "Spans that dead processes had open, or had ended and not sent, told here.",
    ),
    (
        "agenttrace.recovery.redelivered",
        "counter",
        "{span}",
        "counts.spans_redelivered",
        "Spans that stood in the spool of dead processes, sent from here.",
    ),
)
"""Name, instrument, unit, where `Runtime.status()` has the same number, meaning."""
