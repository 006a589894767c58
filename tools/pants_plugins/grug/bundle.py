"""`package` of a launch bundle: dist/bundles/NAME-ACCELERATOR/ and its .tar.gz."""

from __future__ import annotations

import json
import logging
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from pants.backend.python.dependency_inference.module_mapper import ThirdPartyPythonModuleMapping
from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import (
    InterpreterConstraintsField,
    PythonRequirementsField,
    PythonSourceField,
)
from pants.backend.python.util_rules.interpreter_constraints import InterpreterConstraints
from pants.backend.python.util_rules.pex_cli import PexCliProcess
from pants.backend.python.util_rules.pex_requirements import (
    ResolvePexConfig,
    ResolvePexConfigRequest,
)
from pants.base.build_environment import get_buildroot
from pants.core.goals.package import (
    BuiltPackage,
    BuiltPackageArtifact,
    OutputPathField,
    PackageFieldSet,
)
from pants.core.target_types import FileSourceField, ResourceSourceField
from pants.core.util_rules.source_files import SourceFiles, SourceFilesRequest
from pants.engine.addresses import Address, Addresses
from pants.engine.fs import Digest, MergeDigests, PathGlobs
from pants.engine.process import (
    FallibleProcessResult,
    ProcessResult,
)
from pants.engine.rules import Get, MultiGet, Rule, collect_rules, rule
from pants.engine.target import (
    Dependencies,
    DependenciesRequest,
    Target,
    TransitiveTargets,
    TransitiveTargetsRequest,
)
from pants.engine.unions import UnionRule
from pants.option.option_types import BoolOption, EnumOption, StrOption
from pants.option.subsystem import Subsystem
from pants.util.logging import LogLevel

from grug.refusals import Refused
from grug.target_types import (
    BundleAcceleratorField,
    BundleDependenciesField,
    BundleResolveField,
    BundleTopologyField,
    LaunchArgsField,
)
from grug.tool import TOOLS_RESOLVE, OwnTool, ToolResult
from grug.workspace import GrugSubsystem

logger = logging.getLogger(__name__)

# Fields of files that Python code reads.
DATA_FIELDS = (FileSourceField, ResourceSourceField)
# Third-party packages that tools/bundle/ and tools/corpus/ import.
REQUIREMENTS = ("packaging", "pyyaml")
CORPUS_REQUIREMENTS = ("numpy", "tensorstore", "tokenizers", "tyro")
# Hold out enough of the small text to evaluate on, and use only ids of the smallest preset.
SAMPLE = ("--heldout-fraction=0.2", "--vocab-size=1024")


class Machine(Enum):
    aarch64 = "aarch64"
    x86_64 = "x86_64"


class BundleSubsystem(Subsystem):
    options_scope = "bundle"
    help = "What `package` puts into launch bundles."

    wheels = BoolOption(
        default=False,
        help="Add the wheels, for workers that reach no package index: hundreds of megabytes for "
        "the CPU, gigabytes for a GPU.",
    )
    wheels_python = StrOption(
        default="",
        help="CPython of these workers, such as 3.13; by default the variant's oldest.",
    )
    wheels_machine = EnumOption(
        default=Machine.x86_64, help="Processor of these workers, as `uname -m` names it."
    )


class BundleError(Refused):
    """The bundle cannot be packed; the message is the tool's own."""


@dataclass(frozen=True)
class BundleFieldSet(PackageFieldSet):
    required_fields = (BundleAcceleratorField, BundleDependenciesField)

    accelerator: BundleAcceleratorField
    args: LaunchArgsField
    constraints: InterpreterConstraintsField
    output_path: OutputPathField
    resolve: BundleResolveField
    topology: BundleTopologyField


@dataclass(frozen=True)
class GitFactsRequest:
    paths: tuple[str, ...]


@dataclass(frozen=True)
class GitFacts:
    """The checkout's commit, and whether `paths` differ from it; empty outside of git."""

    flags: tuple[str, ...]


@rule
async def find_git_facts(request: GitFactsRequest) -> GitFacts:
    """Runs git once per session: no file that Pants watches changes with a new commit."""
    result = await Get(
        ToolResult,
        OwnTool(
            "common.checkout",
            (get_buildroot(), *request.paths),
            description="Ask git for the commit",
            asks_git=True,
            fresh=True,
        ),
    )
    facts = json.loads(result.stdout)
    if not facts:
        logger.warning("The bundle names no commit: %s", result.stderr.decode().strip())
        return GitFacts(())
    return GitFacts((f"--commit={facts['commit']}", f"--dirty={str(facts['dirty']).lower()}"))


