"""What lies in a variant's directory."""

import ast

import pytest

from tests.contract.harness import EDITED, PATHS

MOST_LINES = 1800
LONGEST_FUNCTION = 100


@pytest.mark.contract("files")
def test_files_of_the_template_are_there(variant):
    absent = sorted(path for path in PATHS.values() if not (variant.directory / path).is_file())
    assert not absent, f"{variant.package} lacks {', '.join(absent)}: keep the file names of base"


@pytest.mark.contract("files")
def test_the_edited_files_stay_readable(variant):
    present = [variant.directory / PATHS[name] for name in EDITED]
    lines = {path.name: len(path.read_text("utf-8").splitlines()) for path in present}
    assert sum(lines.values()) <= MOST_LINES, f"{lines}: together at most {MOST_LINES} lines"


@pytest.mark.contract("files")
def test_no_function_is_too_long(variant):
    long = []
    for path in variant.sources():
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno
                length = node.end_lineno - node.lineno + 1
                if length > LONGEST_FUNCTION:
                    long.append(f"{path.name}:{node.lineno}: {node.name} has {length} lines")
    assert not long, f"at most {LONGEST_FUNCTION} lines per function: {'; '.join(long)}"
