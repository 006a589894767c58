"""python -m tools.speedrun.page --root DIR --out DOCS

Writes the leaderboard, DOCS/speedrun/leaderboard.md, and a page for each entry's README. The same
records give the same bytes. `pages` returns them without writing.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.common import files
from tools.common.errors import ToolError, exit_with
from tools.common.files import read_text
from tools.common.paths import local_path
from tools.ledger.ledger import LEDGER, load_ledger
from tools.runs.compare_runs import p_value
from tools.runs.stats import Sample, welch
from tools.site.markup import PAGES, text
from tools.site.svg import Series, chart
from tools.speedrun.entry import RECORD, Record, entries, load
from tools.speedrun.tracks import AREA, Track, load_tracks

FOLDER = "speedrun"
INDEX = f"{FOLDER}/leaderboard.md"
MAX_README = 256 * 1024
# At which a time counts as below the standing record's.
RECORD_P = 0.05

_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?://|#)[^)\s]*\)")


@dataclass(frozen=True)
class Standing:
    """An entry and what it was held against: the record of its track as it came."""

    record: Record
    against: Record | None
    p: float | None
    """Of a two-sided Welch t-test of what ranks; None without a rival on the same hardware."""
    is_new: bool
    """Whether it set the record."""


def standings(records: Iterable[Record], track: Track) -> list[Standing]:
    """The entries of a track in the order they came: by date, then by name.

    The first sets the record; then whoever is faster on the same hardware with p < RECORD_P.
    """
    best: dict[tuple[str, ...], Record] = {}
    result = []
    for record in sorted((r for r in records if r.track == track.name), key=lambda r: r.entry):
        hardware = tuple(sorted(map(str, record.hardware.items())))
        against = best.get(hardware)
        p, is_new = None, against is None
        if against:
            ours, theirs = (Sample(r.column(track.metric)) for r in (record, against))
            test = welch(ours, theirs)
            # Values equal in every seed, such as steps, leave no chance to test.
            p = test.p if test else (1.0 if ours.mean == theirs.mean else 0.0)
            is_new = ours.mean < theirs.mean and p < RECORD_P
        if is_new:
            best[hardware] = record
        result.append(Standing(record, against, p, is_new))
    return result


def pages(root: Path) -> dict[str, str]:
    """The generated pages by their path in docs/; none without a speedrun.

    Raises:
        ToolError: `python -m tools.speedrun check` refuses an entry.
    """
    names = entries(root)
    if not names:
        return {}
    tracks = load_tracks(root)
    waiting = [name for name in names if not (root / AREA / name / RECORD).exists()]
    records = [load(root, name, tracks) for name in names if name not in waiting]
    recorded = _ledger_names(root)
    pages_ = {INDEX: leaderboard(records, tracks.values(), recorded, waiting)}
    for record in records:
        readme = read_text(root / record.path / "README.md", MAX_README)
        pages_[f"{FOLDER}/{record.entry}.md"] = _readme(readme, record, recorded)
    return pages_


def _ledger_names(root: Path) -> set[str]:
    """Names of the experiments that have a page with their diff."""
    if not (root / LEDGER).exists():
        return set()
    return {entry.name for entry in load_ledger(root)}


def leaderboard(
    records: Sequence[Record],
    tracks: Iterable[Track],
    recorded: set[str],
    waiting: Sequence[str] = (),
) -> str:
    """The page with all speedruns by track.

    Entries in `recorded` have a page with their diff; those in `waiting` have no record yet.
    """
    blocks = [
        "---\ntitle: Speedruns\nhide: [navigation, toc]\n---",
        "# Speedruns",
        "Least time, tokens or steps to a held-out loss. [The rules](rules.md).",
    ]
    for track in tracks:
        ranked = standings(records, track)
        blocks += [
            f"## {text(track.name)}",
            f"{text(track.title)}: to {track.target_bpb:g} bits per byte on held-out documents, "
            f"ranked by mean {_WHAT[track.metric]}, {track.seeds} seeds or more.",
        ]
        if not ranked:
            blocks.append("No entry yet.")
            continue
        blocks += [_table(ranked, track, recorded), _chart(ranked, track)]
    if waiting:
        names = ", ".join(f"<code>{text(name)}</code>" for name in waiting)
        blocks.append(f'<p class="grug-note">Not recorded yet: {names}</p>')
    return "\n\n".join(block for block in blocks if block) + "\n"


_WHAT = {
    "seconds": "training time",
    "cpu_seconds": "CPU time of training",
    "tokens": "training tokens",
    "steps": "steps",
}


_COLUMNS = {
    "Time, s": "seconds",
    "CPU time, s": "cpu_seconds",
    "Tokens": "tokens",
    "Steps": "steps",
    "Bits per byte": "heldout_bpb",
}


def _table(standings: Sequence[Standing], track: Track, recorded: set[str]) -> str:
    ranked = sorted(
        standings, key=lambda s: (Sample(s.record.column(track.metric)).mean, s.record.entry)
    )
    rows = [(_row(i, s, recorded), _numbers(s)) for i, s in enumerate(ranked, 1)]
    heads = "".join(f'<th scope="col">{name}</th>' for name in rows[0][0])
    body = "".join(
        "<tr>" + "".join(_cell(n, cell, numbers) for n, cell in row.items()) + "</tr>"
        for row, numbers in rows
    )
    return (
        '<table class="grug-index grug-board">'
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>\n\n"
        '<p class="grug-note">★ set a record; p is against the record of its day, by Welch\'s '
        "t-test. Means over the seeds ± their standard deviation.</p>"
    )


def _cell(name: str, cell: str, numbers: Mapping[str, float | None]) -> str:
    """A cell, and what it sorts by if that is a number; one that is not known sorts last."""
    sort = ""
    if name in numbers:
        number = numbers[name]
        sort = f' data-sort="{"" if number is None else repr(number)}"'
    return f'<td data-label="{name}"{sort}>{cell}</td>'


def _numbers(standing: Standing) -> dict[str, float | None]:
    """The numbers of a row, by column."""
    columns = {name: Sample(standing.record.column(key)).mean for name, key in _COLUMNS.items()}
    return {**columns, "p": standing.p}


def _row(place: int, standing: Standing, recorded: set[str]) -> dict[str, str]:
    """The cells of a row, by column."""
    record = standing.record
    name = text(record.entry)
    links = f'<a href="{name}.html">{name.replace("_", "_<wbr>")}</a>'
    if record.entry in recorded:
        links += f' (<a href="../{PAGES}/{name}.html">diff</a>)'
    if standing.is_new:
        links += " ★"
    return {
        "#": str(place),
        "Name": links,
        "Author": text(record.author),
        "Time, s": _spread(record.column("seconds"), 1),
        "CPU time, s": _spread(record.column("cpu_seconds"), 1),
        "Tokens": _spread(record.column("tokens"), 0),
        "Steps": _spread(record.column("steps"), 0),
        "Bits per byte": _spread(record.column("heldout_bpb"), 4),
        "n": str(len(record.runs)),
        "p": text(p_value(standing.p)).removeprefix("p ").removeprefix("= ")
        if standing.p is not None
        else "—",
        "Hardware": _hardware(record),
        "Sources": f"<code>{record.sources_digest[:8]}</code>",
    }


def _spread(values: Sequence[float], digits: int) -> str:
    """The mean, and the standard deviation over seeds if there is any."""
    sample = Sample(tuple(values))
    mean = f"{sample.mean:,.{digits}f}"
    return f"{mean} ± {sample.spread:,.{digits}f}" if sample.spread else mean


def _hardware(record: Record) -> str:
    hardware = record.hardware
    memory = f"{hardware['memory_bytes'] / 2**30:.0f} GiB"
    parts = [f"{text(hardware['cpu'])}, {hardware['cores']} cores", memory]
    if hardware["accelerator"]:
        parts.insert(0, f"{hardware['accelerators']} × {text(hardware['accelerator'])}")
    return ", ".join(parts)


def _chart(standings: Sequence[Standing], track: Track) -> str:
    """A chart of training loss over time: the current record and the one before it."""
    records = [s.record for s in standings if s.is_new][-2:]
    series = [
        Series(
            label=("before", "record")[i - len(records) + 2],
            dashed=i < len(records) - 1,
            curves=tuple([(point[2], point[3]) for point in run.curve] for run in record.runs),
        )
        for i, record in enumerate(records)
    ]
    shown = chart(
        series,
        name=f"speedrun-{track.name}",
        title=f"Training loss over time, {track.name}",
        desc="The standing record, and the one before it dashed; several seeds give their range.",
        x="seconds",
        y="training loss, nats per token",
    )
    names = ". Dashed: ".join(text(record.entry) for record in reversed(records))
    caption = f"<figcaption>Training loss over time. Solid: {names}.</figcaption>"
    return f'<figure class="grug-charts">{caption}{shown}</figure>'


def _readme(readme: str, record: Record, recorded: set[str]) -> str:
    """A README as a page; its links into the workspace, which the site lacks, become code."""
    title = f"---\ntitle: {record.entry}\nhide: [navigation, toc]\n---"
    links = "[Leaderboard](leaderboard.md) · [Rules](rules.md)"
    if record.entry in recorded:
        links += f" · [Diff](../{PAGES}/{record.entry}.md)"
    sources = f"Sources: `{record.path}/`, digest `{record.sources_digest}`."
    return "\n\n".join([title, _LINK.sub(r"`\1`", readme.strip()), links, sources]) + "\n"


def write(root: Path, out: Path) -> list[str]:
    """Writes all pages below `out`, or none, and returns their paths. Raises as `pages`."""
    written = pages(root)
    if not written:
        raise ToolError(f"{AREA}: has no speedrun: add {AREA}/<YYYY-MM-DD>_<slug>/")
    files.write_all({out / path: page.encode() for path, page in written.items()})
    return list(written)


def main(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    parser = argparse.ArgumentParser(prog="page", description="Write the leaderboard.")
    parser.add_argument("--root", type=local_path, default=Path("."), help="root of the workspace")
    parser.add_argument(
        "--out", type=local_path, required=True, help="docs/ directory of the site, to write into"
    )
    options = parser.parse_args(arguments)
    print("\n".join(write(options.root, options.out)))
    return 0


if __name__ == "__main__":
    exit_with(main)