@dataclass(frozen=True)
class SampleRequest:
    sources: SourceFiles


@dataclass(frozen=True)
class Sample:
    digest: Digest  # sample/


@rule(desc="Make the sample of text", level=LogLevel.DEBUG)
async def make_sample(request: SampleRequest) -> Sample:
    text = await Get(
        ToolResult,
        OwnTool(
            "bundle.sample",
            ("text.jsonl", *request.sources.files),
            description="Cut the sample's documents",
            input_digest=request.sources.snapshot.digest,
            output_files=("text.jsonl",),
        ),
    )
    store = await Get(
        ToolResult,
        OwnTool(
            "corpus",
            ("build", "text.jsonl", "--out=sample", *SAMPLE),
            description="Make the sample's token store",
            input_digest=text.output_digest,
            requirements=CORPUS_REQUIREMENTS,
            output_directories=("sample",),
        ),
    )
    return Sample(store.output_digest)


@dataclass(frozen=True)
class WheelsRequest:
    """`needs`: the flags of tools/bundle that choose the wheels; `files`: the files they name."""

    name: str
    resolve: str
    needs: tuple[str, ...]
    files: Digest


@dataclass(frozen=True)
class Wheels:
    digest: Digest  # wheels/


@rule(desc="Fetch the wheels of a launch bundle", level=LogLevel.DEBUG)
async def fetch_wheels(request: WheelsRequest) -> Wheels:
    """Pex fetches them from the indexes of the resolve, and again only when the choice changes."""
    result, config = await MultiGet(
        Get(
            FallibleProcessResult,
            OwnTool(
                "bundle",
                ("wheels", *request.needs, "chosen"),
                description=f"Choose the wheels of {request.name}",
                input_digest=request.files,
                requirements=REQUIREMENTS,
                output_directories=("chosen",),
            ),
        ),
        Get(ResolvePexConfig, ResolvePexConfigRequest(request.resolve)),
    )
    if result.exit_code:
        raise BundleError(f"{request.name}: {result.stderr.decode().strip()}")
    fetched = await Get(
        ProcessResult,
        PexCliProcess(
            subcommand=("download",),
            extra_args=(
                *config.pex_args(),
                "--requirement=chosen/requirements.txt",
                "--intransitive",
                "--no-build",
                "--complete-platform=chosen/platform.json",
                "--dest-dir=wheels",
            ),
            additional_input_digest=result.output_digest,
            description=f"Fetch the wheels of {request.name}",
            output_directories=("wheels",),
        ),
    )
    return Wheels(fetched.output_digest)


@dataclass(frozen=True)
class ImportsRequest:
    """Targets of Python files, and the requirements that they may need."""

    sources: tuple[Target, ...]
    requirements: tuple[Target, ...]


@dataclass(frozen=True)
class Imports:
    """Flags of tools/bundle that name each file's imports of requirements' modules."""

    flags: tuple[str, ...]


@rule
async def find_imports(request: ImportsRequest, mapping: ThirdPartyPythonModuleMapping) -> Imports:
    direct = await MultiGet(
        Get(Addresses, DependenciesRequest(target[Dependencies])) for target in request.sources
    )
    names = {
        target.address: [
            requirement.project_name for requirement in target[PythonRequirementsField].value
        ]
        for target in request.requirements
    }
    modules: dict[Address, list[str]] = {}
    for by_module in mapping.resolves_to_modules_to_providers.values():
        for module, providers in by_module.items():
            for provider in providers:
                modules.setdefault(provider.addr, []).append(module)
    flags = {
        f"--import={name}:{module}:{target[PythonSourceField].file_path}"
        for target, addresses in zip(request.sources, direct)
        for address in addresses
        for name in names.get(address, ())
        for module in modules.get(address, ())
    }
    return Imports(tuple(sorted(flags)))


@dataclass(frozen=True)
class NeedsRequest:
    bundle: BundleFieldSet


@dataclass(frozen=True)
class Needs:
    """The inputs of a bundle: its files, the locks, and flags that choose its wheels."""

    sources: SourceFiles  # Python
    data: SourceFiles  # what the sources read
    lock: str
    tools_lock: str
    flags: tuple[str, ...]  # for tools/bundle


