"""Makes `python -m agenttrace.cli` the same as `agenttrace`."""

import sys

from agenttrace.cli import main

if __name__ == "__main__":
    sys.exit(main())
