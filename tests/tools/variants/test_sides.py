import json

import pytest

from tools.common.errors import ToolError
from tools.ledger.ledger import parse
from tools.variants.__main__ import main
from tools.variants.sides import Side, sides

LEDGER = """
## base
- path: experiments/grug/base
- origin: none
- status: active
- bucket: template
- purpose: p
- verdict: v
## moe
- path: experiments/grug/moe
- origin: base
- forked at: 0123abc
- status: active
- bucket: MLP/activation
- purpose: p
- verdict: v
## gone
- path: experiments/grug/gone
- origin: moe
- forked at: 4567def
- status: deleted
- last known-good: 89abcde
- bucket: loss kernel
- purpose: p
- verdict: v
"""
ENTRIES = parse(LEDGER, "ledger.md")
LIVING = ("experiments/grug/base", "experiments/grug/moe", "experiments/grug/new")


def of(variant: str, against: str = "") -> tuple[str, Side, Side | None]:
    result = sides(variant, against, ENTRIES, LIVING)
    return result.name, result.new, result.old


def test_against_its_origin_as_it_is_now():
    base = Side("experiments/grug/base", "base", "0123abc")
    moe = Side("experiments/grug/moe", "moe", "")
    for given in ("moe", "experiments/grug/moe", "experiments/grug/moe/"):
        assert of(given) == ("moe", moe, base)


def test_a_deleted_variant_is_read_from_its_commit():
    name, new, old = of("gone")
    assert (name, new) == ("gone", Side("89abcde:experiments/grug/gone", "gone", "89abcde"))
    # As is its origin, which may hold by now what it changed.
    assert old == Side("4567def:experiments/grug/moe", "moe", "4567def")


def test_against_another_variant_or_commit():
    assert of("moe", "gone")[2] == Side("89abcde:experiments/grug/gone", "gone", "89abcde")
    old = of("moe", "HEAD~1:experiments/grug/moe")[2]
    assert old == Side("HEAD~1:experiments/grug/moe", "moe at HEAD~1", "HEAD~1")


def test_the_declared_bucket_is_that_of_the_change_from_the_origin():
    def bucket(*named):
        return sides(*named, ENTRIES, LIVING).bucket

    assert (bucket("moe", ""), bucket("gone", "")) == ("MLP/activation", "loss kernel")
    assert bucket("moe", "gone") == bucket("base", "") == bucket("experiments/grug/new", "") == ""


def test_without_a_recorded_origin_there_is_no_other_side():
    assert of("base")[2] is None
    assert of("experiments/grug/new") == ("new", Side("experiments/grug/new", "new", ""), None)


@pytest.mark.parametrize(
    "variant, against, message",
    [
        ("mo", "", "mo: no such variant; nearest: moe"),
        ("moe", "bse", "bse: no such variant; nearest: base"),
        ("moe", "HEAD:", "write COMMIT:DIRECTORY"),
        ("moe", "HEAD:../x", "write COMMIT:DIRECTORY"),
    ],
)
def test_what_there_is_not(variant, against, message):
    with pytest.raises(ToolError, match=message):
        of(variant, against)


def test_command(tmp_path, capsys):
    ledger = tmp_path / "ledger.md"
    ledger.write_text(LEDGER)
    assert main(["sides", str(ledger), "moe", "--directories", *LIVING]) == 0
    assert json.loads(capsys.readouterr().out)["old"]["label"] == "base"
    assert main(["sides", str(ledger), "mo", "--directories", *LIVING]) == 1
    assert "no such variant" in capsys.readouterr().err


def test_all_at_once_are_those_one_by_one(tmp_path, capsys):
    ledger = tmp_path / "ledger.md"
    lost = "\n## lost\n- path: experiments/grug/lost\n- origin: base\n- status: active\n"
    lost += "- bucket: loss kernel\n- purpose: p\n- verdict: v\n"
    ledger.write_text(LEDGER + lost)
    assert main(["all-sides", str(ledger), "--directories", *LIVING]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert list(answers) == ["gone", "lost", "moe"]
    for name in ("gone", "moe"):
        assert main(["sides", str(ledger), name, "--directories", *LIVING]) == 0
        assert answers[name] == {"sides": json.loads(capsys.readouterr().out)}
    assert "lost: no such variant" in answers["lost"]["fault"]
