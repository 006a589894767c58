"""One change of each bucket, held to the whole contract and to the copy's own tests.

All together they take more than an hour on two cores, so that they run by hand alone, with
GRUG_COPIES=1. GRUG_CHANGE names the change; without it, all are tested.
"""

import os
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.variants.copies import make_copy
from tests.variants.edits import CHANGES

pytestmark = pytest.mark.skipif(
    not os.environ.get("GRUG_COPIES"), reason="takes more than an hour: GRUG_COPIES=1 runs it"
)
NAMES = os.environ.get("GRUG_CHANGE", " ".join(CHANGES)).split()


@pytest.mark.parametrize("name", NAMES)
def test_it_keeps_the_whole_contract(name: str, tmp_path: Path) -> None:
    make_copy(tmp_path, name, CHANGES[name].edits).check_contract()


@pytest.mark.parametrize("name", NAMES)
def test_of_its_own_tests_only_those_fail_that_it_is_meant_to_break(
    name: str, tmp_path: Path
) -> None:
    copy, report = make_copy(tmp_path, name, CHANGES[name].edits), tmp_path / "report.xml"
    result = copy.own_tests(f"--junitxml={report}")
    cases = list(ET.parse(report).iter("testcase"))
    assert len(cases) > 50, result.stdout[-5_000:] + result.stderr[-2_000:]
    red = {
        f"{case.get('classname', '').rpartition('.')[2]}.py::{case.get('name')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    }
    assert red == CHANGES[name].red, result.stdout[-10_000:]
