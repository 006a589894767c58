"""Sizes of variants that are gone: what was measured while they were there, or why none is."""

import json

import pytest

from tools.common.errors import ToolError
from tools.ledger import kept_sizes

TREE = "0123456789ab" * 3 + "0123"
SIZE = {"preset": "tiny", "parameters": 7, "active_parameters": None, "flops_per_token": 9.5}


def write(root, data: bytes):
    path = root / kept_sizes.place(TREE)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_what_is_kept_is_what_was_measured(tmp_path):
    data = kept_sizes.encode(SIZE, TREE, "experiments/grug/x")
    write(tmp_path, data)
    assert kept_sizes.load(tmp_path, TREE[:12]) == SIZE
    assert data == kept_sizes.encode(dict(reversed(SIZE.items())), TREE, "experiments/grug/x")


def test_what_was_not_kept_is_said(tmp_path):
    assert "was not kept while" in kept_sizes.load(tmp_path, TREE)["error"]


@pytest.mark.parametrize(
    "values",
    [
        {"parameters": "7"},
        {"parameters": True},
        {"preset": 3},
        {"schema_version": 2},
        {"parameters": None},
        {"more": 1},
    ],
)
def test_a_file_that_was_edited_is_said(tmp_path, values):
    good = json.loads(kept_sizes.encode(SIZE, TREE, "experiments/grug/x"))
    write(tmp_path, json.dumps(good | values).encode())
    assert (
        "restore it (git checkout -- docs/reports/sizes/"
        in (kept_sizes.load(tmp_path, TREE)["error"])
    )


def test_what_the_plugin_hands_over():
    given = json.dumps({"variant": SIZE, "origin": {"error": "the plan failed"}})
    assert kept_sizes.read_argument(given) == {"variant": SIZE}
    assert kept_sizes.read_argument("") == {}
    for bad in ("[]", "{", '{"variant": 3}'):
        with pytest.raises(ToolError):
            kept_sizes.read_argument(bad)
