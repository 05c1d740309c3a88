"""Every metric that agenttrace reports, with what each of them is.

`METRICS` are figures of the process that its status has as well, `MEASURES` are made
of spans.  Those of `gen_ai.*` are OpenTelemetry's, names, attributes and boundaries.

No name has a unit's word in it: Prometheus adds units itself, and a scrape and a push
would differ in where.
"""

from typing import Final

from agenttrace.semconv import (
    ENDED_BY,
    ERROR_TYPE,
    GEN_AI_AGENT_NAME,
    GEN_AI_OPERATION_NAME,
    GEN_AI_PROVIDER_NAME,
    GEN_AI_REQUEST_MODEL,
    GEN_AI_RESPONSE_MODEL,
    GEN_AI_TOKEN_TYPE,
    HANG_CAUSE,
    HANG_RULE,
    OUTCOME,
    SERVER_ADDRESS,
    SERVER_PORT,
)

HUNG: Final = "agenttrace.hung"
"""On metrics of runs: whether the run, or a step of it, was judged."""

METRICS: Final = (
    (
        "agenttrace.spans.unsampled",
        "counter",
        "{span}",
        "counts.spans_unsampled",
        "Spans that a sampler left out: they are watched, and not sent.",
    ),
    (
        "agenttrace.spans.evicted",
        "counter",
        "{span}",
        "counts.spans_evicted",
        "Open spans that are not watched any more, because there were too many.",
    ),
    (
        "agenttrace.spans.late_finishes",
        "counter",
        "{span}",
        "counts.late_finishes",
        "Spans that ended after all when their end had been told.",
    ),
    (
        "agenttrace.spans.late_given_up",
        "counter",
        "{span}",
        "counts.late_given_up",
        "Those of them that were cancelled, timed out or left: no false alarms.",
    ),
    (
        "agenttrace.event_loop.blocks",
        "counter",
        "1",
        "counts.loops_blocked",
        "Times that an event loop was blocked.",
    ),
    (
        "agenttrace.context.foreign_detaches",
        "counter",
        "1",
        "counts.foreign_detaches",
        "Context tokens that were given back where they were not taken.",
    ),
    (
        "agenttrace.guard.hits",
        "counter",
        "1",
        "counts.guard_hits",
        "Errors of agenttrace's, or of callbacks, that the application did not see.",
    ),
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

_SECONDS_OF_A_CALL: Final = (
    *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64),
    *(1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
)
"""The conventions' boundaries."""
_TOKENS: Final = tuple(4**power for power in range(14))
"""The conventions' boundaries."""
_SECONDS_OF_A_STALL: Final = (1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200)
_SECONDS_OF_A_BLOCK: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

SPANS_OPEN: Final = "agenttrace.spans.open"
SPANS_STUCK: Final = "agenttrace.spans.stuck"
SPANS_IDLE: Final = "agenttrace.spans.idle"
SPANS_IDLE_LIMIT: Final = "agenttrace.spans.idle.limit"
PROCESS_HEARTBEAT: Final = "agenttrace.process.heartbeat"
SPANS_ENDED: Final = "agenttrace.spans.ended"
RUNS: Final = "agenttrace.runs"
STALLS: Final = "agenttrace.stalls"
STALL_DURATION: Final = "agenttrace.stall.duration"
BLOCK_DURATION: Final = "agenttrace.event_loop.block.duration"
CALL_DURATION: Final = "gen_ai.client.operation.duration"
TOKEN_USAGE: Final = "gen_ai.client.token.usage"  # noqa: S105 - no secret
TIME_TO_FIRST_CHUNK: Final = "gen_ai.client.operation.time_to_first_chunk"

_BY_STEP: Final = (GEN_AI_OPERATION_NAME, GEN_AI_AGENT_NAME)
_BY_CALL: Final = (
    GEN_AI_OPERATION_NAME,
    GEN_AI_PROVIDER_NAME,
    GEN_AI_REQUEST_MODEL,
    GEN_AI_RESPONSE_MODEL,
    SERVER_ADDRESS,
    SERVER_PORT,
)

MEASURES: Final = {
    SPANS_OPEN: (
        "updowncounter",
        "{span}",
        _BY_STEP,
        (),
        "Spans that are open now.",
    ),
    SPANS_STUCK: (
        "updowncounter",
        "{span}",
        _BY_STEP,
        (),
        "Spans that were judged, and whose owner goes on with them.",
    ),
    SPANS_IDLE: (
        "gauge",
        "s",
        _BY_STEP,
        (),
        "For how long the longest-silent open step has been so; 0 where none is open.",
    ),
    SPANS_IDLE_LIMIT: (
        "gauge",
        "s",
        _BY_STEP,
        (),
        "How long that step may be silent; not there where it has no limit.",
    ),
    PROCESS_HEARTBEAT: (
        "gauge",
        "s",
        (),
        (),
        "When the process last answered for its metrics, in seconds since the epoch.",
    ),
    SPANS_ENDED: (
        "counter",
        "{span}",
        (*_BY_STEP, OUTCOME, ENDED_BY),
        (),
        "Spans whose final form was written, by how they ended; by `gc` were leaked.",
    ),
    RUNS: (
        "counter",
        "{run}",
        (GEN_AI_AGENT_NAME, OUTCOME, HUNG),
        (),
        "Runs that have ended: of agents and workflows that have none above them.",
    ),
    STALLS: (
        "counter",
        "{stall}",
        (*_BY_STEP, HANG_CAUSE, HANG_RULE),
        (),
        "Steps that the watchdog has judged.",
    ),
    STALL_DURATION: (
        "histogram",
        "s",
        (*_BY_STEP, HANG_CAUSE, HANG_RULE),
        _SECONDS_OF_A_STALL,
        "How long these had shown no progress.",
    ),
    BLOCK_DURATION: (
        "histogram",
        "s",
        (),
        _SECONDS_OF_A_BLOCK,
        "How long event loops were blocked.",
    ),
    CALL_DURATION: (
        "histogram",
        "s",
        (*_BY_CALL, ERROR_TYPE),
        _SECONDS_OF_A_CALL,
        "How long calls of models took.",
    ),
    TOKEN_USAGE: (
        "histogram",
        "{token}",
        (*_BY_CALL, GEN_AI_TOKEN_TYPE),
        _TOKENS,
        "Tokens that calls of models have used.",
    ),
    TIME_TO_FIRST_CHUNK: (
        "histogram",
        "s",
        _BY_CALL,
        _SECONDS_OF_A_CALL,
        "How long streams of models took until their first chunk.",
    ),
}
"""By name: instrument, unit, attributes, boundaries of a histogram, meaning."""
