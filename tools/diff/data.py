"""A comparison as JSON: the summary and each file's counts, without the lines."""

from __future__ import annotations

import dataclasses
from typing import Any

from tools.common.jsonio import json_text
from tools.diff.model import KINDS, Comparison, Header, warning

SCHEMA_VERSION = 1


def document(comparison: Comparison, header: Header) -> str:
    """One JSON object with sorted keys, ending in a newline."""
    counts, substantive = comparison.counts, comparison.substantive
    answer: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "old": {"label": header.old, "commit": header.old_commit},
        "new": {"label": header.new, "commit": header.new_commit},
        "origin_found": header.origin_found,
        "declared_bucket": header.declared,
        "added": counts.added,
        "deleted": counts.deleted,
        "substantive": {"added": substantive.added, "deleted": substantive.deleted},
        "files_as_whole": [file.path for file in comparison.as_whole],
        "buckets": list(comparison.buckets),
        "own_plumbing": comparison.own_plumbing,
        "warning": warning(comparison, header),
        "notes": list(comparison.notes),
        "renames": [{"old": old, "new": new} for old, new in comparison.renames],
        "changes": [dataclasses.asdict(change) for change in comparison.changes],
        "knobs": [knob._asdict() for knob in comparison.knobs],
        "calls": [calls._asdict() for calls in comparison.calls],
        "files": [
            {
                "old_path": file.old_path,
                "new_path": file.new_path,
                "status": file.status,
                "notes": list(file.notes),
                "added": file.counts.added,
                "deleted": file.counts.deleted,
                "lines": {kind: dataclasses.asdict(file.lines(kind)) for kind in KINDS},
            }
            for file in comparison.files
        ],
        "sizes": None,
    }
    if header.sizes:
        old, new = (dataclasses.asdict(size) for size in header.sizes)
        answer["sizes"] = {"old": old, "new": new}
    return json_text(answer)
