"""Small corpora, one tokenizer, and a way to run the tool in a process of its own."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.corpus.tokenizer import train_tokenizer

WORDS = "the lattice of tokens is held in shards read by offset\n    return x_1 + 20 # é 語 🎉\n"


@pytest.fixture(scope="session")
def words() -> str:
    return WORDS * 40


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory, words: str) -> Path:
    """A byte-level tokenizer of 300 entries."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(train_tokenizer([words], 300), encoding="utf-8")
    return path


@pytest.fixture
def run() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python with the given arguments and this process's import path."""

    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            env=os.environ | paths | environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


@pytest.fixture
def digests() -> Callable[[Path], dict[str, str]]:
    """The sha256 of every file of a store, by its relative name."""

    def digests(store: Path) -> dict[str, str]:
        return {
            path.relative_to(store).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(store.rglob("*"))
            if path.is_file()
        }

    return digests
