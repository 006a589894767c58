"""The packages of tools/ and the imports between them, as a page and as a picture."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from tools.common.errors import ToolError
from tools.reference.pages import WRITE

PAGE = "docs/reference/packages.md"
PICTURE = "docs/assets/packages.svg"
PURPOSES = {
    "bundle": "Packs a variant and its lock into a launch bundle that any machine can run.",
    "common": "What the others share: files, transactions over several files, git, JSON, errors.",
    "corpus": "Turns text into a token store.",
    "diff": "Compares a variant with its origin: bytes first, then lines, then definitions.",
    "hooks": "Installs the pre-commit hook.",
    "isolation": "Finds what a variant reaches outside its directory.",
    "launch": "Trains a variant here, or sends it to Slurm, Kubernetes, SkyPilot, Ray or ssh.",
    "ledger": "Reads and edits the ledger of experiments.",
    "lifecycle": "Forks, updates, merges and retires variants, each step whole or not at all.",
    "reference": "Writes the reference pages from the code's own help and imports.",
    "requirements": "Updates the locks and says what changed in them.",
    "review": "Comments on a pull request with the reports that its run made.",
    "runs": "Records runs, checks the records, and says what they allow you to claim.",
    "site": "Writes the site's pages, puts the diff reports into them and checks the links.",
    "speedrun": "Records and checks speedruns and writes their leaderboard.",
    "start": "Starts Pants on a machine that has only a Python; reads where it gets packages.",
    "variants": "Lists the variants, their sizes, and what each is compared with.",
}
Imports = Mapping[str, frozenset[str]]
"""The other packages that each package imports directly."""


def find_imports(root: Path) -> Imports:
    """The imports between the packages of the workspace's tools/. The plugin is not one of them.

    Raises:
        ToolError: a package has no purpose, or a purpose no package.
    """
    tops = {path.parent for path in (root / "tools").glob("*/*.py")}
    files = {top.name: sorted(top.rglob("*.py")) for top in tops}
    if differs := sorted(files.keys() ^ PURPOSES.keys()):
        raise ToolError(f"tools/{differs[0]}: say its purpose in {Path(__file__).name}, PURPOSES")
    return {
        package: frozenset(name for path in paths for name in _imported(path)) - {package}
        for package, paths in files.items()
    }


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "tools":
            modules = [f"tools.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module]
        yield from (name.split(".")[1] for name in modules if name.startswith("tools."))


def closure(imports: Imports, package: str) -> frozenset[str]:
    """The packages that a package imports, directly or indirectly."""
    packages: set[str] = set()
    waiting = list(imports[package])
    while waiting:
        name = waiting.pop()
        if name not in packages:
            packages.add(name)
            waiting += imports[name]
    return frozenset(packages)


def levels(imports: Imports) -> list[list[str]]:
    """Packages by their distance from those that import nothing, each level sorted by name.

    Raises:
        ToolError: packages import each other in a circle.
    """
    result: list[list[str]] = []
    placed: set[str] = set()
    while len(placed) < len(imports):
        level = sorted(p for p in imports if p not in placed and imports[p] <= placed)
        if not level:
            circular = sorted(p for p in imports if p in closure(imports, p))
            raise ToolError(f"tools/: {', '.join(circular)} import each other in a circle")
        result.append(level)
        placed |= set(level)
    return result


def needed(imports: Imports) -> list[tuple[str, str]]:
    """The imports that do not follow from others, as sorted pairs (package, imported)."""
    return sorted(
        (package, name)
        for package, names in imports.items()
        for name in names
        if not any(name in closure(imports, between) for between in names)
    )


def page(imports: Imports) -> str:
    """The page: the picture, and each package with its purpose and its imports."""
    rows = [
        f"| `tools/{package}/` | {PURPOSES[package]} | "
        f"{', '.join(sorted(imports[package])) or 'nothing'} |"
        for package in sorted(imports)
    ]
    table = "\n".join(["| package | purpose | imports |", "| --- | --- | --- |", *rows])
    return f"""\
<!-- Written by `{WRITE}` from the code's own imports: edits are lost. -->

# The tools' packages

Each package of `tools/` does one thing. They import each other without circles: an arrow leads from
a package down to one that it imports. Arrows that follow from others are left out; the table has
every import.

![The packages of tools/ and their imports](../{PICTURE.removeprefix("docs/")})

{table}

