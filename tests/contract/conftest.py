"""What the checks share: the variant, a small corpus, a few steps and three short runs of it.

GRUG_VARIANT names the variant's package; every test carries the name of its check, by which a
variant may exempt itself (tools/isolation/exemptions.py).
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import pytest

from tests.contract.harness import (
    Steps,
    Variant,
    make_mesh,
    small_run,
    take_steps,
    under_test,
)
from tools.corpus.default import prepare_default
from tools.isolation.exemptions import Exemption, Problem, find

VARIANT = pytest.StashKey[Variant]()
EXEMPTIONS = pytest.StashKey[list[Exemption]]()

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_disable_most_optimizations", True)  # compiling is most of the time


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "contract(check): the check, by name, that the test is of")
    try:
        variant = under_test()
    except LookupError as error:
        raise pytest.UsageError(str(error)) from None
    exemptions, problems = read_exemptions(variant)
    if problems:
        raise pytest.UsageError(*(f"{p.path}:{p.line}: {p.message}" for p in problems))
    config.stash[VARIANT], config.stash[EXEMPTIONS] = variant, exemptions


def read_exemptions(variant: Variant) -> tuple[list[Exemption], list[Problem]]:
    found = [find(str(path), path.read_text("utf-8")) for path in variant.sources()]
    return [e for pair in found for e in pair[0]], [p for pair in found for p in pair[1]]


def pytest_report_header(config: pytest.Config) -> str:
    exempt = ", ".join(sorted({e.check for e in config.stash[EXEMPTIONS]})) or "nothing"
    return f"contract: {config.stash[VARIANT].package}, exempt from {exempt}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips what the variant is exempt from. Whether its date has passed is the lint's to say:
    the result of a test, which is cached, must not depend on the day."""
    exemptions = {e.check: e for e in reversed(config.stash[EXEMPTIONS])}
    for item in items:
        marker = item.get_closest_marker("contract")
        exemption = exemptions.get(marker.args[0]) if marker else None
        if exemption:
            reason = f"exempt until {exemption.until}: {exemption.reason}"
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def variant(request: pytest.FixtureRequest) -> Variant:
    return request.config.stash[VARIANT]


@pytest.fixture(scope="session", autouse=True)
def compile_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What was traced anew and came out the same is not compiled again."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A slice of the default corpus: Python source of the locked wheels."""
    cache = tmp_path_factory.mktemp("corpus")
    sizes: dict[str, Any] = {"max_documents": 60, "vocab_size": 320, "heldout_fraction": 0.1}
    return str(prepare_default(cache, **sizes))


@pytest.fixture
def one_device(variant: Variant):
    """The mesh of the tests that ask for it."""
    with jax.set_mesh(make_mesh(variant)):
        yield


def run(variant: Variant, cfg: Any) -> Path:
    """Trains on one device; gives the run's directory."""
    with jax.set_mesh(make_mesh(variant)):
        variant.train.train(cfg)
    return Path(cfg.run_dir)


@pytest.fixture(scope="session")
def run_config(variant: Variant, store: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Config of `whole`."""
    return small_run(variant, store, tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="session")
def whole(variant: Variant, run_config: Any) -> Path:
    """Directory of a run with an EMA that nothing interrupted."""
    return run(variant, run_config)


@pytest.fixture(scope="session")
def without_ema(variant: Variant, run_config: Any, tmp_path_factory) -> Path:
    """Directory of the same run without an EMA."""
    run_dir = str(tmp_path_factory.mktemp("without_ema"))
    return run(variant, dataclasses.replace(run_config, run_dir=run_dir, ema_decay=0.0))


@pytest.fixture(scope="session")
def steps(variant: Variant, run_config: Any) -> Steps:
    """The first steps of `whole`, by hand."""
    with jax.set_mesh(make_mesh(variant)):
        return take_steps(variant, run_config, 3)
