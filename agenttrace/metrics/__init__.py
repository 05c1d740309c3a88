"""What agenttrace reports as metrics of an OpenTelemetry meter provider.

`instruments` makes them, once for each provider; `open_work` reads those of open spans,
`ends` counts final forms, and `finals` makes measurements of some, and of verdicts.
`bounded` keeps what they are told by from growing.

No application thread does anything for them: final forms are counted by the thread that
has encoded them, what is measured is measured by a thread of its own, and all else is
read when a reader asks.

Only the API is used.  Whether there is a provider, and whose, is the runtime's
business, which imports this where there is one.
"""

from agenttrace.metrics.instruments import Instruments, Source, instruments_of

__all__ = ["Instruments", "Source", "instruments_of"]
