"""experiments/grug/buckets.json names all that the template's files define, and nothing else."""

import ast
from pathlib import Path

import pytest

from tools.diff import buckets
from tools.ledger import ledger

GRUG = Path(__file__).parents[3] / "experiments/grug"


@pytest.fixture(scope="module")
def known():
    return buckets.parse((GRUG / "buckets.json").read_text(), "buckets.json")


def defined(path):
    """Qualified names of classes, functions and methods, and of what a module binds at its top."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            yield node.name
            for inner in node.body:
                if isinstance(inner, (ast.ClassDef, ast.FunctionDef)):
                    yield f"{node.name}.{inner.name}"
        elif isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets)
        elif isinstance(node, ast.AnnAssign):
            yield node.target.id


@pytest.mark.parametrize("name", ["model.py", "train.py", "launch.py"])
def test_every_definition_of_the_template_is_declared(known, name):
    names = set(defined(GRUG / "base" / name))
    declared = set(known[name].names) - {"<imports>", "<module>"}
    assert names - declared == set(), "write these into experiments/grug/buckets.json"
    assert declared - names == set(), "these are gone: take them out of buckets.json"


def test_every_file_of_the_template_has_a_default(known):
    tests = ("test_", "conftest", "contract")
    files = {p.name for p in (GRUG / "base").glob("*.py") if not p.name.startswith(tests)}
    assert files - set(known) == set()


def test_the_buckets_are_the_ledgers():
    assert set(buckets.BUCKETS) | {"template"} == set(ledger.BUCKETS)
