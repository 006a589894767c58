"""Runs command-line tools: those from a resolve's wheels, and the workspace's own."""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass

from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import ConsoleScript
from pants.backend.python.util_rules.interpreter_constraints import InterpreterConstraints
from pants.backend.python.util_rules.pex import (
    PexRequest,
    PexRequirements,
    VenvPex,
    VenvPexProcess,
)
from pants.backend.python.util_rules.pex_environment import PythonExecutable
from pants.backend.python.util_rules.pex_requirements import Resolve
from pants.core.util_rules.system_binaries import GitBinary
from pants.engine.env_vars import CompleteEnvironmentVars
from pants.engine.fs import EMPTY_DIGEST, Digest, MergeDigests, PathGlobs
from pants.engine.process import FallibleProcessResult, Process, ProcessCacheScope
from pants.engine.rules import Get, Rule, collect_rules, rule
from pants.util.frozendict import FrozenDict
from pants.util.logging import LogLevel

from grug.refusals import Refused
from grug.workspace import GrugSubsystem

TOOLS_RESOLVE = "tools"
# The resolve from which the workspace's own tools get their packages.
RUNS_IN = "cpu"
# Third-party packages that tools/runs/ uses for statistics.
STATISTICS = ("numpy", "scipy")
# The other packages that each package of tools imports, directly or indirectly.
IMPORTS = {
    "bundle": ("common", "start"),
    "common": (),
    "corpus": ("common",),
    "diff": ("common", "ledger"),
    "isolation": ("common",),
    "ledger": ("common",),
    "runs": ("common", "ledger"),
    "site": ("common", "ledger", "runs"),
    "speedrun": ("common", "ledger", "runs", "site"),
    "variants": ("common", "diff", "ledger"),
}


def tool_pex(
    distribution: str, script: str, *more: str, resolve: str = TOOLS_RESOLVE
) -> PexRequest:
    """The Pex that runs `script` of `distribution`, at the version in the resolve's lock.

    `more` are distributions that it loads by itself, such as plugins.
    """
    return PexRequest(
        output_filename=f"{script}.pex",
        internal_only=True,
        requirements=PexRequirements(
            [distribution, *more],
            from_superset=Resolve(resolve, use_entire_lockfile=False),
            description_of_origin=f"the tool {script}",
        ),
        main=ConsoleScript(script),
    )


@dataclass(frozen=True)
class OwnTool:
    """One run of a tool of the workspace, `python -m MODULE ARGV`, over `input_digest`."""

    module: str  # below the tools' directory: "variants", "diff.sizes"
    argv: tuple[str, ...]
    description: str
    input_digest: Digest = EMPTY_DIGEST
    requirements: tuple[str, ...] = ()  # distributions from RUNS_IN's lock; fastest without any
    whole_resolve: str = ""  # a resolve whose packages are all installed, instead of requirements
    cache: str = ""  # name of a directory that is kept between runs, and never changes an output
    output_files: tuple[str, ...] = ()
    output_directories: tuple[str, ...] = ()
    asks_git: bool = False  # about the workspace, which is no input
    fresh: bool = False  # whether to run it in each session, because it reads more than its input

    @property
    def caches(self) -> FrozenDict[str, str]:
        return FrozenDict({f"grug_{self.cache}": self.cache} if self.cache else {})

    @property
    def cache_scope(self) -> ProcessCacheScope:
        scope = ProcessCacheScope
        return scope.PER_SESSION if self.fresh else scope.SUCCESSFUL


