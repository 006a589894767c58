"""The ledger as people write it, and each fault with its line."""

import subprocess
from pathlib import Path

import pytest

from tools.common.errors import ToolError
from tools.ledger import edit, files
from tools.ledger.ledger import CHANGE_BUCKETS, load_ledger, parse, read_ledger

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

### Notes

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
        ("- results:\n", "- path: x\n", "'path' is written twice: 10 lines above, too"),
        ("## moe", "## base", "'base' is recorded twice: remove one"),
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


def test_notes_are_kept_as_they_stand():
    notes = "### Notes\n\nFirst\nparagraph.\n\n- a list\n- path: of a list\n\n### More"
    base, moe = parse(f"{BASE}\n{notes}\n{MOE}", "ledger.md")
    assert base.notes == notes.removeprefix("### Notes\n\n")
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
        + f"\n### Notes\n{e.notes}\n"
        for e in entries
    )
    again = parse(text, "ledger.md")
    assert [(e.name, e.fields, e.notes) for e in again] == [
        (e.name, e.fields, e.notes) for e in entries
    ]


@pytest.mark.parametrize("line", ["Words.", "* path: x", "-path: x", "  path: x", "- Path: x"])
def test_an_unknown_line_among_the_fields_is_a_fault(line):
    text = BASE.replace("- origin: none\n", f"- origin: none\n\n{line}\nand more\n")
    assert faults(text) == [
        "ledger.md:10: is no field, and continues none: notes stand under a heading, '### Notes'"
    ]


@pytest.mark.parametrize(
    "style, marks",
    [
        ("merge", ["<<<<<<<", "=======", ">>>>>>>"]),
        ("diff3", ["<<<<<<<", "|||||||", "=======", ">>>>>>>"]),
        ("zdiff3", ["<<<<<<<", "|||||||", "=======", ">>>>>>>"]),
    ],
)
@pytest.mark.parametrize("where", ["in a field", "in the notes", "in the first words"])
def test_the_marks_of_a_conflict_are_faults(tmp_path, style, marks, where):
    """git itself writes them: two branches change the same line."""
    text = BASE + "\n### Notes\n\nA note.\n"
    old = {"in a field": "pending", "in the notes": "A note", "in the first words": "Some words"}
    git = start(tmp_path)
    (tmp_path / "ledger.md").write_text(text)
    git("add", ".")
    git("commit", "-qm", "base")
    for branch in ("one", "two"):
        git("checkout", "-qb", branch, "main")
        (tmp_path / "ledger.md").write_text(text.replace(old[where], f"{branch} says"))
        git("commit", "-qam", branch)
    merge = ["-c", f"merge.conflictStyle={style}", "merge", "-q", "one"]
    assert subprocess.run(["git", *merge], cwd=tmp_path, capture_output=True).returncode
    merged = (tmp_path / "ledger.md").read_text()
    assert all(f"\n{mark}" in merged for mark in marks)
    remedy = "is left of a merge: resolve the conflict"
    found = [line.split(": ", 1)[1] for line in faults(merged) if remedy in line]
    assert found == [f"{mark} {remedy}" for mark in marks]


# -- one file per entry ---------------------------------------------------------------------------

FIELDS = {
    "path": "experiments/grug/NAME",
    "origin": "base",
    "status": "active",
    "bucket": "MLP/activation",
    "purpose": "whether NAME pays",
    "verdict": "pending",
}


def start(root: Path):
    """A repository; returns a function that runs git in it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    git("init", "-q", "-b", "main", ".")
    for name, value in (("name", "n"), ("email", "e@localhost")):
        git("config", f"user.{name}", value)
    git("config", "commit.gpgsign", "false")
    return git


def write(root: Path, before: str, after: str) -> list[str]:
    """Writes the ledger's files that a change of its text concerns."""
    written = list(files.changes(before, after))
    for path, _, content in written:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content or "", newline="")
    return [path for path, *_ in written]


def add(root: Path, name: str) -> list[str]:
    text = read_ledger(root)
    fields = {key: value.replace("NAME", name) for key, value in FIELDS.items()}
    return write(root, text, edit.added(text, name, fields))


def change(root: Path, name: str, **fields: str) -> list[str]:
    text = read_ledger(root)
    (entry,) = (entry for entry in load_ledger(root) if entry.name == name)
    return write(root, text, edit.changed(text, entry, fields))


