"""The list of variants as a table, JSON or names, and the reasons why each counts as changed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal

from tools.common.jsonio import json_text
from tools.ledger.ledger import Entry

SCHEMA_VERSION = 1
Format = Literal["table", "json", "names"]
# They have records and a leaderboard of their own, and no entries in the ledger.
SPEEDRUNS = "experiments/speedrun"
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
    """A variant as the plugin describes it, joined with the ledger's entry for its path."""
    entry = next((e for e in entries if e.path == variant["path"]), None)
    facts = variant["facts"]
    return {
        "name": entry.name if entry else variant["path"].rpartition("/")[2],
        "path": variant["path"],
        "origin": entry.origin if entry else None,
        "status": entry.status if entry else _without_entry(variant["path"]),
        "bucket": entry.bucket if entry else None,
        "files": facts["files"],
        "lines": facts["lines"],
        "added": facts["added"],
        "deleted": facts["deleted"],
        "own_plumbing": facts["own_plumbing"],
        "plumbing": facts["plumbing"],
        "accelerators": variant["accelerators"],
    }


def _without_entry(path: str) -> str:
    """The status of a directory that the ledger does not name: a speedrun has its own record."""
    return "speedrun" if path.startswith(f"{SPEEDRUNS}/") else "unrecorded"


def reasons(variant: dict[str, Any], changed: Collection[str], contract: str) -> list[str]:
    """Why changed files (paths from the workspace's root) touch a variant; empty if none does."""
    inside = f"{variant['path']}/"
    own = sorted(path.removeprefix(inside) for path in changed if path.startswith(inside))
    causes = []
    if sources := [path for path in own if path != "BUILD"]:
        causes.append(f"sources: {_some(sources)}")
    if "BUILD" in own:
        causes.append("BUILD")
    if locks := [lock for lock in variant["locks"] if lock in changed]:
        causes.append(f"lock: {', '.join(locks)}")
    suite = sorted(path for path in changed if path.startswith(f"{contract}/"))
    if suite and variant["contract"]:
        causes.append(f"contract suite: {_some([p.rpartition('/')[2] for p in suite])}")
    return causes


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"


def listing(request: dict[str, Any], entries: Collection[Entry], output_format: Format) -> str:
    """The whole output of `./pants variants`, with a final newline unless it is empty.

    `request` comes from the plugin: `variants`, each with `path`, `accelerators`, `locks`,
    `contract` (whether the suite runs on it) and `facts`; `changed`, paths, or None to list all
    variants; and `suite`, the directory of the contract.
    """
    rows = []
    for variant in sorted(request["variants"], key=lambda v: v["path"]):
        causes = None
        if request["changed"] is not None:
            causes = reasons(variant, request["changed"], request["suite"])
            if not causes:
                continue
        rows.append(row(variant, entries) | ({"reasons": causes} if causes else {}))
    if output_format == "json":
        answer = {"schema_version": SCHEMA_VERSION, "variants": rows}
        return json_text(answer)
    if output_format == "names":
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
