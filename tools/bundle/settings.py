"""What a person may want of a job other than what lies in a bundle, and what the job is called."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from tools.bundle.manifest import Pythons
from tools.bundle.topology import Topology
from tools.common.errors import ToolError

PREEMPTED = 143
# JobSet adds `-worker-0-0` and more to a name, and a host name has at most 63 letters.
LONGEST = 40
PYTHONS = Pythons("3.12", "3.15")
NAME = re.compile(rf"(?=.{{1,{LONGEST}}}$)[a-z]([-a-z0-9]*[a-z0-9])?")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Settings:
    """The defaults are what lies in a bundle."""

    variant: str
    topology: Topology
    args: tuple[str, ...] = ()  # flags of the program, on every start
    run_dir: str = ""  # where the run is kept, for engines whose disks go with the job: a URL
    image: str = ""  # of a pod; empty: Python's own
    pythons: Pythons = PYTHONS  # what the bundle runs in
    time_limit: str = "24:00:00"  # of a Slurm job
    max_restarts: int = 3
    cpus: int = 4  # of a node without accelerators
    job: str = ""  # name of one sending; empty: all that are started by hand share one
    env: Mapping[str, str] = field(default_factory=dict)  # of the program, besides the bundle's
    secrets: tuple[str, ...] = ()  # names of variables whose values no file holds
    spot: bool | None = None  # machines that may be taken away; None: the engine's habit
    changes: tuple[tuple[str, str], ...] = ()  # of the engine's YAML: where, and YAML of the value
    template: Mapping[str, object] = field(default_factory=dict)  # a person's YAML below ours
    prologue: str = ""  # a person's head of a batch script

    def __post_init__(self) -> None:
        """Raises ToolError for what no engine can be told."""
        if self.job and not NAME.fullmatch(self.job):
            raise ToolError(
                f"no job can be called {self.job!r}: use at most {LONGEST} lower-case letters, "
                "digits and hyphens, a letter first and no hyphen last"
            )
        for name in (*self.env, *self.secrets):
            if not VARIABLE.fullmatch(name):
                raise ToolError(f"no variable can be called {name!r}: use letters, digits and _")
        if both := set(self.env) & set(self.secrets):
            raise ToolError(f"{min(both)} is given by --env and by --secret: remove one")
        for text in (*self.args, self.run_dir, *self.env.values()):
            try:
                text.encode()
            except UnicodeEncodeError:
                raise ToolError(f"{text!a} is not UTF-8, which job files are: change it") from None

    @property
    def name(self) -> str:
        """The job's name, or `moe-gpu`; of a speedrun `run-2026-11-22-muon-gpu`."""
        return self.job or _joined(_label(self.variant), self.topology.accelerator)


def job_name(variant: str, accelerator: str, run_dir: str, token: str) -> str:
    """A name for one sending: `moe-gpu-350m-lr3-8f1c02`, of variant, run and a random token.

    It is a DNS label, which every engine takes.
    """
    run = _label(run_dir.rstrip("/").rpartition("/")[2], first="")
    parts = (_label(variant)[:14], accelerator, run[:14], token)
    return "-".join(part.strip("-") for part in parts if part)


def _label(text: str, first: str = "run") -> str:
    """The text in lower-case letters, digits and single hyphens; `first` before a digit."""
    text = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return text if text[:1].isalpha() or not first else f"{first}-{text}".rstrip("-")


def _joined(label: str, accelerator: str) -> str:
    """Both, with a digest in the place of letters that are too many: no two names become one."""
    room = LONGEST - 1 - len(accelerator)
    if len(label) > room:
        digest = hashlib.sha256(label.encode()).hexdigest()[:6]
        label = f"{label[: room - 7].rstrip('-')}-{digest}"
    return f"{label}-{accelerator}"
