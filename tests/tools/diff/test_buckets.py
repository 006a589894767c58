"""experiments/grug/buckets.json names all that the template's files define, and nothing else."""

import ast
from pathlib import Path

import pytest

from tools.common.files import File
from tools.diff import buckets
from tools.diff.compare_trees import compare
from tools.diff.read_trees import Source, read_path
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


OWN = sorted(GRUG.glob(f"*/{buckets.OWN}"))


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.parent.name)
def test_a_variant_declares_what_it_adds(known, path):
    own = buckets.parse(path.read_text(), path.name)
    for name in ("model.py", "train.py", "launch.py"):
        names = set(defined(path.parent / name))
        declared = set(own[name].names) if name in own else set()
        missing = names - declared - set(known[name].names)
        assert missing == set(), f"write these into {path.parent.name}/{buckets.OWN}"
        assert declared - names == set(), f"{name} has these no longer"
    assert all((path.parent / name).exists() for name in own)


def test_a_copys_change_of_the_router_has_the_bucket_that_moe_declares():
    moe = read_path(GRUG / "moe")
    text = moe["model.py"].content
    assert text.count(b"jax.nn.sigmoid(logits") == 1
    edited = text.replace(b"jax.nn.sigmoid(logits", b"jax.nn.softmax(logits")
    copy = {**moe, "model.py": File(edited)}
    known = buckets.parse((GRUG / "buckets.json").read_text(), "buckets.json")
    old, new = Source("experiments/grug/moe", moe), Source("experiments/grug/copy", copy)
    (change,) = compare(old, new, known).changes
    assert (change.name, change.bucket, change.decided) == ("route", "MLP/activation", "map")
    # Without the declaration it would be a guess, and said to be one.
    old, new = (
        Source("", {p: f for p, f in tree.items() if p != buckets.OWN}) for tree in (moe, copy)
    )
    assert {c.decided for c in compare(old, new, known).changes if c.name == "route"} == {"guess"}


def test_a_file_with_one_bucket_has_it_whatever_it_defines():
    known = {"a.py": buckets.Files("loss kernel", {})}
    old, new = (
        Source("", {"a.py": File(b"x = 1\n" + more), "b.py": File(b"y = 1\n" + other)})
        for more, other in (
            (b"", b""),
            (b"def attend(): pass\n", b"class MLP:\n    z = attend()\n"),
        )
    )
    decided = {c.name: (c.bucket, c.decided) for c in compare(old, new, known).changes}
    assert decided["attend"] == ("loss kernel", "file")
    assert decided["MLP"] == ("MLP/activation", "guess")


def test_own_buckets_that_cannot_be_read_are_a_note():
    known = {"a.py": buckets.Files("loss kernel", {"f": "loss kernel"})}
    for text in ("{", '{"schema_version": 2}', "\xff"):
        own = File(text.encode("latin-1"))
        old, new = (
            Source("", {"a.py": File(b"def f(): return %d\n" % n), "buckets.json": own})
            for n in (1, 2)
        )
        result = compare(old, new, known)
        assert [c.bucket for c in result.changes if c.name == "f"] == ["loss kernel"]
        (note,) = result.notes
        assert "buckets.json" in note or "utf-8" in note


@pytest.mark.parametrize(
    ("name", "bucket"),
    [
        *((name, None) for name in ("schema", "demand", "remainder", "optimal", "aggregate")),
        *((name, None) for name in ("property", "Properties", "emanate", "block_size", "lossy")),
        *((name, None) for name in ("estimate", "migrate", "scheduling")),
        ("KVCache", "attention/masking"),
        ("kv_cache", "attention/masking"),
        ("RoPE", "attention/masking"),
        ("SwiGLU", "MLP/activation"),
        ("MoELayer", "MLP/activation"),
        ("feed_forward", "MLP/activation"),
        ("zLoss", "loss kernel"),
        ("cross_entropy", "loss kernel"),
        ("RMSNorm2", "block wiring/norm ordering"),
        ("ParallelBlock", "block wiring/norm ordering"),
        ("ema_weights", "optimizer/training loop"),
        ("AdamW", "optimizer/training loop"),
        ("make_mesh", "launch/config"),
        ("Attention.norm", "block wiring/norm ordering"),
        ("Attention.size", "attention/masking"),
    ],
)
def test_guesses_are_of_whole_words(name, bucket):
    assert buckets.guess(name) == bucket


def test_every_file_of_the_template_has_a_default(known):
    tests = ("test_", "conftest", "contract")
    files = {p.name for p in (GRUG / "base").glob("*.py") if not p.name.startswith(tests)}
    assert files - set(known) == set()


def test_the_buckets_are_the_ledgers():
    assert set(buckets.BUCKETS) | {"template"} == set(ledger.BUCKETS)
