"""Runs the cases beside this file with the pytest of their own resolve."""

import sys
from pathlib import Path

import pytest

if __name__ == "__main__":
    here = str(Path(__file__).parent)
    sys.exit(pytest.main([here, f"--rootdir={here}", "-p", "no:cacheprovider", *sys.argv[1:]]))
