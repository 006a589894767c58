"""The page on which any experiments are set side by side, and its data for it and for others."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from tools.ledger.ledger import Entry
from tools.runs.stats import value_at
from tools.site.markup import text
from tools.site.results import Result
from tools.site.svg import Series, chart

PAGE = "reports/compare.md"
DATA = "reports/compare.{}"
# On the picture for readers without scripts.
SHOWN = 6
_HEADS = ("experiment", "origin", "status", "seeds", "step", "tokens", "seconds", "flops", "bpb")


def curve(result: Result) -> list[list[float]]:
    """Held-out bits per byte by step: rows of step, tokens, device-free seconds, FLOPs, mean.

    Over the seeds that were evaluated at that step; FLOPs are 0 where a run does not tell them.
    """
    steps: dict[float, list[tuple[float, float, float]]] = {}
    for run in result.group.runs:
        for point in run.heldout:
            steps.setdefault(point[0], []).append((point[1], point[2], point[4]))
    per_token = result.group.runs[0].flops_per_token or 0.0
    rows = []
    for step, points in sorted(steps.items()):
        tokens, seconds, bpb = (fmean(column) for column in zip(*points, strict=True))
        rows.append([step, tokens, round(seconds, 2), tokens * per_token, round(bpb, 5)])
    return rows


def series(entries: Sequence[Entry], results: Mapping[str, Result]) -> list[dict[str, Any]]:
    """What the page draws: experiments with held-out values, in the order of the ledger."""
    found = []
    for entry in entries:
        rows = curve(results[entry.name]) if entry.name in results else []
        if rows:
            group = results[entry.name].group
            budget = f"{group.runs[0].steps} steps of {text((group.runs[0].data_digest or '')[:8])}"
            found.append(
                {
                    "name": entry.name,
                    "origin": entry.origin,
                    "status": entry.status,
                    "bucket": entry.bucket,
                    "seeds": len(group.runs),
                    "budget": budget,
                    "curve": rows,
                }
            )
    return found


def files(found: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The data by its path in docs/; a page that is read from disk can load scripts alone."""
    columns = {"columns": _HEADS[4:], "experiments": found}
    written = json.dumps(columns, separators=(",", ":"), sort_keys=True)
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(_HEADS)
    for one in found:
        for point in one["curve"]:
            rows.writerow([one["name"], one["origin"], one["status"], one["seeds"], *point])
    return {
        DATA.format("json"): written + "\n",
        DATA.format("csv"): table.getvalue(),
        DATA.format("data.js"): f"window.grugCompare={written};\n",
    }


def page(found: Sequence[Mapping[str, Any]]) -> str:
    """The page: a picture, which a script replaces by one that answers."""
    head = (
        "---\ntitle: Compare experiments\nhide: [navigation, toc]\n---\n\n# Compare experiments\n\n"
    )
    if not found:
        return f"{head}<p>No experiment has held-out values yet.</p>\n"
    return (
        f'{head}<p class="grug-lead">Held-out bits per byte of any experiments, each beside its '
        "origin: means over the seeds of the settings with most seeds. Values compare only on "
        'equal data. The numbers: <a href="compare.csv" download>CSV</a>, '
        '<a href="compare.json" download>JSON</a>. '
        '<a href="grug-archive.html">All experiments</a>.</p>\n\n'
        f'<div class="grug-compare" data-search-exclude>{_picture(found)}</div>\n\n'
        '<link rel="stylesheet" href="../assets/uplot/uPlot.min.css">\n'
        '<script defer src="../assets/uplot/uPlot.iife.min.js"></script>'
        '<script defer src="compare.data.js"></script>'
        '<script defer src="../assets/compare.js"></script>\n'
    )


def _picture(found: Sequence[Mapping[str, Any]]) -> str:
    """The latest experiments and the first, by tokens, and their differences from the first."""
    shown = [found[0], *found[1:][-(SHOWN - 1) :]]
    lines = [[(row[1], row[4]) for row in one["curve"]] for one in shown]
    first = lines[0]
    apart = [
        [(x, y - base) for x, y in line if (base := value_at(first, x)) is not None]
        for line in lines
    ]
    pictures = []
    for name, kind, curves in (
        ("values", "held-out bits per byte", lines),
        ("differences", f"difference from {shown[0]['name']}", apart),
    ):
        drawn = [
            Series(one["name"], i == 0, (line,), tone=max(i - 1, 0))
            for i, (one, line) in enumerate(zip(shown, curves, strict=True))
            if len(line) > 1
        ]
        if drawn:
            title = f"{kind} over tokens".capitalize()
            desc = "; ".join(f"{s.label} ends at {s.curves[0][-1][1]:.3f}" for s in drawn) + "."
            drawing = chart(
                drawn, name=f"compare-{name}", title=title, desc=desc, x="tokens", y=kind
            )
            pictures.append(drawing)
    names = ", ".join(text(one["name"]) for one in shown)
    caption = f"<figcaption>The first experiment, dashed, and the latest: {names}.</figcaption>"
    return f'<figure class="grug-charts">{"".join(pictures)}{caption}</figure>'