@pytest.mark.parametrize("head", [BASE, "# Archive\n\nWords.\n"])
def test_new_entries_and_results_of_several_people_merge(tmp_path, head):
    """Whether base's own entry has a file or stands in the first page, as it did before."""
    git = start(tmp_path)
    (tmp_path / files.LEDGER).parent.mkdir(parents=True)
    (tmp_path / files.LEDGER).write_text(head)
    if head != BASE:
        (tmp_path / files.ENTRIES).mkdir()
        base = BASE.partition("## ")[2]
        (tmp_path / files.entry_file("base")).write_text(f"# {base}")
    git("add", ".")
    git("commit", "-qm", "start")
    git("checkout", "-qb", "alice")
    assert add(tmp_path, "relu") == [files.entry_file("relu")]
    git("add", ".")
    git("commit", "-qm", "alice's")
    git("checkout", "-qb", "bob", "main")
    assert add(tmp_path, "window") == [files.entry_file("window")]
    git("add", ".")
    git("commit", "-qm", "bob's")
    git("checkout", "-qb", "carol", "main")
    assert len(change(tmp_path, "base", results="[recorded: 1.5]", verdict="it holds")) == 1
    git("commit", "-qam", "carol's")
    git("checkout", "-q", "main")
    for branch in ("alice", "bob", "carol"):
        git("merge", "-q", "--no-edit", branch)
    entries = {entry.name: entry for entry in load_ledger(tmp_path)}
    assert list(entries) == ["base", "relu", "window"]
    assert (entries["base"].results, entries["base"].verdict) == ("[recorded: 1.5]", "it holds")
    for name in ("relu", "window"):
        assert entries[name].fields == {k: v.replace("NAME", name) for k, v in FIELDS.items()}


def test_a_file_s_line_ends_and_all_other_bytes_stay(tmp_path):
    (tmp_path / files.ENTRIES).mkdir(parents=True)
    (tmp_path / files.LEDGER).write_text(BASE)
    moe = MOE.strip().replace("## moe", "# moe").replace("\n", "\r\n")  # no line end at the end
    (tmp_path / files.entry_file("moe")).write_text(moe, newline="")
    assert files.split(read_ledger(tmp_path)) == {
        files.LEDGER: BASE,
        files.entry_file("moe"): moe + "\n",
    }
    change(tmp_path, "moe", verdict="no")
    expected = moe.replace("they do", "no") + "\n"
    assert (tmp_path / files.entry_file("moe")).read_bytes().decode() == expected


@pytest.mark.parametrize(
    "old, new, line, message",
    [
        ("# moe", "# moa", 1, "the file of this entry is docs/reports/variants/moa.md"),
        ("# moe", "## moe", 1, "an entry's file begins with '# ' and its name"),
        ("# moe\n", "", 2, "an entry's file begins with '# ' and its name"),
        ("- origin: base", "- orign: base", 4, "unknown field 'orign'"),
        ("# moe\n", "# moe\n<!-- entry: x -->\n", 2, "this comment has a meaning of its own"),
    ],
)
def test_a_fault_is_in_the_entry_s_file(tmp_path, old, new, line, message):
    (tmp_path / files.ENTRIES).mkdir(parents=True)
    (tmp_path / files.LEDGER).write_text(BASE)
    text = MOE.strip().replace("## moe", "# moe")
    (tmp_path / files.entry_file("moe")).write_text(text.replace(old, new, 1))
    with pytest.raises(ToolError) as raised:
        load_ledger(tmp_path)
    place = f"docs/reports/variants/moe.md:{line}: "
    assert any(fault.startswith(place + message) for fault in str(raised.value).splitlines())


def test_an_entry_in_both_places_is_recorded_twice(tmp_path):
    (tmp_path / files.ENTRIES).mkdir(parents=True)
    (tmp_path / files.LEDGER).write_text(BASE)
    (tmp_path / files.entry_file("base")).write_text("# " + BASE.partition("## ")[2])
    with pytest.raises(ToolError, match="variants/base.md:1: 'base' is recorded twice: remove one"):
        load_ledger(tmp_path)


def test_union_merges_would_interleave_entries(tmp_path):
    """Why each entry has a file: the driver that git brings along loses fields without a word."""
    git = start(tmp_path)
    (tmp_path / ".gitattributes").write_text("ledger.md merge=union\n")
    (tmp_path / "ledger.md").write_text(BASE)
    git("add", ".")
    git("commit", "-qm", "start")
    for branch in ("relu", "window"):
        git("checkout", "-qb", branch, "main")
        fields = "".join(f"- {key}: {value}\n" for key, value in FIELDS.items())
        entry = f"\n## NAME\n\n{fields}".replace("NAME", branch)
        (tmp_path / "ledger.md").write_text(BASE + entry)
        git("commit", "-qam", branch)
    git("merge", "-q", "--no-edit", "relu")
    assert faults((tmp_path / "ledger.md").read_text())


def test_the_help_of_fork_lists_the_buckets():
    (line,) = (
        line
        for line in (ROOT / "docs/reference/goals.md").read_text().splitlines()
        if line.startswith("| `--fork-bucket` ")
    )
    assert all(f"`{bucket}`" in line for bucket in CHANGE_BUCKETS)
