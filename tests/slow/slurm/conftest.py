"""What a person has who launches on Slurm: a cluster, a store, a workspace with a packed bundle."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from experiments.grug.base.plumbing.storage import Folder
from tests.engines.cluster import cache_in
from tests.slow.slurm.cluster import CPUS, NODES, Slurm, missing
from tests.stores.conftest import MOTO, post, start

BUCKET = "s3://runs"
# Where `./pants slow` puts it, and where `./pants package` does.
BUNDLES = (Path("bundles/base-cpu"), Path("dist/bundles/base-cpu"))
# A worker's: with pip, which the environment that the tests run in may lack.
PYTHON = str(Path(sys.base_prefix, "bin", "python{}.{}".format(*sys.version_info)))
# tools.launch.main with the modules of this process. Not by PYTHONPATH: a job would take it along.
LAUNCHER = """
import os, sys
sys.path[:0] = sys.argv.pop(1).split(os.pathsep)
from tools.launch.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    if lacking := missing():
        said = f"no Slurm: {', '.join(lacking)} not installed; apt-get install slurm-wlm munge"
        if os.environ.get("GRUG_REQUIRE_SLURM"):
            pytest.fail(said)
        pytest.skip(said)
    # A socket's path must be short, and pytest's are not.
    with tempfile.TemporaryDirectory(prefix="slurm-") as home, Slurm(Path(home)) as slurm:
        yield slurm


@pytest.fixture(scope="session")
def s3(tmp_path_factory) -> Iterator[None]:
    """An S3 with a bucket, which the environment names."""
    for url in start(MOTO, "/moto-api/", tmp_path_factory.mktemp("moto") / "log"):
        post(f"{url}/{BUCKET.removeprefix('s3://')}", b"", "PUT")
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("AWS_ENDPOINT_URL", url)
            environment.setenv("AWS_REGION", "us-east-1")
            environment.setenv("AWS_ACCESS_KEY_ID", "test")
            environment.setenv("AWS_SECRET_ACCESS_KEY", "test")
            yield


@dataclass
class Launched:
    """`./pants run launch -- base --on slurm`, at work; what it shows is in a file."""

    process: subprocess.Popen
    output: Path
    run: str  # URL
    here: Path  # the workspace

    def text(self) -> str:
        return self.output.read_text()

    def read(self, name: str) -> str:
        """A file of the run."""
        content = Folder(self.run).read(name)
        assert content is not None, f"{self.run} has no {name}"
        return content.decode()


@pytest.fixture(scope="session")
def workspace(tmp_path_factory) -> Path:
    """What the launcher looks at: the bundle, and the sources that it was packed from."""
    packed = next((path for path in BUNDLES if path.is_dir()), None)
    if not packed:
        pytest.skip("no bundle: ./pants package experiments/grug/base::")
    root = tmp_path_factory.mktemp("workspace")
    shutil.copytree(packed, root / "dist" / BUNDLES[0])
    shutil.copytree("experiments/grug/base", root / "experiments/grug/base")
    (root / "tools/locks").mkdir(parents=True)
    shutil.copy("tools/locks/cpu.lock", root / "tools/locks")
    return root


@pytest.fixture
def launch(slurm, s3, workspace, tmp_path_factory) -> Iterator[Callable[..., Launched]]:
    """`launch(NAME, *FLAGS, **VARIABLES)`: a job of two nodes whose run is s3://runs/NAME."""
    venvs = os.environ.get("GRUG_VENVS") or str(tmp_path_factory.getbasetemp() / "venvs")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    started = []

    def begin(name: str, *flags: str, **variables: str) -> Launched:
        engine = ["--on", "slurm", "--topology", str(len(NODES)), "--cpus", str(CPUS)]
        modules = os.pathsep.join(map(os.path.abspath, sys.path))
        command = [sys.executable, "-c", LAUNCHER, modules, "base", *engine]
        own = {"PYTHON": PYTHON, "GRUG_VENVS": venvs}
        own |= cache_in(tmp_path_factory.getbasetemp() / "compiled")
        output = tmp_path_factory.mktemp(name) / "output"
        with output.open("w") as out:
            process = subprocess.Popen(
                [*command, "--run-dir", f"{BUCKET}/{name}", *flags],
                env={**environment, **slurm.env, **own, **variables},
                cwd=workspace,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        started.append(process)
        return Launched(process, output, f"{BUCKET}/{name}", workspace)

    yield begin
    for process in started:
        process.kill()
        process.wait()
    slurm.cancel_all()
