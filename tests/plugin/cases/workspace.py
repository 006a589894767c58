"""What the cases share: a directory of files as targets, and a linter run over them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pants.core.goals.lint import LintResult, LintTargetsRequest
from pants.core.util_rules.partitions import _EmptyMetadata
from pants.engine.addresses import Address, Addresses
from pants.engine.target import Dependencies, DependenciesRequest, FieldSet, Target
from pants.testutil.rule_runner import RuleRunner


def write(runner: RuleRunner, directory: str, files: Mapping[str, str]) -> list[Target]:
    """Writes `files` into `directory` and returns the targets its BUILD file makes of them."""
    runner.write_files({f"{directory}/{name}": text for name, text in files.items()})
    addresses = (Address(directory, relative_file_path=f) for f in files if f != "BUILD")
    return [runner.get_target(address) for address in addresses]


def lint(
    runner: RuleRunner,
    request_type: type[LintTargetsRequest],
    field_set_type: type[FieldSet],
    targets: Iterable[Target],
) -> LintResult:
    field_sets = tuple(field_set_type.create(target) for target in targets)
    batch = request_type.Batch("", field_sets, partition_metadata=_EmptyMetadata())
    return runner.request(LintResult, [batch])


def dependencies(runner: RuleRunner, address: Address) -> list[str]:
    """Specs of a target's direct dependencies, as every goal resolves them."""
    target = runner.get_target(address)
    result = runner.request(Addresses, [DependenciesRequest(target[Dependencies])])
    return [dependency.spec for dependency in result]
