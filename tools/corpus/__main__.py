"""`python -m tools.corpus`."""

import sys

from tools.corpus.cli import main

if __name__ == "__main__":
    sys.exit(main())