@rule
async def find_needs(
    request: NeedsRequest,
    grug: GrugSubsystem,
    options: BundleSubsystem,
    python_setup: PythonSetup,
) -> Needs:
    bundle = request.bundle
    lock, tools_lock = (
        _lock(bundle.address, name, python_setup)
        for name in (bundle.resolve.value or "", TOOLS_RESOLVE)
    )
    constraints = InterpreterConstraints.create_from_compatibility_fields(
        [bundle.constraints], python_setup
    )
    transitive = await Get(TransitiveTargets, TransitiveTargetsRequest([bundle.address]))
    files = [t for t in transitive.dependencies if t.has_field(PythonSourceField)]
    requirements = [t for t in transitive.dependencies if t.has_field(PythonRequirementsField)]
    # A lock is a resource of who records it; a bundle has it anyway.
    read = [t for t in transitive.dependencies if t.address.spec_path != grug.requirements]
    data_fields = [t[field] for t in read for field in DATA_FIELDS if t.has_field(field)]
    sources, data, imports = await MultiGet(
        Get(SourceFiles, SourceFilesRequest(t[PythonSourceField] for t in files)),
        Get(SourceFiles, SourceFilesRequest(data_fields)),
        Get(Imports, ImportsRequest(tuple(files), tuple(requirements))),
    )
    names = {
        requirement.project_name
        for t in requirements
        for requirement in t[PythonRequirementsField].value
    }
    return Needs(
        sources,
        data,
        lock,
        tools_lock,
        (
            f"--accelerator={bundle.accelerator.value}",
            f"--lock={lock}",
            f"--tools-lock={tools_lock}",
            f"--python={next(iter(constraints))}",
            f"--wheels-python={options.wheels_python}",
            f"--wheels-machine={options.wheels_machine.value}",
            *(f"--requirement={name}" for name in sorted(names)),
            *imports.flags,
        ),
    )


def _lock(address: Address, resolve: str, python_setup: PythonSetup) -> str:
    if resolve not in python_setup.resolves:
        raise BundleError(
            f"{address}: [python].resolves in pants.toml has no {resolve!r}; it has "
            f"{', '.join(sorted(python_setup.resolves))}"
        )
    return python_setup.resolves[resolve]


@rule(desc="Pack a launch bundle", level=LogLevel.DEBUG)
async def package_bundle(
    field_set: BundleFieldSet, grug: GrugSubsystem, options: BundleSubsystem
) -> BuiltPackage:
    directory = field_set.address.spec_path
    needs = await Get(Needs, NeedsRequest(field_set))
    name = f"{posixpath.basename(directory)}-{field_set.accelerator.value}"
    output = field_set.output_path.value or f"bundles/{name}"
    sample, facts, locks, templates = await MultiGet(
        Get(Sample, SampleRequest(needs.sources)),
        Get(GitFacts, GitFactsRequest((directory, needs.lock))),
        Get(Digest, PathGlobs([needs.lock, needs.tools_lock])),
        Get(Digest, PathGlobs([f"{grug.tools}/bundle/**", f"!{grug.tools}/bundle/*.py"])),
    )
    sources, data = needs.sources.snapshot, needs.data.snapshot
    digests, wheels = (sources.digest, data.digest, sample.digest, locks, templates), ()
    if options.wheels:
        files = await Get(Digest, MergeDigests((locks, sources.digest)))
        resolve = field_set.resolve.value or ""
        fetched = await Get(Wheels, WheelsRequest(name, resolve, needs.flags, files))
        digests, wheels = (*digests, fetched.digest), ("--wheels=wheels",)
    result = await Get(
        FallibleProcessResult,
        OwnTool(
            "bundle",
            (
                "pack",
                f"--variant={posixpath.basename(directory)}",
                f"--entry={directory.replace('/', '.')}.launch",
                f"--out={output}",
                f"--topology={field_set.topology.value}",
                "--sample=sample",
                *needs.flags,
                *wheels,
                *facts.flags,
                *(f"--arg={argument}" for argument in field_set.args.value or ()),
                *sorted({*sources.files, *data.files}),
            ),
            description=f"Pack {name}",
            input_digest=await Get(Digest, MergeDigests(digests)),
            requirements=REQUIREMENTS,
            output_files=(f"{output}.tar.gz",),
            output_directories=(output,),
        ),
    )
    if result.exit_code:
        raise BundleError(f"{field_set.address}: {result.stderr.decode().strip()}")
    artifacts = tuple(BuiltPackageArtifact(path) for path in (output, f"{output}.tar.gz"))
    return BuiltPackage(result.output_digest, artifacts)


def rules() -> Iterable[Rule | UnionRule]:
    return (*collect_rules(), UnionRule(PackageFieldSet, BundleFieldSet))