The plugin, `tools/pants_plugins/grug/`, imports none of them: it starts them as programs. Variants
import none of them either; a test of the workspace may import any.
"""


# -- the picture ----------------------------------------------------------------------------------

_ROW, _BOX, _GAP, _LANE = 76, (104, 30), 18, 26
_STYLE = """\
text { font: 14px system-ui, sans-serif; text-anchor: middle; fill: #1f2328; }
rect { fill: #f6f8fa; stroke: #6e7781; }
path { fill: none; stroke: #6e7781; stroke-width: 1.3; }
marker path { fill: #6e7781; stroke: none; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } rect { fill: #161b22; stroke: #8b949e; }
  path { stroke: #8b949e; } marker path { fill: #8b949e; }
}
"""
Place = tuple[str, str]
"""A package, (name, ""), or the place where an arrow (from, to) crosses a level on its way."""


def picture(imports: Imports) -> str:
    """The packages as SVG, those that import nothing at the bottom."""
    rows, chains = _lanes(imports)
    rows = _ordered(rows, chains)
    widths = [sum(_width(place) + _GAP for place in row) + _GAP for row in rows]
    total, height = max(widths), _ROW * len(rows)
    centers: dict[tuple[int, Place], tuple[float, float]] = {}
    for level, row in enumerate(rows):
        x = _GAP + (total - widths[level]) / 2
        for place in row:
            centers[level, place] = (x + _width(place) / 2, height - _ROW * (level + 0.5))
            x += _width(place) + _GAP
    arrows = [_arrow([centers[point] for point in chain]) for chain in chains]
    boxes = [
        f'<rect x="{x - _BOX[0] / 2:g}" y="{y - _BOX[1] / 2:g}" width="{_BOX[0]}" '
        f'height="{_BOX[1]}" rx="5"/><text x="{x:g}" y="{y + 5:g}">{name}</text>'
        for (_, (name, to)), (x, y) in sorted(centers.items())
        if not to
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total:g} {height}" role="img">',
            "<title>The packages of tools/ and their imports</title>",
            f"<style>\n{_STYLE}</style>",
            '<marker id="head" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
            '<path d="M0,1L8,4L0,7Z"/></marker>',
            *arrows,
            *boxes,
            "</svg>\n",
        ]
    )


def _width(place: Place) -> int:
    return _LANE if place[1] else _BOX[0]


def _lanes(imports: Imports) -> tuple[list[list[Place]], list[list[tuple[int, Place]]]]:
    """The levels with a lane for each crossing arrow, and each arrow's places from the top."""
    rows: list[list[Place]] = [[(name, "") for name in level] for level in levels(imports)]
    level_of = {name: level for level, row in enumerate(rows) for name, _ in row}
    chains = []
    for package, name in needed(imports):
        chain: list[tuple[int, Place]] = [(level_of[package], (package, ""))]
        for level in range(level_of[package] - 1, level_of[name], -1):
            rows[level].append((package, name))
            chain.append((level, (package, name)))
        chains.append([*chain, (level_of[name], (name, ""))])
    return rows, chains


def _ordered(
    rows: Sequence[Sequence[Place]], chains: Sequence[Sequence[tuple[int, Place]]]
) -> list[list[Place]]:
    """The levels, each sorted by the places of its neighbours, so that few arrows cross."""
    result = [list(row) for row in rows]
    below: dict[tuple[int, Place], list[Place]] = {}
    above: dict[tuple[int, Place], list[Place]] = {}
    for chain in chains:
        for high, low in pairwise(chain):
            below.setdefault(high, []).append(low[1])
            above.setdefault(low, []).append(high[1])
    upward = [(level, level - 1, below) for level in range(1, len(result))]
    downward = [(level, level + 1, above) for level in range(len(result) - 2, -1, -1)]
    for level, neighbour_level, neighbours in (*upward, *downward) * 4:
        spots = {
            place: (i + 0.5) / len(result[neighbour_level])
            for i, place in enumerate(result[neighbour_level])
        }
        weights: dict[Place, float] = {}
        for i, place in enumerate(result[level]):
            nearby = [spots[neighbour] for neighbour in neighbours.get((level, place), ())]
            weights[place] = sum(nearby) / len(nearby) if nearby else (i + 0.5) / len(result[level])
        result[level].sort(key=lambda place: (weights[place], place))
    return result


def _arrow(points: Sequence[tuple[float, float]]) -> str:
    """A curve from the lower edge of the first box to the upper edge of the last."""
    (x, y), *following = points
    y += _BOX[1] / 2
    steps = [f"M{x:g},{y:g}"]
    for number, (to_x, to_y) in enumerate(following, start=1):
        end = to_y - _BOX[1] / 2
        middle = (y + end) / 2
        steps.append(f"C{x:g},{middle:g} {to_x:g},{middle:g} {to_x:g},{end:g}")
        if number < len(following):
            steps.append(f"V{to_y + _BOX[1] / 2:g}")
        x, y = to_x, to_y + _BOX[1] / 2
    return f'<path d="{"".join(steps)}" marker-end="url(#head)"/>'
