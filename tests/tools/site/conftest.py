"""The small workspace of the runs' tests."""

from tests.tools.runs.conftest import workspace

__all__ = ["workspace"]
