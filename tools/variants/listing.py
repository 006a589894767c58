"""The list of variants: one row each, as a table, JSON or names; and why one counts as changed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal

from tools.common.jsonio import json_text
from tools.ledger.ledger import Entry

SCHEMA_VERSION = 1
Format = Literal["table", "json", "names"]
COLUMNS = (
    "name",
    "path",
    "origin",
    "status",
    "bucket",
    "files",
    "lines",
    "changed",
    "plumbing",
    "runs on",
)


def row(variant: dict[str, Any], entries: Collection[Entry]) -> dict[str, Any]:
    """A variant as the plugin knows it, joined with what the ledger says of its path."""
    entry = next((e for e in entries if e.path == variant["path"]), None)
    facts = variant["facts"]
    return {
        "name": entry.name if entry else variant["path"].rpartition("/")[2],
        "path": variant["path"],
        "origin": entry.origin if entry else None,
        "status": entry.status if entry else "unrecorded",
        "bucket": entry.bucket if entry else None,
        "files": facts["files"],
        "lines": facts["lines"],
        "added": facts["added"],
        "deleted": facts["deleted"],
        "own_plumbing": facts["own_plumbing"],
        "plumbing": facts["plumbing"],
        "accelerators": variant["accelerators"],
    }


def reasons(variant: dict[str, Any], changed: Collection[str], contract: str) -> list[str]:
    """Why changed files (paths from the workspace's root) touch a variant; empty if none does."""
    inside = f"{variant['path']}/"
    own = sorted(path.removeprefix(inside) for path in changed if path.startswith(inside))
    found = []
    if sources := [path for path in own if path != "BUILD"]:
        found.append(f"sources: {_some(sources)}")
    if "BUILD" in own:
        found.append("BUILD")
    if locks := [lock for lock in variant["locks"] if lock in changed]:
        found.append(f"lock: {', '.join(locks)}")
    suite = sorted(path for path in changed if path.startswith(f"{contract}/"))
    if suite and variant["contract"]:
        found.append(f"contract suite: {_some([p.rpartition('/')[2] for p in suite])}")
    return found


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"


def listing(request: dict[str, Any], entries: Collection[Entry], form: Format) -> str:
    """The whole answer to `variants`, ending in a newline where there is anything to say.

    `request` is what the plugin asks: `variants`, each with `path`, `accelerators`, `locks`,
    `contract` (whether the suite runs on it) and `facts`; `changed`, paths or None for all
    variants; and `suite`, the directory of the contract.
    """
    rows = []
    for variant in sorted(request["variants"], key=lambda v: v["path"]):
        why = None
        if request["changed"] is not None:
            why = reasons(variant, request["changed"], request["suite"])
            if not why:
                continue
        rows.append(row(variant, entries) | ({"reasons": why} if why else {}))
    if form == "json":
        answer = {"schema_version": SCHEMA_VERSION, "variants": rows}
        return json_text(answer)
    if form == "names":
        return "".join(f"{row['name']}\n" for row in rows)
    if not rows:
        changed = request["changed"] is not None
        return "No variant changed.\n" if changed else "No variant here.\n"
    return table(rows)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table for people."""
    columns = (*COLUMNS, "because of") if "reasons" in rows[0] else COLUMNS
    cells = [columns, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    numbers = (columns.index("files"), columns.index("lines"))
    return "".join(
        "  ".join(
            cell.rjust(width) if i in numbers else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        + "\n"
        for line in cells
    )


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    changed = "-" if row["added"] is None else f"+{row['added']} -{row['deleted']}"
    cells = (
        row["name"],
        row["path"],
        row["origin"] or "-",
        row["status"],
        row["bucket"] or "-",
        f"{row['files']}",
        f"{row['lines']:,}",
        changed,
        row["plumbing"] or "-",
        " ".join(row["accelerators"]) or "-",
    )
    return (*cells, "; ".join(row["reasons"])) if "reasons" in row else cells
