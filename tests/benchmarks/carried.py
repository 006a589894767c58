"""What `gpu --carry` has put together, on the machine that it was made for. See carry.py."""

import hashlib
import json
import platform
import subprocess
from pathlib import Path

from tests.benchmarks.measure import BenchmarkError

MANIFEST, SCHEMA_VERSION = "carried.json", 1
SOURCES = ("experiments/grug", "tests/benchmarks")


def unpack(directory: Path, site: Path, python: Path) -> str:
    """Installs the wheels into `site` for the interpreter; the commit that they were made with.

    The commit has a trailing + where the sources are not those of that time.

    Raises:
        BenchmarkError: there are none, they are for another Python, or pip cannot install them.
    """
    again = "make it anew: ./pants run tests/benchmarks:gpu -- --carry DIR"
    try:
        manifest = json.loads((directory / MANIFEST).read_text())
        made_for, commit = str(manifest["python"]), str(manifest["commit"])
        version, sources = manifest["schema_version"], manifest["sources"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchmarkError(f"{directory} has no {MANIFEST} to read; {again}") from error
    if version != SCHEMA_VERSION:
        raise BenchmarkError(f"{directory}: schema {version}, not {SCHEMA_VERSION}; {again}")
    told = subprocess.run(
        [str(python), "-c", "import platform; print(platform.python_version())"],
        capture_output=True,
        text=True,
    )
    here = ".".join(told.stdout.split(".")[:2])
    if here != made_for:
        raise BenchmarkError(
            f"{directory} is for CPython {made_for}, this is {here or 'none'}; {again} "
            f"--python-version {'.'.join(platform.python_version_tuple()[:2])}"
        )
    command = [str(python), "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    command += ["--no-compile", "--no-cache-dir", "--disable-pip-version-check"]
    command += ["--target", str(site), *map(str, sorted(directory.glob("*.whl")))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no message"]
        raise BenchmarkError(f"{directory}: pip could not install the wheels: {said[-1]}")
    changed = sources != sources_digest(Path()) and not commit.endswith("+")
    return commit + "+" * changed


def sources_digest(root: Path) -> str:
    """Of the Python files that are measured and that measure."""
    digest = hashlib.sha256()
    for name in SOURCES:
        for path in sorted((root / name).rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()
