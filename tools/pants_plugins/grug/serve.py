"""`run` of the site: serves what `package` writes, and the next one after each change."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.util_rules.interpreter_constraints import InterpreterConstraints
from pants.backend.python.util_rules.pex_environment import PythonExecutable
from pants.core.goals.package import BuiltPackage
from pants.core.goals.run import RestartableField, RunFieldSet, RunInSandboxBehavior, RunRequest
from pants.engine.addresses import UnparsedAddressInputs
from pants.engine.fs import Digest, MergeDigests, PathGlobs
from pants.engine.rules import Get, MultiGet, Rule, collect_rules, rule
from pants.engine.target import COMMON_TARGET_FIELDS, StringField, Target, Targets
from pants.engine.unions import UnionRule

from grug.site import SiteFieldSet
from grug.workspace import GrugSubsystem


class ServedSiteField(StringField):
    alias = "site"
    required = True
    help = "The grug_site to serve."


class ServeRestartableField(RestartableField):
    default = True


class GrugSiteServer(Target):
    alias = "grug_site_server"
    help = (
        "Serves a grug_site on this machine, `./pants run`: builds it again after each change of "
        "its files, and open pages reload."
    )
    core_fields = (*COMMON_TARGET_FIELDS, ServedSiteField, ServeRestartableField)


@dataclass(frozen=True)
class ServeFieldSet(RunFieldSet):
    required_fields = (ServedSiteField,)
    run_in_sandbox_behavior = RunInSandboxBehavior.NOT_SUPPORTED

    site: ServedSiteField


@rule
async def serve_site(
    field_set: ServeFieldSet, grug: GrugSubsystem, python_setup: PythonSetup
) -> RunRequest:
    served = UnparsedAddressInputs(
        (field_set.site.value or "",),
        owning_address=field_set.address,
        description_of_origin=f"the `site` of {field_set.address}",
    )
    (site,) = await Get(Targets, UnparsedAddressInputs, served)
    script = f"{grug.tools}/site/serve.py"
    package, code, python = await MultiGet(
        Get(BuiltPackage, SiteFieldSet, SiteFieldSet.create(site)),
        Get(Digest, PathGlobs([script])),
        Get(
            PythonExecutable,
            InterpreterConstraints,
            InterpreterConstraints(python_setup.interpreter_constraints),
        ),
    )
    directory = package.artifacts[0].relpath
    return RunRequest(
        digest=await Get(Digest, MergeDigests((package.digest, code))),
        args=(python.path, "-B", f"{{chroot}}/{script}", f"{{chroot}}/{directory}"),
    )


def target_types() -> Iterable[type[Target]]:
    return (GrugSiteServer,)


def rules() -> Iterable[Rule | UnionRule]:
    return (*collect_rules(), *ServeFieldSet.rules())
