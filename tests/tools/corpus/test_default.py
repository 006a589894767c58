"""The default corpus: verified, cached, the same for every process."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from tools.common.errors import ToolError
from tools.corpus import default
from tools.corpus.progress import Progress
from tools.corpus.reading import read_manifest, verify

SLICE: dict[str, Any] = {"max_documents": 60, "vocab_size": 512, "heldout_fraction": 0.1}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def store(cache: Path) -> Path:
    return default.prepare_default(cache, progress=Progress(), **SLICE)


def test_a_slice_of_all_three_packages(store: Path) -> None:
    manifest = verify(store)
    assert [source["name"].split("==")[0] for source in manifest["sources"]] == [
        "jax",
        "numpy",
        "scipy",
    ]
    assert all(source["documents"] > 3 for source in manifest["sources"])
    assert manifest["splits"]["train"]["documents"] > 40
    assert 0 < manifest["splits"]["heldout"]["documents"] < 20
    assert manifest["skipped"] == {}


def test_the_corpus_is_what_the_wheels_hold() -> None:
    plan = default.plan_packages()
    names = {file.name for file in plan.files}
    assert "numpy/__init__.py" in names and "jax/_src/core.py" in names
    assert not names & {"numpy/__config__.py", "scipy/version.py", "jax/version.py"}
    assert list(map(lambda f: (f.source, f.name), plan.files)) == sorted(
        (f.source, f.name) for f in plan.files
    )
    assert len(names) > 1800


def test_no_file_is_a_compiled_program() -> None:
    """New wheels bring new files: those made of escaped bytes go into _LEFT_OUT."""
    texts = {file.name: file.path.read_bytes() for file in default.plan_packages().files}
    escaped = {name: 4 * text.count(b"\\x") / len(text) for name, text in texts.items()}
    assert [name for name, share in escaped.items() if share > 0.08] == []


def test_a_second_call_reads_nothing(
    cache: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_bytes", None)
    monkeypatch.setattr("tools.corpus.build.build", None)
    assert default.prepare_default(cache, **SLICE) == store


def test_finding_the_store_imports_nothing_heavy(cache: Path, store: Path, run) -> None:
    code = (
        "import sys; from pathlib import Path; from tools.corpus.default import prepare_default;"
        f"print(prepare_default(Path({str(cache)!r}), **{SLICE!r}));"
        "assert not {'numpy', 'tensorstore', 'tokenizers', 'rich'} & set(sys.modules)"
    )
    done = run("-c", code)
    assert done.stdout.strip() == str(store), done.stderr


def test_two_processes_at_once(tmp_path: Path, digests, store: Path) -> None:
    code = (
        "from pathlib import Path; from tools.corpus.default import prepare_default;"
        f"print(prepare_default(Path({str(tmp_path)!r}), **{SLICE!r}))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    processes = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    found = {process.communicate(timeout=60)[0].decode().strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    (path,) = found
    assert digests(Path(path)) == digests(store)
    assert os.listdir(tmp_path / "corpora") == [Path(path).name]


def test_the_cache_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("GRUG_CACHE", raising=False)
    assert default.default_cache_dir() == tmp_path / "xdg/grug"
    monkeypatch.setenv("GRUG_CACHE", str(tmp_path / "own"))
    assert default.default_cache_dir() == tmp_path / "own"


class Installed:
    """A distribution whose RECORD we write ourselves."""

    version = "1.0"

    def __init__(self, root: Path, record: str | None) -> None:
        self.root, self.record = root, record

    def read_text(self, name: str) -> str | None:
        return self.record if name == "RECORD" else None

    def locate_file(self, name: str) -> Path:
        return self.root / name


def install(monkeypatch: pytest.MonkeyPatch, root: Path, record: str | None) -> None:
    monkeypatch.setattr(metadata, "distribution", lambda name: Installed(root, record))
    monkeypatch.setattr(metadata, "version", lambda name: "1")


def test_a_modified_install_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy/a.py").write_text("changed = True\n")
    digest = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"
    install(monkeypatch, tmp_path, f"toy/a.py,sha256={digest},15\n../bin/x.py,sha256=x,1\n")
    with pytest.raises(ToolError, match=r"toy/a\.py: not as its package shipped it; reinstall"):
        default.prepare_default(tmp_path / "cache", packages=("toy",), progress=Progress())


@pytest.mark.parametrize(
    ("record", "message"),
    [(None, "without a RECORD"), ("toy/a.py,,15\n", "has no sha256 in RECORD")],
)
def test_an_install_without_digests_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: str | None, message: str
) -> None:
    install(monkeypatch, tmp_path, record)
    with pytest.raises(ToolError, match=message):
        default.prepare_default(tmp_path / "cache", packages=("toy",))


def test_a_missing_package_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="no-such-package: not installed"):
        default.prepare_default(tmp_path, packages=("no-such-package",))


def test_the_recipe_is_frozen(store: Path) -> None:
    """Caches are named by _RECIPE: raise it and renew this digest when the bytes may change."""
    manifest = read_manifest(store)
    versions = [source["name"] for source in manifest["sources"]]
    if versions != ["jax==0.12.0.1", "numpy==2.5.5", "scipy==1.18.1"]:
        pytest.skip("frozen for the versions of the lock at that time")
    assert default._RECIPE == 1
    assert manifest["digest"] == (
        "8658475a1ffa72985bf51379f5156de46255f76b3c4196768af17c0f282f3239"
    )
