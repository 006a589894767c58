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
    PythonSourceTarget,
    PythonTestsExtraEnvVarsField,
    PythonTestsTimeoutField,
    PythonTestTarget,
)
from pants.core.goals.package import OutputPathField
from pants.engine.addresses import Address
from pants.engine.fs import Digest, GlobMatchErrorBehavior, PathGlobs, RemovePrefix, Snapshot
from pants.engine.rules import Get, MultiGet, Rule, collect_rules, rule
from pants.engine.target import (
    COMMON_TARGET_FIELDS,
    Dependencies,
    DictStringToStringField,
    GeneratedTargets,
    GenerateTargetsRequest,
    InvalidFieldException,
    SourcesPaths,
    SourcesPathsRequest,
    StringField,
    StringSequenceField,
    Target,
    TargetGenerator,
)
from pants.engine.unions import UnionMembership, UnionRule

from grug.workspace import GrugSubsystem

TEST_PREFIX, TEST_SUFFIX = "test_", "_test.py"
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
        "Makes a `python_source` of each file and a `python_test` of each `test_*.py`. If the "
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


def is_test(path: str) -> bool:
    name = posixpath.basename(path)
    return name.startswith(TEST_PREFIX) or name.endswith(TEST_SUFFIX)


def is_support(path: str) -> bool:
    """Whether only tests use the file: a test or a conftest.py."""
    return is_test(path) or posixpath.basename(path) == "conftest.py"


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

    targets = []
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
    return (GrugContract, GrugVariant, LaunchBundle)


def rules() -> Iterable[Rule | UnionRule]:
    return (*collect_rules(), UnionRule(GenerateTargetsRequest, GenerateFromGrugVariant))
