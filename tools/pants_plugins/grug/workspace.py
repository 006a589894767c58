"""Where the workspace keeps its variants, and how a path tells which one it belongs to."""

from __future__ import annotations

import posixpath

from pants.engine.addresses import Address
from pants.option.option_types import StrListOption, StrOption
from pants.option.subsystem import Subsystem


class GrugSubsystem(Subsystem):
    options_scope = "grug"
    help = "The workspace of experiments: where variants, tools and requirements are."

    roots = StrListOption(
        default=["experiments/grug", "experiments/speedrun"],
        help="Directories whose subdirectories are variants.",
    )
    template = StrOption(
        default="experiments/grug/base",
        help="The variant of which all others are copies; its plumbing is theirs.",
    )
    requirements = StrOption(
        default="tools/locks",
        help="The directory of the third-party requirements and their locks.",
    )
    tools = StrOption(default="tools", help="The directory of the tools, which use tools only.")
    tests = StrOption(
        default="tests", help="The directory of the tests, which may depend on variants."
    )
    launcher = StrOption(
        default="tools/launch:launch",
        help="The target that runs any variant: it depends on all that have a `launch.py`.",
    )
    contract = StrOption(
        default="tests/contract",
        help="The directory of the tests that every variant must pass: `test_*.py`.",
    )
    plumbing_contract = StrOption(
        default="tests/contract/plumbing",
        help="The directory of the tests of the template's plumbing, and of any other's.",
    )
    contract_target = StrOption(
        default="tests/contract:suite", help="The target that owns what those tests need."
    )
    lock_target = StrOption(
        default="tools/locks:{resolve}-lock",
        help="The target that owns a resolve's lock as a file, which a run's record digests.",
    )
    ledger = StrOption(
        default="docs/reports/grug-archive.md",
        help="The ledger of experiments: origin, status and bucket of each.",
    )
    speedruns = StrOption(
        default="experiments/speedrun",
        help="The directory of the speedruns, whose records are the leaderboard.",
    )
    runs = StrOption(
        default="docs/reports/runs", help="The directory of the summaries of recorded runs."
    )
    buckets = StrOption(
        default="experiments/grug/buckets.json",
        help="Which change bucket each class and function of the template falls in.",
    )
    accelerators = StrListOption(
        default=["cpu", "gpu", "tpu"], help="What a variant can name in `accelerators`."
    )

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
    """Of the file that the address stands for, else of its BUILD file."""
    return posixpath.dirname(address.filename) if address.is_file_target else address.spec_path
