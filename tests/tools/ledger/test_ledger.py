"""The ledger as people write it, and each fault with its line."""

from pathlib import Path

import pytest

from tools.common.errors import ToolError
from tools.ledger.ledger import parse

ROOT = Path(__file__).parents[3]
BASE = """# Archive

Some words.

## base

- path: experiments/grug/base
- origin: none
- status: active
- bucket: template
- purpose: to be copied
- verdict: pending
"""
MOE = """
## moe

- path: experiments/grug/moe
- origin: base
- forked at: 0123abc
- status: superseded
- last known-good: 4567def
- superseded by: base
- bucket: MLP/activation
- purpose: whether sparse experts
  pay at equal FLOPs
- verdict: they do
- results:

Notes for people.
"""


def faults(text: str) -> list[str]:
    with pytest.raises(ToolError) as raised:
        parse(text, "ledger.md")
    return str(raised.value).splitlines()


def test_reads_entries_in_order_with_lines_that_go_on():
    base, moe = parse(BASE + MOE, "ledger.md")
    assert (base.name, base.line, base.path, base.origin) == (
        "base",
        5,
        "experiments/grug/base",
        "none",
    )
    assert moe.purpose == "whether sparse experts pay at equal FLOPs"
    assert (moe.last_known_good, moe.forked_at, moe.superseded_by) == ("4567def", "0123abc", "base")
    assert moe.results == "" and moe.issue == ""
    with pytest.raises(AttributeError):
        _ = moe.nonsense


def test_an_empty_ledger_has_no_entries():
    assert parse("# Archive\n\nWords.\n", "ledger.md") == []


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("- origin: base\n", "- orign: base\n", "unknown field 'orign'; did you mean 'origin'?"),
        ("- origin: base\n", "", "moe lacks '- origin: ...'"),
        ("- verdict: they do\n", "- verdict:\n", "moe lacks '- verdict: ...'"),
        ("status: superseded", "status: done", "unknown status 'done'; known: active, superseded"),
        ("MLP/activation", "MLP", "unknown bucket 'MLP'"),
        ("- origin: base\n", "- origin: bse\n", "unknown origin 'bse'; did you mean 'base'?"),
        ("- superseded by: base\n", "", "moe is superseded: say '- superseded by: ...'"),
        ("- last known-good: 4567def\n", "", "moe is superseded: say '- last known-good: ...'"),
        ("status: superseded", "status: active", "moe is active, so it has no last known-good"),
        ("- results:\n", "- path: x\n", "'path' is written twice; the first is in line 16"),
        ("## moe", "## base", "'base' is recorded twice; first in line 5"),
        ("## moe", "## m o e", "'m o e' is no name"),
    ],
)
def test_faults_are_named_by_line(old, new, message):
    assert old in MOE
    found = faults(BASE + MOE.replace(old, new, 1))
    assert any(message in line for line in found), found
    assert all(line.startswith("ledger.md:") for line in found)


def test_two_live_entries_of_one_path():
    again = BASE.partition("## base")[2].join(["## again", ""])
    (line,) = faults(BASE + again)
    assert "experiments/grug/base is the path of base also" in line


def test_origins_in_a_circle():
    text = BASE.replace("origin: none", "origin: moe") + MOE
    found = faults(text)
    assert "origins go in a circle: base <- moe <- base" in found[0]
    assert len(found) == 2
    # One that only leads into a circle is no part of it, and the search ends.
    third = MOE.replace("## moe", "## third").replace("grug/moe", "grug/third")
    assert len(faults(text + third.replace("origin: base", "origin: moe"))) == 2


def test_all_faults_are_reported_at_once():
    text = BASE.replace("status: active", "status: alive").replace("- verdict: pending\n", "")
    assert len(faults(text)) == 2


def test_the_ledger_of_this_repository():
    path = "docs/reports/grug-archive.md"
    names = [entry.name for entry in parse((ROOT / path).read_text(), path)]
    assert names[0] == "base"


def test_notes_are_kept_as_they_stand():
    base, moe = parse(BASE + "\nFirst\nparagraph.\n\n- a list\n" + MOE, "ledger.md")
    assert base.notes == "First\nparagraph.\n\n- a list"
    assert moe.notes == "Notes for people."


@pytest.mark.parametrize("name", ["../x", "a/b", "é", "a" * 81, "A"])
def test_a_name_is_a_file_name(name):
    assert any("is no name" in line for line in faults(BASE.replace("## base", f"## {name}")))


def test_what_is_read_is_written_again():
    """The fields say all that a list holds: written out, they parse to the same entries."""
    entries = parse(BASE + MOE, "ledger.md")
    text = "".join(
        f"## {e.name}\n\n"
        + "".join(f"- {k}: {v}\n" for k, v in e.fields.items())
        + f"\n{e.notes}\n"
        for e in entries
    )
    again = parse(text, "ledger.md")
    assert [(e.name, e.fields, e.notes) for e in again] == [
        (e.name, e.fields, e.notes) for e in entries
    ]
