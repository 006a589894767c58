"""A bundle's files from its parts, and both as bytes that depend on nothing else."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from tools.bundle import flags, specs
from tools.bundle.lock import MACHINES, Lock, Pin, Target, machines_of, requirements_text
from tools.bundle.manifest import VERSIONS, Manifest, Pythons
from tools.bundle.settings import Settings
from tools.bundle.topology import Topology
from tools.common.errors import ToolError

HERE = Path(__file__).parent
# What run.py imports, by its path in the workspace, which it keeps in the bundle below parts/.
PARTS = (
    *(
        f"tools/bundle/worker/{name}.py"
        for name in ("check", "errors", "home", "installed", "locks", "say", "start", "venv")
    ),
    *(f"tools/start/{name}.py" for name in ("installers", "machine", "mirrors", "settings")),
)
SAMPLE, WHEELS = "sample", "wheels"
INSTALLER = "uv"
EXECUTABLE = ("run.py", "launch/local.sh", "launch/ssh.sh")
EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest time that a zip file can hold
# What JAX is called where it drives each accelerator.
JAX = {"cpu": "jax", "gpu": "jax[cuda13]", "tpu": "jax[tpu]"}
ENV = {
    "cpu": {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},  # a huge page is one fault for 512
    "gpu": {"XLA_FLAGS": "--xla_gpu_enable_latency_hiding_scheduler=true"},
    "tpu": {
        "LIBTPU_INIT_ARGS": "--xla_tpu_enable_async_collective_fusion=true "
        "--xla_tpu_enable_async_collective_fusion_fuse_all_gather=true "
        "--xla_tpu_overlap_compute_collective_tc=true"
    },
}


def jax_for(accelerator: str, lock: Lock) -> str:
    """What JAX is called where it drives the accelerator: for GPUs, with the locked CUDA."""
    if accelerator == "gpu" and lock.version("jax-cuda12-plugin"):
        return "jax[cuda12]"
    return JAX[accelerator]


@dataclass(frozen=True)
class Contents:
    """What a bundle is made of. Paths of `sources` are as Python imports them."""

    variant: str
    accelerator: str
    entry: str
    sources: Mapping[str, bytes]
    lock: Lock
    requirements: tuple[str, ...]  # names of the distributions that the sources import
    pythons: Pythons
    topology: Topology
    args: tuple[str, ...] = ()
    env: Mapping[str, str] | None = None  # None: ENV's
    commit: str | None = None
    dirty: bool | None = None
    sample: Mapping[str, bytes] | None = None
    tools: Lock | None = None  # has the uv that workers without one install with
    wheels: Target | None = None  # the workers that the wheels laid beside are for

    def pins(self, targets: Iterable[Target]) -> list[Pin]:
        """The distributions that the variant needs on each of the targets."""
        return self.lock.needed((*self.requirements, jax_for(self.accelerator, self.lock)), targets)

    def installer(self, targets: Iterable[Target]) -> list[Pin]:
        """The distributions that install the others; none where workers bring their own."""
        return self.tools.needed([INSTALLER], targets) if self.tools else []


def bundle(contents: Contents) -> dict[str, bytes]:
    """Every file of the bundle by its path, bundle.json among them. Raises ToolError."""
    env = dict(ENV[contents.accelerator] if contents.env is None else contents.env)
    for variable, (package, _) in flags.READERS.items():
        flags.check(variable, env.get(variable, ""), contents.lock.version(package))
    module = contents.entry.replace(".", "/") + ".py"
    if module not in contents.sources:
        raise ToolError(f"{contents.variant} has no {module}: a bundle runs one")
    pythons = contents.pythons.minors()
    targets = [Target(p, machine) for p in pythons for machine in MACHINES]
    machines = machines_of(contents.pins(targets), pythons)
    targets = [target for target in targets if target.machine in machines]
    manifest = Manifest(
        variant=contents.variant,
        accelerator=contents.accelerator,
        entry=contents.entry,
        args=contents.args,
        python=contents.pythons,
        machines=machines,
        lock=contents.lock.sha256,
        versions={v: found for v in VERSIONS if (found := contents.lock.version(v))},
        env=env,
        topology=contents.topology,
        commit=contents.commit,
        dirty=contents.dirty,
        sample=SAMPLE if contents.sample else None,
        wheels=contents.wheels,
    )
    files = {
        "app.pex": application(contents.sources, contents.entry),
        "lock.json": contents.lock.text.encode(),
        "requirements.txt": requirements_text(contents.pins(targets), targets).encode(),
        **worker_files(),
    }
    if installer := contents.installer(targets):
        files["installer.txt"] = requirements_text(installer, targets).encode()
    files |= {f"{SAMPLE}/{name}": data for name, data in (contents.sample or {}).items()}
    settings = Settings(contents.variant, contents.topology, pythons=contents.pythons)
    files |= {f"launch/{name}": data for name, data in specs.render(settings).items()}
    files["bundle.json"] = manifest.render(files)
    return files


def worker_files() -> dict[str, bytes]:
    """run.py and its parts, by their paths in a bundle."""
    files = {"run.py": (HERE / "run.py").read_bytes()}
    return files | {f"parts/{part}": (HERE.parents[1] / part).read_bytes() for part in PARTS}


def application(sources: Mapping[str, bytes], entry: str) -> bytes:
    """The sources as an executable zip file: `python app.pex`, or PYTHONPATH=app.pex.

    Stored, not deflated: its digest must not depend on the compressor, and the tarball packs it.
    """
    main = f"import runpy\n\nrunpy.run_module({entry!r}, run_name='__main__', alter_sys=True)\n"
    # Packages without an __init__.py are found by the entries of their directories.
    parents = {f"{parent}/": b"" for name in sources for parent in PurePosixPath(name).parents[:-1]}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in sorted({**sources, **parents, "__main__.py": main.encode()}.items()):
            info = zipfile.ZipInfo(name, EPOCH)
            info.create_system = 3  # Unix, wherever it is written
            info.external_attr = (0o040755 if info.is_dir() else 0o100644) << 16
            archive.writestr(info, data)
    return buffer.getvalue()


def tarball(files: Mapping[str, bytes | Path], name: str, into: BinaryIO) -> None:
    """Writes `name`/... as .tar.gz: sorted, no times, no owners.

    What comes as a path, to a wheel, is compressed already: then nothing is again.
    """
    level = 0 if any(isinstance(data, Path) for data in files.values()) else 9
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=into, compresslevel=level, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for path, data in sorted(files.items(), key=lambda pair: pair[0]):
            info = tarfile.TarInfo(f"{name}/{path}")
            info.mode = _mode(path)
            with data.open("rb") if isinstance(data, Path) else io.BytesIO(data) as stream:
                info.size = stream.seek(0, os.SEEK_END)
                stream.seek(0)
                archive.addfile(info, stream)


def _mode(path: str) -> int:
    return 0o755 if path in EXECUTABLE else 0o644


def write(files: Mapping[str, bytes | Path], directory: Path, *, archive: bool = True) -> None:
    """The directory and, if asked for, DIRECTORY.tar.gz beside it; complete or as they were."""
    packed = directory.with_name(f"{directory.name}.tar.gz")
    fresh, fresh_packed = (p.with_name(f".{p.name}.partial") for p in (directory, packed))
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        for path, data in files.items():
            target = fresh / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(data, Path):
                shutil.copyfile(data, target)
            else:
                target.write_bytes(data)
            target.chmod(_mode(path))
        if archive:
            with fresh_packed.open("wb") as file:
                tarball(files, directory.name, file)
        shutil.rmtree(directory, ignore_errors=True)
        fresh.rename(directory)
        if archive:
            fresh_packed.replace(packed)
    except OSError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh_packed.unlink(missing_ok=True)
        raise ToolError(f"{error.filename or directory}: {error.strerror}") from error
