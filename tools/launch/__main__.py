"""The program that `./pants run launch` runs: the one that can reach every variant."""

import sys

from tools.launch.main import main

sys.exit(main(sys.argv[1:]))
