"""The budgets: what each row may cost, what it is meant to, and when a check fails.

*must* fails a release, *aim* is what a prototype has shown to be possible, and *limit*
is what the smoke run in continuous integration asserts: few rounds on a machine that
others use as well, so a half more than *must*, and more where a single neighbour can
double the figure.  The table says what was measured, and not what the limit hides.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Budget(NamedTuple):
    """One row.

    Args:
        what: What is measured, for the reader.
        unit: Of all numbers; empty for a ratio.
        must: The most that a release may cost.
        aim: What it is meant to cost.
        limit: The most that the smoke run lets pass.
    """

    what: str
    unit: str
    must: float
    aim: float
    limit: float


BUDGETS: Final = {
    "span": Budget(
        "one `with agenttrace.span`, 10 attributes ÷ the SDK's with a batch processor",
        "",
        0.35,
        0.22,
        0.5,
    ),
    "otel_span": Budget(
        "the same span by OpenTelemetry's API (`start_as_current_span`) ÷ the SDK's",
        "",
        0.35,
        0.22,
        0.5,
    ),
    "chat": Budget("openai chat call ÷ uninstrumented", "", 1.07, 1.05, 1.25),
    "async_chat": Budget("the same, `AsyncOpenAI`", "", 1.07, 1.05, 1.25),
    # Of steps there is no noise, so their limit is the budget: what a span by hand
    # adds to a call with the SDK is 4.9 %.
    "chat_steps": Budget(
        "added to an openai chat call, in steps of the interpreter", "%", 5, 4, 5
    ),
    "async_chat_steps": Budget("the same, `AsyncOpenAI`", "%", 5, 4, 5),
    "agents": Budget(
        "Agents SDK run with a tool, 8 spans ÷ uninstrumented", "", 1.15, 1.10, 1.4
    ),
    # The difference of two times of 150 µs on a slow machine: a tenth of one is noise.
    "chunk": Budget("added to each chat chunk", "µs", 3, 2, 20),
    "async_chunk": Budget("the same, `AsyncOpenAI`", "µs", 3, 2, 20),
    "event": Budget("added to each Responses event", "µs", 2, 1.2, 20),
    "async_event": Budget("the same, `AsyncOpenAI`", "µs", 2, 1.2, 20),
    "chunk_steps": Budget(
        "added to each chat chunk, in steps of the interpreter", "%", 2.5, 2, 2.5
    ),
    "async_chunk_steps": Budget("the same, `AsyncOpenAI`", "%", 2.5, 2, 2.5),
    "event_steps": Budget(
        "added to each Responses event, in steps of the interpreter", "%", 15, 12.5, 15
    ),
    "async_event_steps": Budget("the same, `AsyncOpenAI`", "%", 15, 12.5, 15),
    "item": Budget(
        "added to each item of a decorated generator "
        "÷ one `ContextVar.set` and `reset`",
        "",
        1.7,
        1.3,
        2.6,
    ),
    "async_item": Budget(
        "the same, asynchronous, beyond an empty asynchronous wrapper",
        "",
        1.7,
        1.3,
        2.6,
    ),
    "startup": Budget(
        "import, `configure` and `instrument`, beyond `import openai` "
        "÷ importing and setting up the SDK",
        "",
        0.56,
        0.28,
        0.9,
    ),
    "memory": Budget("memory of an open span, 10 attributes", "B", 2000, 1800, 2000),
    # The watchdog keeps the records of spans that it met at a tick until it tidies up.
    "left": Budget("memory left of a span that was delivered", "B", 50, 50, 500),
    "export": Budget(
        "CPU to export one span, HTTP included ÷ the SDK's OTLP exporter",
        "",
        0.25,
        0.16,
        0.4,
    ),
    "lag": Budget("p99 event loop lag at 2,000 spans/s, beyond idle", "ms", 1, 0.6, 10),
    "fanout": Budget(
        "added to each of 2,000 concurrent runs of 3 spans ÷ what the SDK adds",
        "",
        0.27,
        0.16,
        0.5,
    ),
    "watch": Budget(
        "CPU of the watchdog with 99,000 open spans, nothing due", "%", 1, 0.2, 3
    ),
    "late": Budget("a verdict among them, from limit to hook", "s", 1, 0.25, 5),
    "heartbeat": Budget("one `heartbeat()`", "µs", 2, 1, 10),
    "report": Budget(
        "a hang report while the loop of 1,000 tasks is blocked", "ms", 400, 50, 2000
    ),
    "idle": Budget("wake-ups a second with no span open", "", 0, 0, 0),
    "burst": Budget(
        "spans dropped of a burst of 50,000, backend 300 ms away", "", 0, 0, 0
    ),
}

CASES: Final = {
    "span": ("span", "otel_span"),
    "chat": ("chat", "async_chat"),
    "agents": ("agents",),
    "stream": ("chunk", "async_chunk", "event", "async_event"),
    "steps": (
        "chat_steps",
        "async_chat_steps",
        "chunk_steps",
        "async_chunk_steps",
        "event_steps",
        "async_event_steps",
    ),
    "items": ("item", "async_item"),
    "startup": ("startup",),
    "memory": ("memory", "left"),
    "export": ("export",),
    "lag": ("lag",),
    "fanout": ("fanout",),
    "watchdog": ("watch", "late", "heartbeat", "report"),
    "idle": ("idle",),
    "burst": ("burst",),
}
"""The rows that each module in `cases` measures."""
