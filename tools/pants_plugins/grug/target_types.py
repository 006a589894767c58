"""`grug_variant`: one line in an experiment's BUILD file makes all of its targets."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import (
    InterpreterConstraintsField,
    PythonDependenciesField,
    PythonGeneratingSourcesBase,
    PythonResolveField,
    PythonSourceField,
    PythonSourceTarget,
    PythonTestsExtraEnvVarsField,
    PythonTestsTimeoutField,
    PythonTestTarget,
)
from pants.core.goals.package import OutputPathField
from pants.core.target_types import ResourceSourceField
from pants.engine.addresses import Address
from pants.engine.fs import (
    Digest,
    GlobMatchErrorBehavior,
    PathGlobs,
    Paths,
    RemovePrefix,
    Snapshot,
)
from pants.engine.rules import Get, MultiGet, Rule, collect_rules, rule
from pants.engine.target import (
    COMMON_TARGET_FIELDS,
    Dependencies,
    DictStringToStringField,
    FieldSet,
    GeneratedTargets,
    GenerateTargetsRequest,
    InferDependenciesRequest,
    InferredDependencies,
    InvalidFieldException,
    SourcesPaths,
    SourcesPathsRequest,
    StringField,
    StringSequenceField,
    Target,
    TargetGenerator,
)
from pants.engine.unions import UnionMembership, UnionRule

from grug.sources import is_source, is_support, is_test
from grug.workspace import GrugSubsystem

# The template's files: a directory with all three must pass the contract.
TEMPLATE_FILES = ("model.py", "train.py", "launch.py")
# The template's directories that a copy is not expected to edit.
PLUMBING = ("plumbing", "planning")


class VariantSourcesField(PythonGeneratingSourcesBase):
    default = ("**/*.py",)
    expected_file_extensions = (".py",)
    # A daemon looks once more for the files of a variant that was removed.
    default_glob_match_error_behavior = GlobMatchErrorBehavior.ignore
    help = "The variant's own Python files, tests among them."


class DataSourceField(ResourceSourceField):
    help = "A file that the variant's code may read."

    @classmethod
    def compute_value(cls, raw_value: Any, address: Address) -> Any:
        return raw_value  # a file that was found, so any name is right

    @property
    def globs(self) -> tuple[str, ...]:
        """The file's own name, whatever it holds: Pants would take `zz[1].json` for a pattern."""
        return (escape(str(self.value)),)


class VariantData(Target):
    alias = "variant_data"
    help = (
        "A file of a variant that is no Python. Made by `grug_variant`, never written in a BUILD."
    )
    core_fields = (*COMMON_TARGET_FIELDS, DataSourceField)


class AcceleratorsField(StringSequenceField):
    alias = "accelerators"
    default = ("cpu", "gpu", "tpu")
    help = (
        "What the variant is meant to run on: names from `[grug].accelerators`. Each gives a "
        "launch bundle, `#launch-NAME`."
    )


class TopologiesField(DictStringToStringField):
    alias = "topologies"
    help = (
        "The hardware that a bundle's launch files ask for, by accelerator: "
        "`{'gpu': '2x8xh100', 'tpu': 'v5e:4x4'}`. Without an entry: 1 machine, 8xh100, v6e:4x4."
    )


class BundleResolvesField(DictStringToStringField):
    alias = "bundle_resolves"
    help = (
        "The resolve that a bundle installs, by accelerator. Without an entry: the resolve named "
        "like the accelerator, and for the CPU the variant's own."
    )


class LaunchArgsField(StringSequenceField):
    alias = "launch_args"
    help = "Flags that every start of a bundle passes to the variant, before those given there."


class RecordedByField(StringSequenceField):
    alias = "recorded_by"
    default = ("plumbing/record.py",)
    help = (
        "Files that read all of the variant's sources and its lock at run time, for the run's "
        "record. What depends on one of these files gets the sources and the lock, too."
    )


