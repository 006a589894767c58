"""Locations in the workspace, and the variant to which a path belongs."""

from __future__ import annotations

import posixpath

from pants.engine.addresses import Address
from pants.option.option_types import StrListOption, StrOption
from pants.option.subsystem import Subsystem


class GrugSubsystem(Subsystem):
    options_scope = "grug"
    help = "Locations of the workspace's variants, tools and requirements."

    roots = StrListOption(
        default=["experiments/grug", "experiments/speedrun"],
        help="Directories whose subdirectories are variants.",
    )
    template = StrOption(
        default="experiments/grug/base",
        help="The variant from which all others are copied, with its plumbing.",
    )
    requirements = StrOption(
        default="tools/locks",
        help="The directory of the third-party requirements and their locks.",
    )
    tools = StrOption(default="tools", help="The directory of the tools, which use only tools.")
    tests = StrOption(
        default="tests", help="The directory of the tests, which may depend on variants."
    )
    launcher = StrOption(
        default="tools/launch:launch",
        help="The target that runs any variant; it depends on all variants with a `launch.py`.",
    )
    contract = StrOption(
        default="tests/contract",
        help="The directory of the tests that every variant must pass: `test_*.py`.",
    )
    plumbing_contract = StrOption(
        default="tests/contract/plumbing",
        help="The directory of the tests of plumbing, the template's or a variant's own.",
    )
    contract_target = StrOption(
        default="tests/contract:suite", help="The target that owns the files those tests need."
    )
    lock_target = StrOption(
        default="tools/locks:{resolve}-lock",
        help="The target that owns a resolve's lock as a file; a run's record holds its digest.",
    )
    ledger = StrOption(
        default="docs/reports/grug-archive.md",
        help=(
            "The ledger's first page; the entries (origin, status, bucket of each experiment) are "
            "files beside it: `variants/NAME.md`."
        ),
    )
    speedruns = StrOption(
        default="experiments/speedrun",
        help="The directory of the speedruns, whose records are the leaderboard.",
    )
    runs = StrOption(
        default="docs/reports/runs", help="The directory of the summaries of recorded runs."
    )
    base_branch = StrOption(
        default="",
        help="The branch that changes are merged into, which `./pants validate` compares with; by "
        "default what origin's HEAD says, else init.defaultBranch, `main` or `master`.",
    )
    sizes = StrOption(
        default="docs/reports/sizes", help="The directory of the sizes of variants that are gone."
    )
    buckets = StrOption(
        default="experiments/grug/buckets.json",
        help="The file that assigns the template's classes and functions to change buckets.",
    )
    accelerators = StrListOption(
        default=["cpu", "gpu", "tpu"], help="The names that a variant can use in `accelerators`."
    )

    @property
    def ledger_entries(self) -> str:
        """The directory of the ledger's entries."""
        return posixpath.join(posixpath.dirname(self.ledger), "variants")

    @property
    def ledger_files(self) -> tuple[str, str]:
        """Globs of all files of the ledger."""
        return (self.ledger, f"{self.ledger_entries}/*.md")

    def variant_of(self, path: str) -> str | None:
        """`experiments/grug/moe/x/y.py` -> `experiments/grug/moe`; None outside every variant.

        A file directly under a root belongs to none: `experiments/grug/BUILD`.
        """
        for root in self.roots:
            if path.startswith(f"{root}/"):
                name, slash, _ = path[len(root) + 1 :].partition("/")
                return f"{root}/{name}" if name and slash else None
        return None


def directory_of(address: Address) -> str:
    """The directory of the file that the address stands for, or else of its BUILD file."""
    return posixpath.dirname(address.filename) if address.is_file_target else address.spec_path
