"""The Pex that Pants runs: Pex's own command line, with four things done otherwise.

- Nothing of pip's configuration reaches it but what ./pants handed on (machine.json).
- Files that a lock names are fetched at once and from this machine's mirror, if it has one,
  instead of by one pip process for each.
- pip is set up only if it is needed: installing wheels needs none, and it takes ten seconds.
- The environment of a whole lock is a reference to a directory (environment.py). Where that cannot
  be made, Pex does what it always does.

Runs on the interpreter of Pants; Pex is the version that tools/locks/pex.txt pins, unpacked.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from tools.start import environment, fetch, installers
from tools.start.machine import Machine
from tools.start.uv import StartError


class LazyPip:
    """Stands for Pex's pip until something of it is used."""

    def __init__(self, make: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._make = lambda: make(*args, **kwargs)
        self._pip: Any = None

    def __getattr__(self, name: str) -> Any:
        if self._pip is None:
            self._pip = self._make()
        return getattr(self._pip, name)


def patch_downloads(settings: Machine) -> None:
    """Pex downloads what is locked by our own way, from this machine's mirrors."""
    from pex.resolve import downloads  # pants: no-infer-dep  # ty: ignore

    get_pip = downloads.get_pip
    downloads.get_pip = lambda *args, **kwargs: LazyPip(get_pip, args, kwargs)
    original = downloads.ArtifactDownloader.download

    def download(self: Any, artifact: Any, dest_dir: str, digest: Any) -> Any:
        url, fingerprint = artifact.url.download_url.partition("#")[0], artifact.fingerprint
        if not url.startswith(("http://", "https://")) or fingerprint.algorithm != "sha256":
            return original(self, artifact, dest_dir=dest_dir, digest=digest)
        target = os.path.join(dest_dir, artifact.filename)
        try:
            fetch.fetch(settings, url, fingerprint.hash, target, digest)
        except fetch.FetchError as error:
            from pex.result import Error  # pants: no-infer-dep  # ty: ignore

            return Error(str(error))
        return artifact.filename

    downloads.ArtifactDownloader.download = download


def patch_resolve(arguments: list[str]) -> None:
    """A whole lock for one interpreter becomes a reference to its directory."""
    from pex.bin import pex as program  # pants: no-infer-dep  # ty: ignore

    original = program.resolve

    def resolve(targets: Any, requirement_configuration: Any, *args: Any, **kwargs: Any) -> Any:
        if not requirement_configuration.requirements:
            try:
                return refer(arguments, targets)
            except StartError as error:
                print(f"pex: {error}: building it by Pex alone", file=sys.stderr)
        return original(targets, requirement_configuration, *args, **kwargs)

    program.resolve = resolve


def refer(arguments: list[str], targets: Any) -> Any:
    """What Pex's resolve returns, of the one wheel that stands for the whole lock."""
    from pex.dependency_configuration import DependencyConfiguration  # pants: no-infer-dep  # ty: ignore
    from pex.dist_metadata import Distribution, Requirement  # pants: no-infer-dep  # ty: ignore
    from pex.fingerprinted_distribution import FingerprintedDistribution  # pants: no-infer-dep  # ty: ignore
    from pex.pep_427 import InstallableType, install_wheel_chroot  # pants: no-infer-dep  # ty: ignore
    from pex.resolve.resolvers import ResolvedDistribution, ResolveResult  # pants: no-infer-dep  # ty: ignore

    path, python = after(arguments, "--lock"), after(arguments, "--python")
    lock = environment.parse_lock(Path(path).read_text(encoding="utf-8"))
    directory = Path(tempfile.mkdtemp(dir=os.environ.get("TMPDIR")))
    requirements = environment.export(lock, python, directory)
    home = environment.start_home().parent
    place = environment.place_for(lock, Path(path).stem, python, home)
    environment.make(requirements, python, place, path)
    wheel = environment.reference(requirements, python, place, path, directory)
    chroot = str(directory / "installed" / wheel.name)  # Pex reads the name of it
    fingerprint = install_wheel_chroot(str(wheel), chroot).fingerprint
    distribution = FingerprintedDistribution(Distribution.load(chroot), fingerprint)
    (target,) = targets.unique_targets()
    wanted = [Requirement.parse(environment.NAME)]
    return ResolveResult(
        dependency_configuration=DependencyConfiguration(),
        distributions=(ResolvedDistribution(target, distribution, wanted),),
        type=InstallableType.INSTALLED_WHEEL_CHROOT,
    )


def after(arguments: list[str], flag: str) -> str:
    """The value of a flag."""
    return arguments[arguments.index(flag) + 1]


def is_whole_lock(arguments: list[str]) -> bool:
    """Whether Pants wants an environment for its own use here: not what is packaged, nor a tool."""
    if not {"--lock", "--python", "--layout"} <= set(arguments):
        return False
    script = {"-c", "--script", "--console-script"}  # Pex looks for it in the wheels
    packed = after(arguments, "--layout") == "packed"
    return packed and script.isdisjoint(arguments) and os.path.isabs(after(arguments, "--python"))


def main(arguments: list[str]) -> int:
    """Exit code of Pex, or of pex3 where PEX_SCRIPT names it, as Pants does for its subcommands."""
    sys.path.insert(0, str(environment.start_home() / "pexlib"))
    settings = environment.settings()
    script = os.environ.pop("PEX_SCRIPT", "pex")
    clean = installers.environment(settings, os.environ)
    # It says on which interpreter Pex shall run itself: this one.
    clean.pop("PEX_PYTHON", None)
    os.environ.clear()
    os.environ.update(clean)
    patch_downloads(settings)
    sys.argv[1:] = arguments
    if script == "pex3":
        from pex.cli.pex import main as run  # pants: no-infer-dep  # ty: ignore
    else:
        from pex.bin.pex import main as run  # pants: no-infer-dep  # ty: ignore

        if is_whole_lock(arguments):
            patch_resolve(arguments)
    return run() or 0