class GrugVariant(TargetGenerator):
    alias = "grug_variant"
    help = (
        "An experiment in a directory of its own, which can reach only its own files and "
        "third-party requirements.\n\n"
        "Makes a `python_source` of each Python file and a `python_test` of each `test_*.py`. "
        "Every other file, except hidden ones, is data that any of them may read: it is in the "
        "sandboxes of tests and runs, and in launch bundles. If the "
        "directory holds model.py, train.py and launch.py, it also makes `#contract` (the tests "
        "that every variant must pass) and a launch bundle for each accelerator. `#plumbing` runs "
        "the tests of plumbing/ and planning/, in the template and where they differ from the "
        "template's. A speedrun of one file is a `grug_variant`, too."
    )
    generated_target_cls = PythonSourceTarget
    core_fields = (
        *COMMON_TARGET_FIELDS,
        VariantSourcesField,
        AcceleratorsField,
        BundleResolvesField,
        LaunchArgsField,
        RecordedByField,
        TopologiesField,
    )
    copied_fields = COMMON_TARGET_FIELDS
    moved_fields = (
        InterpreterConstraintsField,
        PythonDependenciesField,
        PythonResolveField,
        PythonTestsExtraEnvVarsField,
        PythonTestsTimeoutField,
    )


class ContractVariantField(StringField):
    alias = "variant"
    help = "The directory of the variant to test."


class ContractSuiteField(StringField):
    alias = "suite"
    help = "The directory of the tests: `test_*.py`."


class ContractDependenciesField(Dependencies):
    pass


class GrugContract(Target):
    alias = "grug_contract"
    help = "The contract tests of one variant. Made by `grug_variant`, not for BUILD files."
    core_fields = (
        *COMMON_TARGET_FIELDS,
        ContractDependenciesField,
        ContractSuiteField,
        ContractVariantField,
        InterpreterConstraintsField,
        PythonResolveField,
        PythonTestsExtraEnvVarsField,
        PythonTestsTimeoutField,
    )


class BundleAcceleratorField(StringField):
    alias = "accelerator"
    help = "The accelerator that the bundle runs on."


class BundleResolveField(StringField):
    alias = "bundle_resolve"
    help = "The resolve that it installs."


class BundleTopologyField(StringField):
    alias = "topology"
    default = ""
    help = "The hardware that its launch files ask for."


class BundleDependenciesField(Dependencies):
    pass


class LaunchBundle(Target):
    alias = "launch_bundle"
    help = (
        "A variant packed to run elsewhere; `./pants package` writes dist/bundles/NAME-ACCELERATOR/"
        " and its .tar.gz. Made by `grug_variant`, not for BUILD files."
    )
    core_fields = (
        *COMMON_TARGET_FIELDS,
        BundleAcceleratorField,
        BundleDependenciesField,
        BundleResolveField,
        BundleTopologyField,
        InterpreterConstraintsField,
        LaunchArgsField,
        OutputPathField,
    )


class GenerateFromGrugVariant(GenerateTargetsRequest):
    generate_from = GrugVariant


def escape(name: str) -> str:
    """A pattern that matches a file of just this name."""
    pattern = "".join(f"[{char}]" if char in "*?[" else char for char in name)
    return f"./{pattern}" if name.startswith("!") else pattern  # not what is left out


@dataclass(frozen=True)
class VariantDataRequest:
    """Asks for the files in a variant's directory that are sources and no Python files."""

    variant: str


@dataclass(frozen=True)
class VariantDataFiles:
    files: tuple[str, ...]  # paths within the variant's directory


@rule
async def find_data(request: VariantDataRequest) -> VariantDataFiles:
    paths = await Get(Paths, PathGlobs([f"{request.variant}/**"]))
    inside = len(request.variant) + 1
    files = (path[inside:] for path in paths.files)
    return VariantDataFiles(tuple(f for f in files if is_source(f) and not f.endswith(".py")))


@dataclass(frozen=True)
class ReadsDataFieldSet(FieldSet):
    required_fields = (PythonSourceField, PythonResolveField)

    source: PythonSourceField


class InferVariantData(InferDependenciesRequest):
    infer_from = ReadsDataFieldSet


@rule
async def infer_data(request: InferVariantData, grug: GrugSubsystem) -> InferredDependencies:
    """Any Python file of a variant may read any of its data, so it depends on all.

    Addresses, not specs in `dependencies`: a spec cannot name every file.
    """
    address = request.field_set.address
    variant = grug.variant_of(request.field_set.source.file_path)
    if variant is None or variant != address.spec_path or not address.is_file_target:
        return InferredDependencies(())
    data = await Get(VariantDataFiles, VariantDataRequest(variant))
    generator = address.maybe_convert_to_target_generator()
    return InferredDependencies(generator.create_file(file) for file in data.files)


@dataclass(frozen=True)
class PlumbingRequest:
    """Asks whether a variant's plumbing is the template's."""

    variant: str


@dataclass(frozen=True)
class Plumbing:
    is_the_templates: bool


