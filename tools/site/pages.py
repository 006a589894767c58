"""python -m tools.site.pages --root DIR --out DIR --facts FILE --diffs DIR

Writes the sources of the site: a copy of docs/ in which the ledger is a table with its lineage, and
each experiment has a page, reports/variants/NAME.md. MkDocs builds it; then tools/site/splice.py
replaces a comment in these pages by the diffs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.common.errors import ToolError, exit_with
from tools.common.files import MIB
from tools.common.jsonio import read_json
from tools.common.paths import local_path
from tools.ledger import kept_trees, pins
from tools.ledger.ledger import BUCKETS, STATUSES, Entry, load_ledger
from tools.runs import run_summary
from tools.runs.compare_runs import groups
from tools.runs.run_summary import Run
from tools.runs.stats import Sample
from tools.site.charts import runs_section
from tools.site.markup import PAGES, PLACEHOLDER, clip, heading, inline, slug, text
from tools.site.refusals import refuse
from tools.site.reserved import is_generated
from tools.site.svg import Node, lineage

FACTS_SCHEMA = 1
MAX_FACTS = 16 * MIB
INDEX = "reports/grug-archive.md"
_COUNTS = ("files", "lines", "added", "deleted")


@dataclass(frozen=True)
class Archive:
    """All data on the pages."""

    entries: tuple[Entry, ...]
    facts: Mapping[str, Mapping[str, Any]]
    """Rows of `./pants variants` by path; experiments without a directory have none."""
    runs: Mapping[str, tuple[Run, ...]]
    diffs: frozenset[str]
    """Names of the experiments that have a diff."""

    def facts_of(self, entry: Entry) -> Mapping[str, Any]:
        """The facts of an experiment; empty for a deleted one."""
        return {} if entry.status == "deleted" else self.facts.get(entry.path, {})

    def origin(self, entry: Entry) -> Entry | None:
        """The entry of an experiment's origin, if it is recorded."""
        return next((other for other in self.entries if other.name == entry.origin), None)


def gather(root: Path, facts: Path, diffs: Path) -> Archive:
    """Reads and checks the data. Raises ToolError with every fault."""
    entries = load_ledger(root)
    runs, faults = run_summary.load_all(root)
    names = {entry.name for entry in entries}
    faults += [f"{r.path}:3: {r.variant!r} is not recorded" for r in runs if r.variant not in names]
    if faults:
        raise ToolError("\n".join(faults))
    by_name = {name: tuple(run for run in runs if run.variant == name) for name in names}
    diff_names = {path.stem for path in diffs.glob("*.html")}
    return Archive(tuple(entries), read_facts(facts), by_name, frozenset(diff_names & names))


def read_facts(path: Path) -> dict[str, dict[str, Any]]:
    """The facts of live variants by path, as tools/variants/listing.py writes them.

    Raises:
        ToolError: the file cannot be read, or is malformed.
    """
    value = read_json(path, MAX_FACTS)
    schema = value.get("schema_version") if isinstance(value, dict) else None
    if schema != FACTS_SCHEMA:
        raise ToolError(f"{path}:1: schema_version is {schema!r}, not {FACTS_SCHEMA}")
    facts: dict[str, dict[str, Any]] = {}
    for row in value.get("variants") or []:
        is_row = isinstance(row, dict) and isinstance(row.get("path"), str)
        counts = [row.get(key) for key in _COUNTS] if is_row else []
        runs_on = row.get("accelerators") if is_row else None
        if not (
            is_row
            and all(n is None or (isinstance(n, int) and not isinstance(n, bool)) for n in counts)
            and isinstance(runs_on, list)
            and all(isinstance(name, str) for name in runs_on)
        ):
            raise ToolError(f"{path}:1: a variant is malformed: {str(row)[:80]}")
        facts[row["path"]] = row
    return facts


def render(archive: Archive) -> dict[str, str]:
    """The generated pages by their path in docs/."""
    pages = {INDEX: index_page(archive)}
    for entry in archive.entries:
        pages[f"{PAGES}/{entry.name}.md"] = variant_page(entry, archive)
    return pages


# -- one experiment -------------------------------------------------------------------------------


def variant_page(entry: Entry, archive: Archive) -> str:
    """The page of one experiment."""
    blocks = [
        f"---\ntitle: {json.dumps(entry.name)}\nhide: [navigation, toc]\n---",
        f"# {heading(entry.name)}",
        _tags(entry),
        f'<p class="grug-lead">{inline(entry.purpose)}</p>',
        _facts_table(entry, archive),
        f"## Verdict\n\n<p>{inline(entry.verdict)}</p>",
    ]
    if entry.results:
        blocks.append(f"<p>{inline(entry.results)}</p>")
    if entry.notes:
        paragraphs = "".join(
            f"<p>{inline(' '.join(p.split()))}</p>" for p in _paragraphs(entry.notes)
        )
        blocks.append(f"## Notes\n\n{paragraphs}")
    origin = archive.origin(entry)
    against = archive.runs.get(origin.name, ()) if origin else ()
    blocks.append("## Runs\n\n" + runs_section(entry, archive.runs[entry.name], against))
    blocks.append("## Diff\n\n" + _diff(entry, archive))
    return "\n\n".join(blocks) + "\n"


