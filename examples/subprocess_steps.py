"""An agent one step of which is another program.

Run it, then look: `python examples/subprocess_steps.py && agenttrace tree --last 1`.
"""

import subprocess
import sys

import agenttrace

agenttrace.configure(service_name="subprocess-example")


@agenttrace.tool
def draw(subject: str):
    print(f"A drawing of {subject}.")


@agenttrace.agent
def illustrate(subject: str):
    program = [sys.executable, __file__, subject]
    # The trace goes along in the environment, and `configure` finds it there.
    subprocess.run(program, env=agenttrace.environ(), check=True)


if sys.argv[1:]:
    draw(sys.argv[1])
else:
    illustrate("a lighthouse")
