"""The commands with ./pants itself, on an index of wheels that the test makes."""

import shutil
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.tools.requirements.conftest import ANY, Lab
from tools.bundle.pack import JAX
from tools.requirements import mapping

ROOT = Path(__file__).parents[3]
MINOR = "{}.{}".format(*sys.version_info)
ACCELERATORS = ("cpu", "gpu", "tpu")
LINUX = f"cp{MINOR.replace('.', '')}-abi3-manylinux_2_17_x86_64"


def make_wheel(
    directory: Path, name: str, version: str, *, module: str = "", tag: str = ANY,
    extras: Sequence[str] = (), needs: Sequence[str] = (),
) -> None:  # fmt: skip
    stem = f"{name.replace('-', '_')}-{version}"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Provides-Extra: {extra}" for extra in extras]
    lines += [f"Requires-Dist: {need}" for need in needs]
    files = {
        f"{module or name}/__init__.py": "",
        f"{stem}.dist-info/METADATA": "\n".join(lines) + "\n",
        f"{stem}.dist-info/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
        f"{stem}.dist-info/RECORD": "",
    }
    with zipfile.ZipFile(directory / f"{stem}-{tag}.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(zipfile.ZipInfo(path), text)


@pytest.fixture
def wheels(tmp_path) -> Path:
    directory = tmp_path / "wheels"
    directory.mkdir()
    extras = [extra for name in JAX.values() if (extra := name[4:-1])]
    make_wheel(directory, "jax", "1.0", extras=extras)
    for name in ("middle", "pytest"):
        make_wheel(directory, name, "1.0")
    make_wheel(directory, "Big-Name", "1.0", module="big")
    make_wheel(directory, "Snake", "1.0", module="charmed", tag=LINUX, needs=["egg"])
    make_wheel(directory, "egg", "1.0")
    return directory


@pytest.fixture
def real(lab: Lab, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """The small workspace with ./pants, an index of its own and no locks."""
    low = int(MINOR.partition(".")[2])
    text = lab.read("pants.toml").replace("CPython>=3.12,<3.14", f"CPython>={MINOR},<3.{low + 1}")
    lab.write("pants.toml", text)
    # These outrank what this machine says of indexes.
    monkeypatch.setenv("PANTS_PYTHON_REPOS_INDEXES", "[]")
    monkeypatch.setenv("PANTS_PYTHON_REPOS_FIND_LINKS", f"['{wheels.as_uri()}']")
    shutil.copy(ROOT / "pants", lab.root)
    for path in (lab.root / "tools/locks").glob("*.lock"):
        path.unlink()
    for name in ("pants.txt", "pex.txt", "tools.lock"):
        shutil.copy(ROOT / "tools/locks" / name, lab.root / "tools/locks")
    shutil.copytree(ROOT / "tools/start", lab.root / "tools/start")
    lab.commit()
    return lab


def test_locks_from_an_index(real: Lab, capsys):
    """A package that goes to all of them, and one that cannot be had. ./pants starts once each."""
    assert real.run("add", "Snake") == 0, capsys.readouterr().err
    message = capsys.readouterr().out
    assert "tools/locks/gpu.lock: 5 added; 5 packages\n" in message
    assert "  asked for   + Snake\n" in message and "  added       egg 1.0\n" in message
    assert "Snake: import charmed\n" in message
    build = real.read("tools/locks/BUILD")
    for name in ACCELERATORS:
        lock = real.lock(name)
        assert (lock.version("snake"), lock.version("jax")) == ("1.0", "1.0")
        assert f">={MINOR}" in lock.interpreters[0]
        assert "\nSnake\n" in real.listing(name)
        assert mapping.read(build, "BUILD", f"{name}.in")["Snake"] == ["charmed"]

    before = real.state()
    assert real.run("add", "no-index-has-this", "--for", "tests") == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert message == "locks: cpu: no package index has no-index-has-this: correct its name"
    assert real.state() == before