async def _with_packages(
    request: OwnTool,
    argv: tuple[str, ...],
    digest: Digest,
    constraints: InterpreterConstraints,
    env: FrozenDict[str, str],
) -> Process:
    """The tool's process, in an environment with the packages that it needs."""
    use_entire_lockfile = bool(request.whole_resolve)
    pex = await Get(
        VenvPex,
        PexRequest(
            output_filename=f"{request.whole_resolve or '-'.join(request.requirements)}.pex",
            internal_only=True,
            requirements=PexRequirements(
                request.requirements,
                from_superset=Resolve(
                    request.whole_resolve or RUNS_IN, use_entire_lockfile=use_entire_lockfile
                ),
                description_of_origin=f"the tool {request.module}",
            ),
            interpreter_constraints=constraints,
        ),
    )
    process = await Get(
        Process,
        VenvPexProcess(
            pex,
            argv=argv,
            input_digest=digest,
            extra_env={"PEX_EXTRA_SYS_PATH": ".", **env},
            description=request.description,
            output_files=request.output_files,
            output_directories=request.output_directories,
            cache_scope=request.cache_scope,
            level=LogLevel.DEBUG,
        ),
    )
    # VenvPexProcess takes no cache.
    return dataclasses.replace(
        process,
        append_only_caches=FrozenDict({**process.append_only_caches, **request.caches}),
    )


@dataclass(frozen=True)
class ToolResult:
    """What a tool printed and wrote, if it succeeded."""

    stdout: bytes
    stderr: bytes
    output_digest: Digest


@rule
async def finish(request: OwnTool) -> ToolResult:
    """Raises Refused with the tool's own lines, RuntimeError for a tool that breaks."""
    process = await Get(Process, OwnTool, request)
    result = await Get(FallibleProcessResult, Process, process)
    if result.exit_code:
        said = result.stderr.decode(errors="replace").strip()
        if result.exit_code == 1 and said and "Traceback (most recent call last)" not in said:
            raise Refused(said)
        raise RuntimeError(f"tools/{request.module} ended with code {result.exit_code}:\n{said}")
    return ToolResult(result.stdout, result.stderr, result.output_digest)


@dataclass(frozen=True)
class GitEnvironmentRequest:
    pass


@dataclass(frozen=True)
class GitEnvironment:
    """What git needs in a sandbox to answer as it does outside: the user's settings, too.

    Without HOME it does not find safe.directory, and refuses a workspace that another user owns.
    """

    variables: FrozenDict[str, str]


@rule
async def find_git_environment(
    _: GitEnvironmentRequest,
    git: GitBinary,
    environment: CompleteEnvironmentVars,
    grug: GrugSubsystem,
) -> GitEnvironment:
    # tools/common/git.py drops what names another repository, as a hook's GIT_DIR does.
    variables = {
        name: value
        for name, value in environment.items()
        if name in ("HOME", "XDG_CONFIG_HOME") or name.startswith("GIT_")
    }
    path = (posixpath.dirname(git.path), "/usr/bin", "/bin")
    if grug.base_branch:
        variables["PANTS_GRUG_BASE_BRANCH"] = grug.base_branch
    return GitEnvironment(FrozenDict({**variables, "PATH": ":".join(path)}))


@rule
async def run_own_tool(request: OwnTool, grug: GrugSubsystem, python_setup: PythonSetup) -> Process:
    """Runs a tool directly from its sources: without a Pex it starts in hundredths of a second."""
    package = request.module.split(".")[0]
    names = (package, *IMPORTS[package])
    sources = await Get(Digest, PathGlobs([f"{grug.tools}/{name}/**/*.py" for name in names]))
    digest = await Get(Digest, MergeDigests((sources, request.input_digest)))
    env = FrozenDict()
    if request.asks_git:
        env = (await Get(GitEnvironment, GitEnvironmentRequest())).variables
    argv = ("-m", f"{grug.tools.replace('/', '.')}.{request.module}", *request.argv)
    constraints = InterpreterConstraints(python_setup.interpreter_constraints)
    if request.requirements or request.whole_resolve:
        return await _with_packages(request, argv, digest, constraints, env)
    python = await Get(PythonExecutable, InterpreterConstraints, constraints)
    return Process(
        (python.path, "-B", *argv),
        input_digest=digest,
        description=request.description,
        output_files=request.output_files,
        output_directories=request.output_directories,
        append_only_caches=request.caches,
        env=env,
        cache_scope=request.cache_scope,
        level=LogLevel.DEBUG,
    )


def rules() -> Iterable[Rule]:
    return collect_rules()
