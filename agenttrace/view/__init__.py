"""A local web page that shows runs as they happen.

`runs` knows what there is to see: it puts what has ended (the embedded store) and what
is open (the journals) together.  `server` tells it to a browser on this machine, and
`page/` is what the browser shows it with: plain modules, without a build step and
without anything from elsewhere.

It reads, and changes nothing: no process that is shown is asked for anything.
"""

from agenttrace.view.runs import Runs
from agenttrace.view.server import Server

__all__ = ["Runs", "Server"]
