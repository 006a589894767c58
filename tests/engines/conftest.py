"""A corpus, a cache of what was compiled, and runs that end with their test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engines.cluster import Worker, cache_in, kill, train
from tools.corpus.default import prepare_default


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> str:
    """A slice of the default corpus: Python source of the locked wheels."""
    sizes: dict[str, Any] = {"max_documents": 60, "vocab_size": 320, "heldout_fraction": 0.1}
    return str(prepare_default(tmp_path_factory.mktemp("corpus"), **sizes))


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> dict[str, str]:
    return cache_in(tmp_path_factory.mktemp("compiled"))


@pytest.fixture
def launch(store, cache, tmp_path) -> Iterator[Callable[..., list[Worker]]]:
    """`launch(variant, run_dir, flags, processes=, devices=)`: workers, ended with the test."""
    started = []

    def start_all(variant: str, run_dir: Path, flags: list[str], **options) -> list[Worker]:
        logs = tmp_path / f"logs-{len(started)}"
        started.append(train(variant, store, run_dir, flags, logs, **cache, **options))
        return started[-1]

    yield start_all
    for workers in started:
        kill(workers)
