"""docs/benchmarks.md from page.md, the reports in results/ and the notes beside them.

./pants run tests/benchmarks:page

page.md holds the text; `@overview@` in it gives way to the aims of all benchmarks, `@NAME@` to the
tables of results/NAME.json and the note results/NAME.md. A report that misses an aim must have a
note that says why. Where results/NAME_before.json holds an earlier report, its numbers stand in
brackets behind those that have changed.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.benchmarks.measure import (
    BenchmarkError,
    Report,
    Series,
    Table,
    advantage,
    number,
    spread,
)

TEMPLATE = Path("tests/benchmarks/page.md")
RESULTS = Path("tests/benchmarks/results")
PAGE = Path("docs/benchmarks.md")
BEFORE = "_before"
# Its tables are many, and the search loads its whole index before it answers.
UNSEARCHED = "---\nsearch:\n  exclude: true\n---\n\n"
WARNING = (
    f"{UNSEARCHED}<!-- Written by `./pants run tests/benchmarks:page` from "
    "tests/benchmarks/page.md and tests/benchmarks/results: edits are lost. -->\n\n"
)


def cell(value: float | str) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return value if isinstance(value, str) else number(value)


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, its first column to the left."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def unsearched(text: str) -> str:
    """Markdown that the site's search leaves out: it loads all of its index before it answers."""
    return f"<div data-search-exclude markdown>\n\n{text}\n\n</div>"


def render_table(table: Table, before: Sequence[Table] = ()) -> str:
    """One row a series, with our advantage over it in the same case and its facts.

    `before` are an earlier report's tables.
    """
    earlier = {
        (one.case, one.name): one
        for old in before
        if old.title == table.title
        for one in old.series
    }
    facts = list(dict.fromkeys(name for one in table.series for name in one.facts))
    cases = list(dict.fromkeys(one.case for one in table.series))
    compared = any(len(table.case(case)) > 1 for case in cases)
    spread_out = any(len(one.values) > 1 for one in table.series)
    header = ["contestant" if compared else "case"]
    header.append(f"{table.unit}, median (least–most)" if spread_out else table.unit)
    header += ["ours is better by"] * compared + facts
    rows = []
    for one in table.series:
        ours = table.case(one.case)[0]
        name = f"{one.case}: {one.name}" if compared and one.case else one.case or one.name
        old = earlier.get((one.case, one.name))
        row = [name, changed(values(one), values(old) if old else "")]
        if compared:
            row.append("" if one is ours else versus(ours, one, table.better))
        for fact in facts:
            was = cell(old.facts.get(fact, "")) if old else ""
            row.append(changed(cell(one.facts.get(fact, "")), was))
        rows.append(row)
    return markdown(header, rows)


def changed(now: str, before: str) -> str:
    """A cell, with what it was before in brackets where that was something else."""
    return f"{now} ({before})".strip() if before not in ("", now) else now


def values(series: Series) -> str:
    if not series.values:
        return ""
    middle = number(spread(series.values).median)
    if len(series.values) == 1:
        return middle
    return f"{middle} ({number(min(series.values))}–{number(max(series.values))})"


def versus(ours: Series, other: Series, better: str) -> str:
    found = spread(advantage(ours, other, better))
    return f"{found.median:.2f}× ({found.low:.2f}–{found.high:.2f})"


def overview_rows(report: Report) -> list[list[str]]:
    """An aim a row: what, the bound, what was found, the verdict."""
    return [
        [
            aim.what,
            f"{aim.kind} {number(aim.bound)}",
            f"{number(aim.found.median)} ({number(aim.found.low)}–{number(aim.found.high)})",
            "reached" if aim.reached else "**behind**",
        ]
        for aim in report.aims
    ]


def overview(names: list[str], reports: Mapping[str, Report]) -> str:
    rows = []
    for name in names:
        link = f"[{name}](#{name})"
        if name not in reports:
            rows.append([link, "", "", "not measured yet", ""])
        elif found := overview_rows(reports[name]):
            rows += [[link, *row] for row in found]
        else:
            rows.append([link, "no aim is set", "", "measured", ""])
    header = ["benchmark", "what", "aim", "measured (95% interval)", "verdict"]
    return unsearched(markdown(header, rows))


def section(report: Report, note: str, before: Report | None = None) -> str:
    """Tables, the note, and what the numbers depend on."""
    behind = [aim.what for aim in report.aims if not aim.reached]
    if behind and not note:
        raise BenchmarkError(
            f"{report.benchmark}: behind in {'; '.join(behind)}: write why into "
            f"{RESULTS / report.benchmark}.md"
        )
    earlier = before.tables if before else ()
    parts = [
        f"**{table.title}**\n\n{unsearched(render_table(table, earlier))}"
        for table in report.tables
    ]
    if before:
        parts.append(f"In brackets: before, {before.date}, commit {before.commit}.")
    parts += [f"Not measured: {name}: {why}." for name, why in sorted(report.missing.items())]
    parts += [note] if note else []
    where = report.machine
    accelerator = f", {where['accelerator']}" if "accelerator" in where else ""
    versions = ", ".join(f"{name} {v}" for name, v in sorted(report.versions.items()))
    parts.append(
        f"<small data-search-exclude>{where['cpu']}, {where['cores']} cores, "
        f"{where['memory_gib']} GiB{accelerator}, "
        f"{where['kernel']}; {report.date}, commit {report.commit}; load {report.load:.1f} before; "
        f"{versions}; {', '.join(f'{k}={v}' for k, v in sorted(report.options.items()))}.</small>"
    )
    return "\n\n".join(parts)


def render(template: str, reports: Mapping[str, Report], notes: Mapping[str, str]) -> str:
    """The page. Raises BenchmarkError for results without a place, or a miss without its why."""
    names = re.findall(r"^@(\w+)@$", template, re.MULTILINE)
    names.remove("overview")
    placed = {name.removesuffix(BEFORE) for name in reports.keys() | notes.keys()}
    if lost := sorted(placed - set(names)):
        raise BenchmarkError(f"{TEMPLATE} has no place for {', '.join(lost)}: add a line @NAME@")
    page = template.replace("@overview@", overview(names, reports))
    for name in names:
        note = notes.get(name, "")
        text = f"Not measured yet.\n\n{note}"
        if name in reports:
            text = section(reports[name], note, reports.get(f"{name}{BEFORE}"))
        page = page.replace(f"@{name}@", text.rstrip())
    return WARNING + page


def current(root: Path) -> str:
    """The page as the files under `root` give it."""
    reports = {path.stem: Report.read(path) for path in sorted((root / RESULTS).glob("*.json"))}
    notes = {path.stem: path.read_text().strip() for path in sorted((root / RESULTS).glob("*.md"))}
    return render((root / TEMPLATE).read_text(), reports, notes)


def main() -> int:
    try:
        PAGE.write_text(current(Path()))
    except (BenchmarkError, OSError) as error:
        print(f"page: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
