"""One throw-away workspace for all cases, each in a directory of its own: starting it is slow."""

from __future__ import annotations

from pathlib import Path

import pytest
from pants.backend.python import target_types_rules
from pants.backend.python.dependency_inference import rules as inference
from pants.backend.python.target_types import (
    PythonRequirementTarget,
    PythonSourcesGeneratorTarget,
)
from pants.backend.python.util_rules import pex, pex_from_targets, python_sources
from pants.backend.shell.target_types import ShellSourcesGeneratorTarget
from pants.core import target_types as core_target_types
from pants.core.goals.check import CheckResults
from pants.core.goals.fmt import FmtResult
from pants.core.goals.lint import LintResult
from pants.core.util_rules import source_files
from pants.core.util_rules.source_files import SourceFiles, SourceFilesRequest
from pants.engine.rules import QueryRule
from pants.testutil.rule_runner import RuleRunner

from grug import register
from grug.ruff import RuffFmtRequest, RuffLintRequest
from grug.shellcheck import ShellcheckRequest
from grug.ty import TyRequest

OPTIONS = (
    "--backend-packages=pants.backend.python",
    "--python-enable-resolves",
    "--python-default-resolve=tools",
    "--python-resolves={'tools': 'tools/locks/tools.lock'}",
    "--python-interpreter-constraints=['CPython>=3.11,<3.14']",
    "--python-interpreter-versions-universe=['3.9', '3.10', '3.11', '3.12', '3.13']",
    "--python-infer-use-rust-parser=false",
    "--source-root-patterns=/",
)
COPIED = ("tools/locks/tools.lock", "tools/ruff.toml", "tools/ty.toml")
INHERITED = {
    "HOME",
    "PANTS_PEX_CLI_KNOWN_VERSIONS",
    "PANTS_PEX_CLI_URL_TEMPLATE",
    "PANTS_PEX_CLI_VERSION",
    "PATH",
    "PYENV_ROOT",
    "XDG_CACHE_HOME",
}


@pytest.fixture(scope="session")
def runner() -> RuleRunner:
    """Runs this repository's backend; its build root holds the tools' lock and configuration."""
    runner = RuleRunner(
        rules=[
            *core_target_types.rules(),
            *inference.rules(),
            *pex.rules(),
            *pex_from_targets.rules(),
            *python_sources.rules(),
            *source_files.rules(),
            *target_types_rules.rules(),
            *register.rules(),
            QueryRule(CheckResults, [TyRequest]),
            QueryRule(FmtResult, [RuffFmtRequest.Batch]),
            QueryRule(LintResult, [RuffLintRequest.Batch]),
            QueryRule(LintResult, [ShellcheckRequest.Batch]),
            QueryRule(SourceFiles, [SourceFilesRequest]),
        ],
        target_types=[
            PythonRequirementTarget,
            PythonSourcesGeneratorTarget,
            ShellSourcesGeneratorTarget,
        ],
    )
    runner.set_options(OPTIONS, env_inherit=INHERITED)
    runner.write_files({path: Path(path).read_text() for path in COPIED})
    return runner