@rule
async def compare_plumbing(request: PlumbingRequest, grug: GrugSubsystem) -> Plumbing:
    """Compares the digests of all files in the directories of PLUMBING."""
    directories = (request.variant, grug.template)
    snapshots = await MultiGet(
        Get(Snapshot, PathGlobs(f"{directory}/{part}/**" for part in PLUMBING))
        for directory in directories
    )
    digests = await MultiGet(
        Get(Digest, RemovePrefix(snapshot.digest, directory))
        for snapshot, directory in zip(snapshots, directories)
    )
    return Plumbing(digests[0] == digests[1])


async def _suites(address: Address, grug: GrugSubsystem) -> dict[str, str]:
    """The directory of each suite of tests from outside that the variant must pass, by name."""
    suites = {"contract": grug.contract}
    plumbing = await Get(Plumbing, PlumbingRequest(address.spec_path))
    if not plumbing.is_the_templates or address.spec_path == grug.template:
        suites["plumbing"] = grug.plumbing_contract
    return suites


@rule
async def generate_from_grug_variant(
    request: GenerateFromGrugVariant,
    grug: GrugSubsystem,
    python_setup: PythonSetup,
    union_membership: UnionMembership,
) -> GeneratedTargets:
    generator, address = request.generator, request.template_address
    _refuse_unknown_accelerators(generator, grug)
    paths = await Get(SourcesPaths, SourcesPathsRequest(generator[VariantSourcesField]))
    files = [posixpath.relpath(path, address.spec_path) for path in paths.files]
    sources = [file for file in files if not is_support(file)]
    own_specs = [address.create_file(file).spec for file in sources]
    template = dict(request.template)
    dependencies = tuple(template.pop("dependencies", None) or ())
    resolve = template.get("resolve") or python_setup.default_resolve
    lock = grug.lock_target.format(resolve=resolve)

    def make(target_type: type[Target], target_address: Any, **fields: Any) -> Target:
        aliases = {field.alias for field in target_type.class_field_types(union_membership)}
        inherited = {name: value for name, value in template.items() if name in aliases}
        return target_type({**inherited, **fields}, target_address, union_membership)

    data = await Get(VariantDataFiles, VariantDataRequest(address.spec_path))
    targets = [make(VariantData, address.create_file(f), source=f) for f in data.files]
    for file in files:
        spec, uses = address.create_file(file).spec, list(dependencies)
        if file in (generator[RecordedByField].value or ()):
            uses += [own for own in own_specs if own != spec] + [lock]
        target_type = PythonTestTarget if is_test(file) else PythonSourceTarget
        file_address = address.create_file(file)
        targets.append(make(target_type, file_address, source=file, dependencies=tuple(uses)))
    if all(file in files for file in TEMPLATE_FILES):
        targets += [
            make(
                GrugContract,
                address.create_generated(name),
                variant=address.spec_path,
                suite=suite,
                dependencies=(*own_specs, grug.contract_target),
            )
            for name, suite in (await _suites(address, grug)).items()
        ]
        targets += [
            make(
                LaunchBundle, address.create_generated(f"launch-{fields['accelerator']}"), **fields
            )
            for fields in _bundles(generator, address, resolve)
        ]
    return GeneratedTargets(generator, targets)


def _bundles(generator: Target, address: Address, resolve: str) -> Iterable[dict[str, Any]]:
    """The fields of a launch bundle for each accelerator that the variant names."""
    # The imports of launch.py bring the rest of what a bundle needs.
    entry = address.create_file("launch.py").spec
    resolves = {"cpu": resolve, **(generator[BundleResolvesField].value or {})}
    topologies = generator[TopologiesField].value or {}
    for name in generator[AcceleratorsField].value or ():
        yield {
            "accelerator": name,
            "bundle_resolve": resolves.get(name, name),
            "dependencies": (entry,),
            "launch_args": generator[LaunchArgsField].value,
            "topology": topologies.get(name, ""),
        }


def _refuse_unknown_accelerators(generator: Target, grug: GrugSubsystem) -> None:
    for name in generator[AcceleratorsField].value or ():
        if name not in grug.accelerators:
            raise InvalidFieldException(
                f"{generator.address}: `accelerators` names {name!r}; `[grug].accelerators` has "
                f"{', '.join(grug.accelerators)}"
            )


def target_types() -> Iterable[type[Target]]:
    return (GrugContract, GrugVariant, LaunchBundle, VariantData)


def rules() -> Iterable[Rule | UnionRule]:
    return (
        *collect_rules(),
        UnionRule(GenerateTargetsRequest, GenerateFromGrugVariant),
        UnionRule(InferDependenciesRequest, InferVariantData),
    )
