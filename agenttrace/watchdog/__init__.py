"""Keeps time while spans are open, judges those that make no progress, watches loops.

| module | owns |
|---|---|
| `ticker` | the thread |
| `timeline` | the time on it, in which a suspended host takes none |
| `agenda` | which span is to be looked at when |
| `limits` | how long a span may be silent, and how long it may take |
| `rules`, `verdict` | what passes for stuck, and what is said of it |
| `watch` | looks, judges, and does what is to be done about it |
| `errands` | calls the application's code, which may hang |
| `hooks` | tells those who want to be told |
| `report` | where a span hangs, and why |
| `cancelling` | the tasks of spans that hang |
| `investigation` and the rest | how that is found out |
| `loops` | when an event loop was blocked, from what `turns` sees of it |
| `blocks`, `pauses` | its rules; the garbage collector's time |
| `watched`, `backstop` | the span that tells it; stacks while nobody can look |

Only the ticker is imported at the start; the rest is when a span has been open for a
tick.
"""
