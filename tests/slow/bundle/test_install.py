"""base's bundle installs and trains: with its wheels and no index, and thin, from an index."""

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.grug.base import launch
from tests.tools.bundle.conftest import PYTHON
from tools.bundle.lock import Lock

ROOT = Path(__file__).parents[3]
BASE = Path(launch.__file__).parent
MINOR = "{}.{}".format(*sys.version_info)
NEEDS = ("--accelerator=cpu", "--lock=tools/locks/cpu.lock", "--tools-lock=tools/locks/tools.lock")
IMPORTED = ("equinox", "grain", "jax", "jaxtyping", "numpy", "optax", "tensorboardx", "tensorstore")
IMPORTED += ("tokenizers", "tyro")
SMALL = ("--heldout-fraction=0.2", "--vocab-size=1024")
NO_INDEX = "http://127.0.0.1:9/simple"  # nobody listens there


def tool(module: str, *argv: object) -> None:
    command = [sys.executable, "-m", f"tools.{module}", *map(str, argv)]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> Path:
    """dist/ of two bundles: thin-cpu, and fat-cpu with its wheels."""
    dist = tmp_path_factory.mktemp("dist")
    found = sorted(BASE.rglob("*.py"))
    sources = [p for p in found if not p.name.startswith(("test_", "conftest"))]
    tool("bundle.sample", dist / "text.jsonl", *sources)
    tool("corpus", "build", dist / "text.jsonl", f"--out={dist}/sample", *SMALL)
    needs = (*NEEDS, f"--wheels-python={MINOR}", f"--wheels-machine={platform.machine()}")
    needs += tuple(f"--requirement={name}" for name in IMPORTED)
    tool("bundle", "wheels", *needs, dist / "chosen")
    strict = ("--require-hashes", "--only-binary", ":all:", "--no-deps", "-q")
    chosen = ("-r", dist / "chosen/requirements.txt", "-d", dist / "wheels")
    subprocess.run([PYTHON, "-m", "pip", "download", *strict, *map(str, chosen)], check=True)
    named = [path.relative_to(ROOT) for path in sources]
    needs += ("--variant=base", "--entry=experiments.grug.base.launch", f"--sample={dist}/sample")
    tool("bundle", "pack", *needs, f"--out={dist}/thin-cpu", *named)
    tool("bundle", "pack", *needs, f"--out={dist}/fat-cpu", f"--wheels={dist}/wheels", *named)
    return dist


def run(bundle: Path, where: Path, *flags: str, **env: str) -> subprocess.CompletedProcess:
    """As on a new machine: an empty home, and no uv."""
    where.mkdir(exist_ok=True)
    kept = {n: v for n, v in os.environ.items() if n.startswith("PIP_")}
    return subprocess.run(
        [PYTHON, str(bundle / "run.py"), *flags],
        cwd=where,
        env={**kept, "HOME": str(where), "PATH": "/usr/bin:/bin", **env},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_bundle_with_its_wheels_trains_without_an_index(bundles, tmp_path):
    env = {"PIP_INDEX_URL": NO_INDEX, "UV_DEFAULT_INDEX": NO_INDEX, "PIP_CONFIG_FILE": "/dev/null"}
    where = tmp_path / "worker"
    done = run(bundles / "fat-cpu", where, "--steps", "3", **env)
    assert done.returncode == 0, done.stderr
    assert "installing with uv..." in done.stderr and "with pip" not in done.stderr
    assert re.search(r"step 3/3 .* bits per byte", done.stdout), done.stdout
    assert not list((where / ".cache/grug/venvs").glob("*.partial"))
    # Without the wheels the same index is of no use: they were what installed it.
    thin = run(bundles / "thin-cpu", tmp_path / "other", "--help", PIP_RETRIES="0", **env)
    assert thin.returncode == 78 and "could not be installed" in thin.stderr


def test_what_is_recorded_is_what_was_imported(bundles, tmp_path):
    """Though PYTHONPATH, and the user's site, hold another numpy."""
    where = tmp_path / "worker"
    user = where / f".local/lib/python{MINOR}/site-packages"
    for place in (tmp_path / "path", user):
        (place / "numpy-9.9.9.dist-info").mkdir(parents=True)
        (place / "numpy-9.9.9.dist-info/METADATA").write_text("Name: numpy\nVersion: 9.9.9\n")
        (place / "numpy.py").write_text("raise ImportError('a foreign numpy')\n")
    env = {"PYTHONPATH": str(tmp_path / "path"), "PIP_PREFIX": str(tmp_path / "elsewhere")}
    done = run(bundles / "fat-cpu", where, "--steps", "1", **env)
    assert done.returncode == 0, done.stderr
    assert "PYTHONPATH is not handed on" in done.stderr
    (record,) = where.glob("runs/*/run.json")
    recorded = json.loads(record.read_text())["attempts"][0]["versions"]
    locked = Lock.parse((ROOT / "tools/locks/cpu.lock").read_text(), "cpu.lock")
    assert recorded["numpy"] == locked.version("numpy")
    assert {name.replace("_", "-") for name in recorded} <= {"python", *locked.distributions}


def test_a_thin_bundle_fetches_uv_and_the_rest(bundles, tmp_path):
    done = run(bundles / "thin-cpu", tmp_path / "worker", "--help")
    assert done.returncode == 0, done.stderr
    assert "installing with uv..." in done.stderr and "with pip" not in done.stderr
