"""The default corpus: the Python source of the installed jax, numpy and scipy.

The lock pins these wheels by hash, so the corpus is the same wherever the lock is installed, and
nothing is downloaded for it.
"""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import json
import os
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from tools.common.errors import ToolError
from tools.common.paths import local_path
from tools.corpus.inputs import InputFile, Plan

if TYPE_CHECKING:
    from tools.corpus.progress import Progress

PACKAGES = ("jax", "numpy", "scipy")
VOCAB_SIZE = 4096
# More than the usual hundredth, which would be 19 documents of so small a corpus: too few to
# represent it.
HELDOUT_FRACTION = 0.05
# Raise it when the same wheels and settings give other bytes than before, so that stores cached by
# an earlier version are not used.
_RECIPE = 1

ELSEWHERE = "name another directory in GRUG_CACHE, or by --cache-dir of corpus default"

# Files that a package's build writes, which differ between platforms or builds of one release.
_GENERATED = ("__config__.py", "version.py", "_version.py", "_distributor_init.py")
# Compiled programs as escaped byte strings: noise, not text.
_LEFT_OUT = ("jax/_src/internal_test_util/export_back_compat_test_data/",)


def prepare_default(
    cache_dir: Path | None = None,
    *,
    packages: tuple[str, ...] = PACKAGES,
    max_documents: int | None = None,
    vocab_size: int = VOCAB_SIZE,
    heldout_fraction: float = HELDOUT_FRACTION,
    progress: Progress | None = None,
) -> Path:
    """The default corpus as a token store, built on the first call and found on later ones.

    It lies in `<cache_dir>/corpora/<digest>`; `cache_dir` is by default `$GRUG_CACHE`, else
    `$XDG_CACHE_HOME/grug`, else `~/.cache/grug`. `max_documents` takes that many documents,
    spread over the packages, for tests. Safe to call from several processes at once.

    Raises:
        ToolError: a package is missing, its installed files are not those of its wheel, or the
            store cannot be written.
    """
    plan, store = _planned(cache_dir, packages, max_documents, vocab_size, heldout_fraction)
    if (store / "manifest.json").exists():
        return store

    from tools.corpus.build import Settings, build
    from tools.corpus.progress import terminal_progress

    settings = Settings(vocab_size=vocab_size, heldout_fraction=heldout_fraction)
    progress = progress or terminal_progress()
    build(plan, store, settings, wait=True, elsewhere=ELSEWHERE, progress=progress)
    return store


def is_prepared(cache_dir: Path | None = None) -> bool:
    """Whether `prepare_default` would find the default corpus, and not build it.

    Raises:
        ToolError: as for `prepare_default`.
    """
    _, store = _planned(cache_dir, PACKAGES, None, VOCAB_SIZE, HELDOUT_FRACTION)
    return (store / "manifest.json").exists()


def _planned(
    cache_dir: Path | None,
    packages: tuple[str, ...],
    max_documents: int | None,
    vocab_size: int,
    heldout_fraction: float,
) -> tuple[Plan, Path]:
    """(what a default corpus is made of, the path of its store)."""
    plan = plan_packages(packages, max_documents)
    key = _key(plan, vocab_size, heldout_fraction)
    return plan, (cache_dir or default_cache_dir()) / "corpora" / key


def default_cache_dir() -> Path:
    """The directory of prepared corpora, from the environment.

    Raises:
        ToolError: the environment names a URL.
    """
    if cache := os.environ.get("GRUG_CACHE"):
        try:
            return local_path(cache)
        except argparse.ArgumentTypeError as error:
            raise ToolError(f"GRUG_CACHE={error}") from None
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "grug"


def plan_packages(packages: tuple[str, ...] = PACKAGES, max_documents: int | None = None) -> Plan:
    """The .py files of installed packages with the digests of their wheels; reads no file.

    Raises:
        ToolError: a package is missing, or was not installed from a wheel.
    """
    sources: list[str] = []
    files: list[InputFile] = []
    for index, package in enumerate(packages):
        try:
            distribution = metadata.distribution(package)
        except metadata.PackageNotFoundError:
            raise ToolError(
                f"{package}: not installed, but the default corpus is made of it; run in an "
                "environment made from the lock"
            ) from None
        files += _package_files(index, package, distribution)
        sources.append(f"{package}=={distribution.version}")
    if max_documents is not None:
        # By a part of the digest that doesn't decide a document's split.
        chosen = sorted(files, key=lambda file: file.sha256[16:])[:max_documents]
        files = [file for file in files if file in set(chosen)]
    return Plan(tuple(sources), tuple(files), verified=True)


def _package_files(
    source: int, package: str, distribution: metadata.Distribution
) -> list[InputFile]:
    record = distribution.read_text("RECORD")
    if not record:
        raise ToolError(f"{package}: installed without a RECORD; install it from its wheel")
    files = []
    for name, digest, size in csv.reader(record.splitlines()):
        if not name.endswith(".py") or name.startswith(("../", "/")) or ".dist-info/" in name:
            continue
        if name.rpartition("/")[2] in _GENERATED or name.startswith(_LEFT_OUT) or size == "0":
            continue
        if not digest.startswith("sha256="):
            raise ToolError(f"{package}: {name} has no sha256 in RECORD; install its wheel")
        encoded = digest.removeprefix("sha256=")
        sha256 = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).hex()
        path = Path(str(distribution.locate_file(name)))
        files.append(InputFile(source, name, path, "text", int(size), 0, sha256))
    return sorted(files, key=lambda file: file.name)


def _key(plan: Plan, vocab_size: int, heldout_fraction: float) -> str:
    """A store's name: a digest of all that determines its bytes, even the tokenizers library."""
    content = {
        "recipe": _RECIPE,
        "sources": plan.source_digests(),
        "vocab_size": vocab_size,
        "heldout_fraction": heldout_fraction,
        "tokenizers": metadata.version("tokenizers"),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
