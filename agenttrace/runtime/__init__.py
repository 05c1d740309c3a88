"""The only place that constructs: settings in, a running tracer out, and back again.

`configure()` builds a `Runtime` from settings and makes it the current one.  What is
built stands in `core` and `pipelines`; who we are in `resource`, where spans go in
`destinations`, what survives the process in `durability`, and what happens at a fork,
at exit and at SIGTERM in `process` and `sigterm`.  Commands recover without a runtime,
by a `Rescue` of `rescue`, which is imported by them alone.
"""

from agenttrace.runtime.core import (
    Runtime,
    configure,
    current,
    flush,
    open_spans,
    recover,
    shutdown,
)
from agenttrace.runtime.status import Status

__all__ = [
    "Runtime",
    "Status",
    "configure",
    "current",
    "flush",
    "open_spans",
    "recover",
    "shutdown",
]
