"""What is open now in the processes of this host, read from their journals.

Nobody is asked and nothing is taken: no socket, no lock, no signal.  So it shows a
process that is stopped, or hangs in C, as well as one that is healthy.

`processes` reads, `steps` makes trees of what was read and says how close each step is
to its limit, `limits` what that limit is, and `chosen` which of them there is room for.
How they are drawn is the command line's business; what a process has left when it dies,
recovery's.
"""

from agenttrace.live.as_json import dead_as_json, picture_as_json, step_as_json
from agenttrace.live.chosen import Row, choose
from agenttrace.live.processes import Dead, Live, Picture, Process, Unreadable
from agenttrace.live.steps import Step, forest
from agenttrace.live.trees import trees_of

__all__ = [
    "Dead",
    "Live",
    "Picture",
    "Process",
    "Row",
    "Step",
    "Unreadable",
    "choose",
    "dead_as_json",
    "forest",
    "picture_as_json",
    "step_as_json",
    "trees_of",
]
