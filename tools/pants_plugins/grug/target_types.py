"""`grug_variant`: one line in an experiment's BUILD file makes all of its targets."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
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
from pants.engine.rules import Get, Rule, collect_rules, rule
from pants.engine.target import (
    COMMON_TARGET_FIELDS,
    Dependencies,
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
# What the template is made of: a directory with all three is held to the contract.
TEMPLATE_FILES = ("model.py", "train.py", "launch.py")


class VariantSourcesField(PythonGeneratingSourcesBase):
    default = ("**/*.py",)
    expected_file_extensions = (".py",)
    help = "The variant's own Python files, tests among them."


class AcceleratorsField(StringSequenceField):
    alias = "accelerators"
    default = ("cpu",)
    help = "What the variant is meant to run on; names from `[grug].accelerators`."


class RecordedByField(StringSequenceField):
    alias = "recorded_by"
    default = ("record.py",)
    help = (
        "Files that read all of the variant's sources and its lock when they run, because a run's "
        "record holds them: whoever uses one of these files has the others at hand."
    )


class GrugVariant(TargetGenerator):
    alias = "grug_variant"
    help = (
        "An experiment in a directory of its own, which can reach only its own files and "
        "third-party requirements.\n\n"
        "Makes a `python_source` of each file, a `python_test` of each `test_*.py`, and, where the "
        "directory holds model.py, train.py and launch.py, `#contract`: the tests that every "
        "variant must pass. A speedrun of one file is a `grug_variant` too."
    )
    generated_target_cls = PythonSourceTarget
    core_fields = (
        *COMMON_TARGET_FIELDS,
        VariantSourcesField,
        AcceleratorsField,
        RecordedByField,
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
    help = "The directory of the variant that is tested."


class ContractDependenciesField(Dependencies):
    pass


class GrugContract(Target):
    alias = "grug_contract"
    help = "The contract tests of one variant. Made by `grug_variant`, never written in a BUILD."
    core_fields = (
        *COMMON_TARGET_FIELDS,
        ContractDependenciesField,
        ContractVariantField,
        InterpreterConstraintsField,
        PythonResolveField,
        PythonTestsExtraEnvVarsField,
        PythonTestsTimeoutField,
    )


class GenerateFromGrugVariant(GenerateTargetsRequest):
    generate_from = GrugVariant


def is_test(path: str) -> bool:
    name = posixpath.basename(path)
    return name.startswith(TEST_PREFIX) or name.endswith(TEST_SUFFIX)


def is_support(path: str) -> bool:
    """Whether only tests use the file."""
    return is_test(path) or posixpath.basename(path) == "conftest.py"


@rule
async def generate_from_grug_variant(
    request: GenerateFromGrugVariant,
    grug: GrugSubsystem,
    python_setup: PythonSetup,
    union_membership: UnionMembership,
) -> GeneratedTargets:
    generator, address = request.generator, request.template_address
    for name in generator[AcceleratorsField].value or ():
        if name not in grug.accelerators:
            raise InvalidFieldException(
                f"{generator.address}: `accelerators` names {name!r}; `[grug].accelerators` has "
                f"{', '.join(grug.accelerators)}"
            )
    paths = await Get(SourcesPaths, SourcesPathsRequest(generator[VariantSourcesField]))
    files = [posixpath.relpath(path, address.spec_path) for path in paths.files]
    sources = [file for file in files if not is_support(file)]
    own = [address.create_file(file).spec for file in sources]
    template = dict(request.template)
    dependencies = tuple(template.pop("dependencies", None) or ())
    resolve = template.get("resolve") or python_setup.default_resolve
    lock = grug.lock_target.format(resolve=resolve)

    def make(target_type: type[Target], at: Any, **fields: Any) -> Target:
        known = {field.alias for field in target_type.class_field_types(union_membership)}
        moved = {name: value for name, value in template.items() if name in known}
        return target_type({**moved, **fields}, at, union_membership)

    targets = []
    for file in files:
        needs = list(dependencies)
        if file in (generator[RecordedByField].value or ()):
            needs += [spec for spec in own if spec != address.create_file(file).spec]
            needs.append(lock)
        target_type = PythonTestTarget if is_test(file) else PythonSourceTarget
        at = address.create_file(file)
        targets.append(make(target_type, at, source=file, dependencies=tuple(needs)))
    if all(file in files for file in TEMPLATE_FILES):
        targets.append(
            make(
                GrugContract,
                address.create_generated("contract"),
                variant=address.spec_path,
                dependencies=(*own, grug.contract_target),
            )
        )
    return GeneratedTargets(generator, targets)


def target_types() -> Iterable[type[Target]]:
    return (GrugContract, GrugVariant)


def rules() -> Iterable[Rule | UnionRule]:
    return (*collect_rules(), UnionRule(GenerateTargetsRequest, GenerateFromGrugVariant))
