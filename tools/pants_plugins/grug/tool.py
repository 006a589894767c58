"""Command-line tools from the wheels of one resolve."""

from __future__ import annotations

from pants.backend.python.target_types import ConsoleScript
from pants.backend.python.util_rules.pex import PexRequest, PexRequirements
from pants.backend.python.util_rules.pex_requirements import Resolve

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
