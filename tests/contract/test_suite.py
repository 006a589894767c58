"""The suite itself: every check has a test, every test is of a check."""

import pytest

from tools.isolation.exemptions import CHECKS


def test_checks_and_tests_belong_together(request: pytest.FixtureRequest):
    directory = request.path.parent
    items = [item for item in request.session.items if item.path.parent == directory]
    files = {item.path.name for item in items}
    absent = {path.name for path in directory.glob("test_*.py")} - files
    assert not absent, f"run with all files of {directory.name}; {sorted(absent)} gave no test"
    markers = {item: item.get_closest_marker("contract") for item in items}
    unmarked = {item.name for item, marker in markers.items() if marker is None}
    assert unmarked == {request.node.name}
    checks = {marker.args[0] for marker in markers.values() if marker is not None}
    assert checks == set(CHECKS)
