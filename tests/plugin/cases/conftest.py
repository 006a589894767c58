"""One throw-away workspace for all cases, each in a directory of its own: starting it is slow."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest
from pants.backend.python import register as python
from pants.backend.shell.target_types import ShellSourcesGeneratorTarget
from pants.core import register as core
from pants.core.goals.check import CheckResults
from pants.core.goals.fmt import FmtResult
from pants.core.goals.lint import LintResult
from pants.core.goals.package import BuiltPackage
from pants.core.goals.run import RunRequest
from pants.core.goals.test import TestResult
from pants.core.util_rules.partitions import Partitions
from pants.core.util_rules.source_files import SourceFiles, SourceFilesRequest
from pants.engine.addresses import Addresses
from pants.engine.rules import QueryRule
from pants.engine.target import (
    DependenciesRequest,
    TransitiveTargets,
    TransitiveTargetsRequest,
)
from pants.testutil.rule_runner import RuleRunner

from grug import register
from grug.bundle import BundleFieldSet
from grug.contract import ContractRequest
from grug.isolation import IsolationLintRequest
from grug.lifecycle import VariantTests, VariantTestsRequest
from grug.records import RecordsRequest
from grug.ruff import RuffFmtRequest, RuffLintRequest
from grug.serve import ServeFieldSet
from grug.shellcheck import ShellcheckRequest
from grug.site import SiteFieldSet
from grug.tool import IMPORTS, OwnTool, ToolResult
from grug.ty import TyRequest
from grug.zizmor import ZizmorRequest

RESOLVES = ("cpu", "docs", "tools")
OPTIONS = (
    "--backend-packages=pants.backend.python",
    "--python-enable-resolves",
    "--python-default-resolve=tools",
    "--python-resolves={" + ", ".join(f"'{r}': 'tools/locks/{r}.lock'" for r in RESOLVES) + "}",
    "--python-interpreter-constraints=['CPython>=3.12,<3.15']",
    "--python-interpreter-versions-universe=['3.9', '3.10', '3.11', '3.12', '3.13', '3.14']",
    "--python-infer-use-rust-parser=true",
    "--python-infer-string-imports",
    "--pytest-install-from-resolve=cpu",
    "--pytest-requirements=['pytest']",
    "--source-root-patterns=/",
)
COPIED = (
    *(f"tools/locks/{resolve}.lock" for resolve in RESOLVES),
    "tools/bundle/flags.json",
    "tools/bundle/templates/*",
    "experiments/grug/buckets.json",
    "tools/ruff.toml",
    "tools/ty.toml",
    *(f"tools/{name}/**/*.py" for name in sorted({*IMPORTS, *chain(*IMPORTS.values())})),
)
INHERITED = {
    "HOME",
    "PANTS_PEX_CLI_KNOWN_VERSIONS",
    "PANTS_PEX_CLI_URL_TEMPLATE",
    "PANTS_PEX_CLI_VERSION",
    "PANTS_PYTHON_BOOTSTRAP_SEARCH_PATH",
    "PATH",
    "PYENV_ROOT",
    "XDG_CACHE_HOME",
}


@pytest.fixture(scope="session")
def runner() -> RuleRunner:
    """Runs this repository's backend; its build root holds the tools' lock and configuration."""
    runner = RuleRunner(
        rules=[
            *core.rules(),
            *python.rules(),
            *register.rules(),
            QueryRule(Addresses, [DependenciesRequest]),
            QueryRule(BuiltPackage, [BundleFieldSet]),
            QueryRule(BuiltPackage, [SiteFieldSet]),
            QueryRule(CheckResults, [TyRequest]),
            QueryRule(FmtResult, [RuffFmtRequest.Batch]),
            QueryRule(LintResult, [IsolationLintRequest.Batch]),
            QueryRule(LintResult, [RecordsRequest.Batch]),
            QueryRule(LintResult, [RuffLintRequest.Batch]),
            QueryRule(LintResult, [ShellcheckRequest.Batch]),
            QueryRule(LintResult, [ZizmorRequest.Batch]),
            QueryRule(Partitions, [RecordsRequest.PartitionRequest]),
            QueryRule(Partitions, [ZizmorRequest.PartitionRequest]),
            QueryRule(RunRequest, [ServeFieldSet]),
            QueryRule(SourceFiles, [SourceFilesRequest]),
            QueryRule(TestResult, [ContractRequest.Batch]),
            QueryRule(ToolResult, [OwnTool]),
            QueryRule(TransitiveTargets, [TransitiveTargetsRequest]),
            QueryRule(VariantTests, [VariantTestsRequest]),
        ],
        target_types=[
            *core.target_types(),
            *python.target_types(),
            ShellSourcesGeneratorTarget,
            *register.target_types(),
        ],
        # As in pants.toml: else no name with a leading dot is looked at.
        bootstrap_args=["--pants-ignore=+['!/.github/']"],
    )
    runner.set_options(OPTIONS, env_inherit=INHERITED)
    copied = (path for pattern in COPIED for path in Path().glob(pattern))
    runner.write_files({str(path): path.read_text() for path in copied})
    runner.write_files({"tools/locks/BUILD": LOCKS, "tests/contract/BUILD": SUITE})
    return runner


LOCKS = """
resource(name="tools-lock", source="tools.lock")
resource(name="cpu-lock", source="cpu.lock")
python_requirement(name="jax", requirements=["jax"], resolve="cpu")
python_requirement(name="pytest", requirements=["pytest"], resolve="cpu")
"""
SUITE = "python_sources(name='suite', sources=['*.py'], resolve='cpu')"
