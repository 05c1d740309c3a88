"""The embedded store: ended spans in one SQLite file that anybody can query.

`rows` splits a frame, `schema` says what the file looks like, `writer` and `reader`
use it, `arrivals` reads what is new, `forest` makes trees of what was read, `forks`
keeps SQLite and `fork` apart.  The sender in front of the writer is
`senders.store`.

Nothing durable depends on the store.  It answers for what it has committed until the
run is evicted, and a file that is damaged is set aside and begun anew.
"""

from agenttrace.delivery.store.forest import Node, build_forest
from agenttrace.delivery.store.reader import Reader, Run
from agenttrace.delivery.store.schema import FILE_NAME
from agenttrace.delivery.store.writer import Writer

__all__ = ["FILE_NAME", "Node", "Reader", "Run", "Writer", "build_forest"]