def _paragraphs(notes: str) -> list[str]:
    return [part for part in notes.replace("\n\n\n", "\n\n").split("\n\n") if part.strip()]


def _tags(entry: Entry) -> str:
    links = (
        f'<a class="grug-tag {slug(value)}" href="../grug-archive.html#{kind}-{slug(value)}">'
        f"{text(value)}</a>"
        for kind, value in (("status", entry.status), ("bucket", entry.bucket))
    )
    return (
        f'<p class="grug-tags">{" ".join(links)} <a href="../grug-archive.html#{entry.name}">'
        "All experiments</a></p>"
    )


def _facts_table(entry: Entry, archive: Archive) -> str:
    names = {other.name for other in archive.entries}
    facts = archive.facts_of(entry)
    copies = [other.name for other in archive.entries if other.origin == entry.name]
    rows = [
        ("Path", f"<code>{text(entry.path)}</code>"),
        ("Origin", _link(entry.origin, names) + _commit(" at ", entry.forked_at)),
        ("Introduced", _commit("", entry.introduced)),
        ("Last commit", _commit("", entry.last_known_good)),
        ("Superseded by", _link(entry.superseded_by, names)),
        ("Size", _size(facts)),
        ("Changed", _changed(facts)),
        ("Runs on", text(", ".join(facts.get("accelerators", [])))),
        ("Copies", ", ".join(_link(name, names) for name in copies)),
        ("Discussed", inline(entry.issue)),
        ("See also", inline(entry.fields.get("diff", ""))),
    ]
    body = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in rows if value)
    return f'<dl class="grug-facts" data-search-exclude>{body}</dl>'


def _link(name: str, names: set[str]) -> str:
    if name in names:
        return f'<a href="{name}.html">{text(name)}</a>'
    return inline(name)


def _commit(before: str, pinned: str) -> str:
    pin = pins.parse(pinned)
    commit = pin.label if pin else pinned
    return f"{before}<code>{text(commit)}</code>" if commit else ""


def _size(facts: Mapping[str, Any]) -> str:
    if not facts.get("lines"):
        return ""
    return f"{facts['lines']:,} lines in {facts['files']} files"


def _changed(facts: Mapping[str, Any]) -> str:
    if facts.get("added") is None or facts.get("deleted") is None:
        return ""
    return f"+{facts['added']:,} −{facts['deleted']:,} lines"


def _diff(entry: Entry, archive: Archive) -> str:
    if entry.name in archive.diffs:
        return PLACEHOLDER.format(name=entry.name)
    if entry.origin == "none":
        return "<p>Written from scratch: there is no origin to compare with.</p>"
    if entry.status == "deleted":
        pin = pins.parse(entry.last_known_good)
        if pin and not pin.commit:
            return f"<p>Deleted; <code>{kept_trees.place(pin.tree)}</code> holds it.</p>"
        commit = text(pin.commit if pin else entry.last_known_good)
        return f"<p>Deleted; <code>git show {commit}:{text(entry.path)}</code> lists it.</p>"
    return "<p>None was made for this build of the site.</p>"


# -- the index ------------------------------------------------------------------------------------


def index_page(archive: Archive) -> str:
    """The page with all experiments."""
    entries = archive.entries
    counts = ", ".join(
        f"{n} {status}" for status in STATUSES if (n := sum(e.status == status for e in entries))
    )
    blocks = [
        "---\ntitle: Archive of experiments\nhide: [navigation, toc]\n---",
        "# Archive of experiments",
        f"<p>What was tried, oldest first, negatives kept: {counts or 'nothing yet'}.</p>",
        _table(archive),
    ]
    recorded = {entry.path for entry in entries if entry.status != "deleted"}
    if missing := sorted(set(archive.facts) - recorded):
        paths = ", ".join(f"<code>{text(path)}</code>" for path in missing)
        blocks.append(f"<p>Not recorded yet: {paths}</p>")
    nodes = [Node(e.name, e.origin, e.status, e.bucket) for e in entries]
    tree = lineage(nodes, href="variants/{name}.html")
    blocks += [
        "## Lineage",
        "<p>Each below the one it was copied from. A full dot is active, an open one superseded, "
        "a cross deleted.</p>",
        f'<div class="grug-scroll" data-search-exclude>{tree}</div>',
        "## By status",
        _lists("status", STATUSES, {e.name: e.status for e in entries}),
        "## By change bucket",
        _lists("bucket", BUCKETS, {e.name: e.bucket for e in entries}),
    ]
    return "\n\n".join(blocks) + "\n"


_COLUMNS = ("#", "Name", "Origin", "Status", "Bucket", "Purpose", "Verdict", "Changed", "Held out")


