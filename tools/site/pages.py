"""python -m tools.site.pages --root DIR --out DIR --facts FILE --diffs DIR

Writes the sources of the site: a copy of docs/ in which the ledger is a table with its lineage, and
each experiment has a page, reports/variants/NAME.md. MkDocs builds it; then tools/site/splice.py
replaces a comment in these pages by the diffs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.common.errors import ToolError, exit_with
from tools.common.files import MIB
from tools.common.jsonio import read_json
from tools.common.paths import local_path
from tools.ledger import kept_trees, pins
from tools.ledger.ledger import Entry, load_ledger
from tools.runs import run_summary
from tools.runs.compare_runs import Comparison, Refusal, verdict
from tools.runs.ledger_claims import of_ledger
from tools.runs.run_summary import Run
from tools.site import compare_page
from tools.site.charts import runs_section
from tools.site.forest import forest
from tools.site.index import index_page
from tools.site.markup import PAGES, PLACEHOLDER, blocks, heading, inline, sentence, slug, text
from tools.site.refusals import refuse
from tools.site.reserved import is_generated
from tools.site.results import Result, result

FACTS_SCHEMA = 1
MAX_FACTS = 16 * MIB
INDEX = "reports/grug-archive.md"
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
# What `record` wrote into an entry: the page says the same, from the runs themselves.
_RECORDED = re.compile(r"\[recorded: [^\]]*\]\s*")
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
    dates: Mapping[str, str]
    """The day on which each came, by name."""
    forks: Mapping[str, Mapping[str, Any]]
    """Lines added and deleted since an experiment was copied, by its path."""
    claims: Mapping[str, Sequence[Comparison | Refusal]]
    """What can be said of each group of runs, by the experiment's name."""
    results: Mapping[str, Result]
    """Headlines by name; experiments without runs have none."""

    def facts_of(self, entry: Entry) -> Mapping[str, Any]:
        """The facts of an experiment; empty for a deleted one."""
        return {} if entry.status == "deleted" else self.facts.get(entry.path, {})


def gather(
    root: Path, facts: Path, diffs: Path, dates: Path | None = None, forks: Path | None = None
) -> Archive:
    """Reads and checks the data. Raises ToolError with every fault."""
    entries = load_ledger(root)
    runs, faults = run_summary.load_all(root)
    names = {entry.name for entry in entries}
    faults += [f"{r.path}:3: {r.variant!r} is not recorded" for r in runs if r.variant not in names]
    if faults:
        raise ToolError("\n".join(faults))
    by_name = {name: tuple(run for run in runs if run.variant == name) for name in names}
    diff_names = {path.stem for path in diffs.glob("*.html")}
    claims = of_ledger(entries, runs)
    results = {
        name: found for name, own in by_name.items() if (found := result(own, claims.get(name, ())))
    }
    return Archive(
        tuple(entries),
        read_facts(facts),
        by_name,
        frozenset(diff_names & names),
        read_dates(dates) if dates else {},
        read_forks(forks) if forks else {},
        claims,
        results,
    )


def read_dates(path: Path) -> dict[str, str]:
    """What tools/site/dates.py printed. Raises ToolError if it is malformed."""
    value = read_json(path, MAX_FACTS)
    if not isinstance(value, dict) or not all(
        isinstance(day, str) and _DAY.fullmatch(day) for day in value.values()
    ):
        raise ToolError(f"{path}:1: is no object of days: print it with tools.site.dates")
    return value


def read_forks(path: Path) -> dict[str, dict[str, Any]]:
    """The lines that experiments changed since they were copied, by path.

    Raises:
        ToolError: the file cannot be read, or is malformed.
    """
    value = read_json(path, MAX_FACTS)
    rows = value.values() if isinstance(value, dict) else [None]
    if not all(
        isinstance(row, dict) and all(type(row.get(k)) is int for k in ("added", "deleted"))
        for row in rows
    ):
        raise ToolError(f"{path}:1: has a row without numbers of lines added and deleted")
    return value


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


