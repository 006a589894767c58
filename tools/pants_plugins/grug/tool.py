"""Command-line tools: from the wheels of one resolve, and the workspace's own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import ConsoleScript
from pants.backend.python.util_rules.interpreter_constraints import InterpreterConstraints
from pants.backend.python.util_rules.pex import PexRequest, PexRequirements
from pants.backend.python.util_rules.pex_environment import PythonExecutable
from pants.backend.python.util_rules.pex_requirements import Resolve
from pants.engine.fs import EMPTY_DIGEST, Digest, MergeDigests, PathGlobs
from pants.engine.process import Process
from pants.engine.rules import Get, MultiGet, Rule, collect_rules, rule
from pants.util.logging import LogLevel

from grug.workspace import GrugSubsystem

TOOLS_RESOLVE = "tools"


def tool_pex(distribution: str, script: str) -> PexRequest:
    """The Pex that runs `script`, installed by `distribution` at the version the lock names."""
    return PexRequest(
        output_filename=f"{script}.pex",
        internal_only=True,
        requirements=PexRequirements(
            [distribution],
            from_superset=Resolve(TOOLS_RESOLVE, use_entire_lockfile=False),
            description_of_origin=f"the tool {script}",
        ),
        main=ConsoleScript(script),
    )


@dataclass(frozen=True)
class OwnTool:
    """One run of a tool of the workspace that needs nothing but Python: `tools/NAME/`."""

    name: str
    argv: tuple[str, ...]
    description: str
    input_digest: Digest = EMPTY_DIGEST
    uses: tuple[str, ...] = ()  # other tools that it imports


@rule
async def run_own_tool(request: OwnTool, grug: GrugSubsystem, python_setup: PythonSetup) -> Process:
    """Straight from its sources: no Pex to build, and a start takes hundredths of a second."""
    constraints = InterpreterConstraints(python_setup.interpreter_constraints)
    names = (request.name, *request.uses)
    python, sources = await MultiGet(
        Get(PythonExecutable, InterpreterConstraints, constraints),
        Get(Digest, PathGlobs([f"{grug.tools}/{name}/*.py" for name in names])),
    )
    module = f"{grug.tools.replace('/', '.')}.{request.name}"
    return Process(
        (python.path, "-B", "-m", module, *request.argv),
        input_digest=await Get(Digest, MergeDigests((sources, request.input_digest))),
        description=request.description,
        level=LogLevel.DEBUG,
    )


def rules() -> Iterable[Rule]:
    return collect_rules()
