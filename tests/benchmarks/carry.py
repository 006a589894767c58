"""What base and moe need besides JAX, as wheels, for a machine with a GPU and no network.

That machine's Python brings JAX, what JAX itself needs, and PyTorch. All else travels in one
directory, in the versions of tools/locks/jax-0-11.lock. Its JAX is the oldest that the template
supports: such machines often have one that is some months old.
"""

import json
import subprocess
from pathlib import Path

from packaging.requirements import Requirement

from tests.benchmarks.carried import MANIFEST, SCHEMA_VERSION, sources_digest
from tests.benchmarks.contest import NotMeasured, environment
from tests.benchmarks.measure import BenchmarkError, commit
from tools.bundle.lock import Lock, Pin, Target, machines_of, one_wheel_each
from tools.common.errors import ToolError

LOCK = Path("tools/locks/jax-0-11.lock")
VARIANTS = Path("tools/locks/gpu.lock")  # its requirements are what variants import, and JAX
LARGEST = 60_000_000  # bytes of all wheels


def carry(directory: Path, python: str) -> None:
    """Fills a directory that git ignores with wheels for CPython `python` on x86-64 Linux.

    Raises:
        BenchmarkError: git does not ignore it, or the wheels cannot be had or are too large.
    """
    check_ignored(directory)
    try:
        pins = needed(python)
        target = Target(python, "x86_64")
        download, floor = one_wheel_each(pins, target), machines_of(pins, [python])["x86_64"]
        pip = environment("pip", [], "import pip")
    except (ToolError, NotMeasured) as error:
        raise BenchmarkError(str(error)) from error
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob("*.whl"):
        old.unlink()
    listing = directory / "requirements.txt"
    listing.write_text(download.requirements)
    command = [str(pip), "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
    command += [f"--platform={name}" for name in platforms(floor)]
    command += ["--dest", str(directory), "--requirement", str(listing)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no message"]
        raise BenchmarkError(f"pip could not get the wheels: {said[-1]}")
    wheels = sorted(directory.glob("*.whl"))
    size = sum(wheel.stat().st_size for wheel in wheels)
    if size > LARGEST:
        raise BenchmarkError(f"the wheels have {size:,} bytes, of at most {LARGEST:,}")
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "python": python,
        "commit": commit(),
        "sources": sources_digest(Path()),
    }
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    print(f"{directory}: {len(wheels)} wheels for CPython {python}, {size / 1e6:.0f} MB")


def needed(python: str) -> list[Pin]:
    """What variants import and JAX does not bring, with all that it needs."""
    lock, variants = (Lock.parse(path.read_text(), str(path)) for path in (LOCK, VARIANTS))
    imported = [Requirement(line).name for line in variants.requirements]
    targets = [Target(python, "x86_64")]
    brought = {pin.name for pin in lock.needed(["jax"], targets)}
    roots = [name for name in imported if name not in brought]
    return [pin for pin in lock.needed(roots, targets) if pin.name not in brought]


def platforms(floor: str) -> list[str]:
    """The wheels' platforms that run with this glibc ("2.28") and newer ones, for pip."""
    newest = int(floor.partition(".")[2])
    names = [f"manylinux_2_{minor}" for minor in range(newest, 4, -1)]
    return [f"{name}_x86_64" for name in (*names, "manylinux2014", "manylinux2010", "manylinux1")]


def check_ignored(directory: Path) -> None:
    """Raises BenchmarkError unless git ignores what is in the directory."""
    inside = str(directory / MANIFEST)
    done = subprocess.run(["git", "check-ignore", "--quiet", inside], capture_output=True)
    if done.returncode:
        raise BenchmarkError(f"git does not ignore {directory}: choose one below dist/")