def render(archive: Archive) -> Iterator[tuple[str, str]]:
    """The generated pages, with their path in docs/: one at a time, so that few are in memory."""
    recorded = {entry.path for entry in archive.entries if entry.status != "deleted"}
    facts = {entry.name: archive.facts_of(entry) for entry in archive.entries}
    unrecorded = sorted(
        path
        for path, row in archive.facts.items()
        if path not in recorded and row.get("status") != "speedrun"
    )
    found = compare_page.series(archive.entries, archive.results)
    yield (
        INDEX,
        index_page(archive.entries, facts, archive.results, archive.dates, unrecorded),
    )
    yield compare_page.PAGE, compare_page.page(found)
    yield from compare_page.files(found).items()
    for entry in archive.entries:
        yield f"{PAGES}/{entry.name}.md", variant_page(entry, archive)


# -- one experiment -------------------------------------------------------------------------------


def variant_page(entry: Entry, archive: Archive) -> str:
    """The page of one experiment: what was learned, how sure that is, and what it changed."""
    said = archive.claims.get(entry.name, ())
    parts = [
        f"---\ntitle: {json.dumps(entry.name)}\nhide: [navigation, toc]\n---",
        f"# {heading(entry.name)}",
        _tags(entry),
        f'<p class="grug-lead">{inline(sentence(entry.purpose))}</p>',
        f"## Verdict\n\n{_verdict(entry, archive)}",
        "## Runs\n\n" + runs_section(archive.runs[entry.name], said),
        f"## About\n\n{_facts_table(entry, archive)}",
    ]
    if entry.notes:
        parts.append(f"## Notes\n\n<div>{blocks(entry.notes)}</div>")
    parts.append("## Diff\n\n" + _diff(entry, archive))
    return "\n\n".join(parts) + "\n"


def _verdict(entry: Entry, archive: Archive) -> str:
    """What the runs say, then what its author wrote."""
    parts = []
    found = archive.results.get(entry.name)
    if found and found.reading:
        said = sentence(verdict(found.reading, entry.name))
        parts.append(
            f'<p class="grug-verdict" data-search-exclude>{text(said)}<small>'
            f"{text(found.reading.metric)} at equal tokens, against {text(entry.origin)}"
            "</small></p>"
            f"{forest(found.reading, entry.name, entry.origin)}"
        )
    parts.append(f"<p>{inline(sentence(entry.verdict))}</p>")
    if written := _RECORDED.sub("", entry.results).strip():
        parts.append(f"<p>{inline(written)}</p>")
    # One block: Markdown loses parts of a drawing that stands between paragraphs.
    return f"<div>{''.join(parts)}</div>"


def _tags(entry: Entry) -> str:
    links = (
        f'<a class="grug-tag {slug(value)}" '
        f'href="../grug-archive.html?{kind}={slug(value)}#experiments">{text(value)}</a>'
        for kind, value in (("status", entry.status), ("bucket", entry.bucket))
    )
    return (
        f'<p class="grug-tags">{" ".join(links)} <a href="../grug-archive.html#{entry.name}">'
        f'All experiments</a> <a href="../compare.html?show={entry.name}">Compare curves</a></p>'
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
        ("Introduced on", archive.dates.get(entry.name, "")),
        ("Changed since the fork", _changed(archive.forks.get(entry.path, {}))),
        (f"Against {text(entry.origin)} today", _changed(facts)),
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


# -- the tree -------------------------------------------------------------------------------------


def write(root: Path, out: Path, archive: Archive) -> int:
    """Writes `out`, all or nothing, and returns the number of generated pages.

    Raises:
        ToolError: `out` is not empty, or docs/ has a file that the site may not have.
    """
    if out.exists() and any(out.iterdir()):
        raise ToolError(f"{out}: is not empty: remove it, or give another --out")
    building = out.resolve().with_name(f".{out.resolve().name}.{os.getpid()}.tmp")
    try:
        building.mkdir(parents=True)
        _copy_docs(root / "docs", building)
        count = 0
        for name, page in render(archive):
            count += 1
            # The page of an experiment takes the place of its entry in the ledger.
            target = building / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(page, encoding="utf-8", newline="\n")
        os.replace(building, out)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return count


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
    parser.add_argument(
        "--dates", type=local_path, help="output of python -m tools.site.dates; default: no dates"
    )
    parser.add_argument(
        "--forks",
        type=local_path,
        help="lines added and deleted since the fork, by path, as JSON; default: not shown",
    )
    options = parser.parse_args(arguments)
    archive = gather(options.root, options.facts, options.diffs, options.dates, options.forks)
    print(f"{options.out}: {write(options.root, options.out, archive)} pages")
    return 0


if __name__ == "__main__":
    exit_with(main)
