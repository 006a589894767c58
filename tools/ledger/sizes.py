"""python -m tools.ledger.sizes TREE

Prints the kept size of a tree as one JSON object, or {"error": why there is none}.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tools.ledger import kept_sizes

if __name__ == "__main__":
    print(json.dumps(kept_sizes.load(Path(), sys.argv[1]), sort_keys=True))