def _table(archive: Archive) -> str:
    heads = "".join(f'<th scope="col">{name}</th>' for name in _COLUMNS)
    names = {entry.name for entry in archive.entries}
    rows = "".join(_row(i, e, archive, names) for i, e in enumerate(archive.entries, start=1))
    return (
        '<table class="grug-index" data-search-exclude><thead><tr>'
        f"{heads}</tr></thead><tbody>{rows}</tbody></table>"
        '<p class="grug-note" data-search-exclude>Changed: lines added and deleted against the '
        "origin. Held out: bits per byte at the end, mean over the seeds of the settings with most "
        "seeds. They compare only on equal data and settings; see each page.</p>"
    )


def _row(number: int, entry: Entry, archive: Archive, names: set[str]) -> str:
    facts = archive.facts_of(entry)
    origin = entry.origin if entry.origin in names else ""
    added, deleted = facts.get("added"), facts.get("deleted")
    changed = (added or 0) + (deleted or 0) if added is not None else ""
    result, order = _result(archive.runs[entry.name])
    cells = (
        ("#", number, f"{number}"),
        ("Name", "", f'<a href="variants/{entry.name}.html">{text(entry.name)}</a>'),
        ("Origin", "", f'<a href="variants/{origin}.html">{text(origin)}</a>' if origin else ""),
        ("Status", "", f'<span class="grug-tag {entry.status}">{entry.status}</span>'),
        ("Bucket", "", text(entry.bucket).replace("/", "/<wbr>")),
        ("Purpose", "", inline(clip(entry.purpose, 200))),
        ("Verdict", "", inline(clip(entry.verdict, 200))),
        ("Changed", changed, _changed(facts).removesuffix(" lines")),
        ("Held out", order, result),
    )
    body = "".join(
        f'<td data-label="{label}"'
        + (f' data-sort="{sort}"' if sort != "" else "")
        + f">{cell}</td>"
        for label, sort, cell in cells
    )
    return f'<tr id="{entry.name}">{body}</tr>'


def _result(runs: Sequence[Run]) -> tuple[str, str]:
    """(what to show, what to sort by) of the held-out bits per byte."""
    for group in groups(runs):
        ends = [run.final["heldout_bpb"] for run in group.runs]
        values = Sample(tuple(end for end in ends if end is not None))
        if values.n == len(ends):
            spread = f" ± {values.spread:.3f}" if values.spread is not None else ""
            return f"{values.mean:.3f}{spread} (n = {values.n})", f"{values.mean:.6f}"
    return "", ""


def _lists(kind: str, choices: Sequence[str], values: Mapping[str, str]) -> str:
    """Names by value; each value has an anchor, to which the tags link."""
    items = []
    for value in choices:
        links = ", ".join(
            f'<a href="variants/{name}.html">{text(name)}</a>'
            for name, own_value in values.items()
            if own_value == value
        )
        items.append(f'<dt id="{kind}-{slug(value)}">{text(value)}</dt><dd>{links or "none"}</dd>')
    return f'<dl class="grug-lists" data-search-exclude>{"".join(items)}</dl>'


# -- the tree -------------------------------------------------------------------------------------


def write(root: Path, out: Path, archive: Archive) -> int:
    """Writes `out`, all or nothing, and returns the number of generated pages.

    Raises:
        ToolError: `out` is not empty, or docs/ has a file that the site may not have.
    """
    if out.exists() and any(out.iterdir()):
        raise ToolError(f"{out}: is not empty: remove it, or give another --out")
    pages = render(archive)
    building = out.resolve().with_name(f".{out.resolve().name}.{os.getpid()}.tmp")
    try:
        building.mkdir(parents=True)
        _copy_docs(root / "docs", building)
        for name, page in pages.items():
            # The page of an experiment takes the place of its entry in the ledger.
            target = building / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(page, encoding="utf-8", newline="\n")
        os.replace(building, out)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return len(pages)


def _copy_docs(docs: Path, building: Path) -> None:
    """Copies what people wrote. Raises ToolError for a file that the site may not have."""
    for path in sorted(docs.rglob("*")):
        inside = path.relative_to(docs)
        if path.is_symlink():
            raise ToolError(f"docs/{inside}: is a symbolic link: replace it by the file")
        if any(part.startswith(".") for part in inside.parts) or path.name == "BUILD":
            continue
        if path.is_dir():
            (building / inside).mkdir()
        elif not is_generated(inside.as_posix()):
            refuse(path, f"docs/{inside.as_posix()}")
            shutil.copyfile(path, building / inside)


def main(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    parser = argparse.ArgumentParser(prog="pages", description="Write the sources of the site.")
    parser.add_argument("--root", type=local_path, default=Path("."), help="root of the workspace")
    parser.add_argument(
        "--out", type=local_path, required=True, help="docs/ directory of the site, to make"
    )
    parser.add_argument(
        "--facts",
        type=local_path,
        required=True,
        help="output of ./pants variants --variants-format=json",
    )
    parser.add_argument(
        "--diffs", type=local_path, required=True, help="directory with NAME.html for each diff"
    )
    options = parser.parse_args(arguments)
    archive = gather(options.root, options.facts, options.diffs)
    print(f"{options.out}: {write(options.root, options.out, archive)} pages")
    return 0


if __name__ == "__main__":
    exit_with(main)
