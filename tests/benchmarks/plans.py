"""What the compilers of accelerators say of each preset: memory, FLOPs, traffic, least step time.

./pants run tests/benchmarks:plans -- --json tests/benchmarks/results/plans.json

No accelerator is needed: each pair of a preset and a topology is one `--plan --json --topology`.
The report is written after each, and the next start keeps the pairs of the same sources and lock.
"""

import argparse
import hashlib
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import (
    BenchmarkError,
    Report,
    Series,
    Table,
    keep,
    positive,
    report_of,
    run,
    show,
)
from tools.common.errors import ToolError
from tools.common.jsonio import parse_json
from tools.common.sources import is_source
from tools.launch.hardware import python_for
from tools.launch.main import VARIANTS, environment_of, module_of

ROOT = Path(__file__).parents[2]
PRESETS = ("130m", "350m", "1b")
TOPOLOGIES = ("v5e:4x4", "8xh100", "v6e:4x4", "v5p:2x2x4")
TITLE = "The least time of a step"
GIB = 2**30


def versions(variants: Iterable[str], topologies: Iterable[str]) -> dict[str, str]:
    """What plans depend on, as digests: each variant's sources, and the compilers' locks."""
    found = {variant: of_files(f"{VARIANTS}/{variant}", ROOT) for variant in variants}
    return found | {
        lock: of_files(f"tools/locks/{lock}", Path()) for lock in map(lock_of, topologies)
    }


def of_files(name: str, root: Path) -> str:
    """The digest of a file, or of all in a directory that its runs read."""
    place, found = root / name, hashlib.sha256()
    for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
        inside = path.relative_to(place if place.is_dir() else root).as_posix()
        if path.is_file() and is_source(inside):
            found.update(f"{inside} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()[:12]


def lock_of(topology: str) -> str:
    """The file of the lock that a topology's compiler is in."""
    return "tpu.lock" if ":" in topology else "gpu.lock"


def plan(variant: str, preset: str, topology: str, limit: int) -> Mapping[str, Any]:
    """A preset's plan, also where it does not fit. Raises BenchmarkError if there is none."""
    try:
        python = python_for(topology, Path.cwd())
        words = ["--plan", "--json", "--topology", topology, "--preset", preset]
        done = subprocess.run(
            [str(python), "-sP", "-m", module_of(variant), *words],
            env=environment_of(ROOT),
            capture_output=True,
            text=True,
            timeout=limit,
        )
        if not done.stdout.strip():
            raise BenchmarkError((done.stderr.strip().splitlines() or ["it printed nothing"])[-1])
        return parse_json(done.stdout, "its plan")
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"it took more than {limit} s") from None
    except ToolError as error:
        raise BenchmarkError(str(error)) from error


def series(case: str, made: Mapping[str, Any]) -> Series:
    """A row of the table: the least step time in ms, and what it follows from."""
    compiled, step = made["compiled"], made["compiled"]["step"]
    least = (step or {}).get("roofline")
    facts: dict[str, float | str] = {"fits": verdict(compiled)}
    if compiled["peaks"]:
        peak = max(compiled["peaks"].values())
        facts["peak, GiB"] = peak / GIB
        facts["estimate / peak"] = sum(made["memory"].values()) / peak
    if step:
        facts["FLOPs / the model's"] = step["ratio"]
        facts["memory traffic, GB"] = step["bytes_accessed"] / 1e9
        facts["collectives, GB"] = sum(step["collectives"].values()) / 1e9
    if least:
        facts["binds"] = least["binds"]
        facts["highest MFU, %"] = 100 * least["mfu"]
    return Series(case, "grug", (1e3 * least["step_seconds"],) if least else (), facts)


def verdict(compiled: Mapping[str, Any]) -> str:
    """Whether a run fits, with what it would take where the compiler says so."""
    if compiled["fits"]:
        return "yes"
    for form in (r"Used (\S+) of (\S+) \w+", r"\((\S+)\) exceeds available \w+ \(([^)]+)"):
        if said := re.search(form, compiled["error"]):
            return f"no: {said[1]} of {said[2]}"
    return "no"


def kept(path: Path | None) -> dict[str, Series]:
    """Rows of an earlier report that would be the same again, by their case."""
    if not path or not path.exists():
        return {}
    report = Report.read(path)
    rows = {one.case: one for table in report.tables for one in table.series}
    parts = {case: (case.split()[0], case.split()[-1]) for case in rows}
    now = versions(*({part[i] for part in parts.values()} for i in (0, 1)))
    return {
        case: row
        for case, row in rows.items()
        if all(report.versions.get(n) == now[n] for n in (parts[case][0], lock_of(parts[case][1])))
    }


def main(flags: argparse.Namespace, load: float) -> None:
    asked = [(v, p, t) for v in flags.variants for p in flags.presets for t in flags.topologies]
    cases = {f"{v} {p}, {t}": (v, p, t) for v, p, t in asked}
    found, missing = kept(flags.json), {}

    def report() -> Report:
        order = [*(case for case in cases if case in found), *(c for c in found if c not in cases)]
        parts = {(case.split()[0], case.split()[-1]) for case in order}
        table = Table(TITLE, "ms", "less", tuple(found[case] for case in order))
        used = versions({variant for variant, _ in parts}, {topology for _, topology in parts})
        return report_of(flags, [table], load=load, versions=used, missing=missing)

    for number, (case, (variant, preset, topology)) in enumerate(cases.items(), 1):
        state = "is known" if case in found else "..."
        print(f"{number} of {len(cases)}: {case} {state}", file=sys.stderr, flush=True)
        if case in found:
            continue
        try:
            found[case] = series(case, plan(variant, preset, topology, flags.limit_s))
        except BenchmarkError as error:
            missing[case] = str(error)
            print(f"{case}: {error}", file=sys.stderr, flush=True)
        if found:
            keep(flags, report())
    if not found:
        raise BenchmarkError(f"nothing could be compiled: {missing}")
    show(report())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="plans", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--variants", nargs="+", default=["base", "moe"], help="(base moe)")
    parser.add_argument("--presets", nargs="+", default=list(PRESETS), help="(130m 350m 1b)")
    parser.add_argument(
        "--topologies", nargs="+", default=list(TOPOLOGIES), help=f"({' '.join(TOPOLOGIES)})"
    )
    parser.add_argument("--limit-s", type=positive, default=1800, help="seconds of one plan (1800)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all that was found to OUT")
    run("plans", main, parser)
