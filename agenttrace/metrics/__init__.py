"""What agenttrace reports as metrics of an OpenTelemetry meter provider.

`instruments` makes them, once for each provider; `open_work` reads those of open spans,
and `finals` makes measurements of final forms and of verdicts.  `bounded` keeps what
they are told by from growing.

No application thread does anything for them: final forms and verdicts are measured by
a thread of their own, and all else is read when a reader asks.

Only the API is used.  Whether there is a provider, and whose, is the runtime's
business, which imports this where there is one.
"""

from agenttrace.metrics.instruments import Instruments, Source, instruments_of

__all__ = ["Instruments", "Source", "instruments_of"]
