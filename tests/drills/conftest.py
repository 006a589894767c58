from pathlib import Path

import pytest

from tests.drills.drill import STEPS, Run
from tests.stores.conftest import moto, root, s3, s3_proxy
from tools.corpus.default import prepare_default

__all__ = ["moto", "root", "s3", "s3_proxy"]
FLAGS = ["--steps", str(STEPS)]


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A slice of the default corpus: Python source of the locked wheels."""
    cache = tmp_path_factory.mktemp("corpus")
    return str(prepare_default(cache, max_documents=80, vocab_size=512, heldout_fraction=0.1))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one start has compiled, the next one finds."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="session")
def whole(store: str, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that nothing strikes."""
    run = Run(store, str(tmp_path_factory.mktemp("whole")), FLAGS, cache)
    run.finish()
    return run


@pytest.fixture
def run(store: str, cache: Path, tmp_path: Path) -> Run:
    """The same run, to be struck."""
    return Run(store, str(tmp_path / "run"), FLAGS, cache)
