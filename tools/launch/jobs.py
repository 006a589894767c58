"""The jobs that were sent from this workspace, and what their engines say of them now."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from tools.common.errors import ToolError
from tools.common.files import MIB, read_text, write_all
from tools.common.jsonio import json_text, parse_json
from tools.common.paths import is_url

SCHEMA_VERSION = 1
DIRECTORY = "runs/jobs"
PATIENCE_S = 30  # for one engine's answer
COLUMNS = ("job", "engine", "state", "step", "run directory")
STEP = re.compile(r'\{.*"step": ?(\d+)\b.*\}$')
# Where nothing else is known.
UNKNOWN = "-"
SKY = "PENDING|SUBMITTED|STARTING|RUNNING|RECOVERING|CANCELLING|SUCCEEDED|CANCELLED|FAILED[A-Z_]*"


@dataclass(frozen=True)
class Record:
    """A job that was sent. `number` is Slurm's; `options` are kubectl's or ray's own."""

    name: str
    engine: str
    variant: str
    run_dir: str
    number: str = ""
    options: tuple[str, ...] = ()

    @property
    def address(self) -> tuple[str, ...]:
        """What names the Ray cluster to each of its commands; empty where the environment does."""
        return tuple(option for option in self.options if option.startswith("--address"))

    @property
    def ways(self) -> dict[str, str]:
        """The commands that see, follow and stop the job; none for one that ends with its own."""
        name, own = self.name, "".join(f" {option}" for option in self.options)
        if self.engine == "slurm":
            return {
                "see": f"scontrol show job {self.number}",
                "follow": f"tail -F runs/{name}-{self.number}.log",
                "stop": f"scancel {self.number}",
            }
        if self.engine == "k8s":
            pods = f"--selector=jobset.sigs.k8s.io/jobset-name={name}"
            return {
                "see": f"kubectl{own} get jobset {name}",
                "follow": f"kubectl{own} logs --follow --prefix {pods}",
                "stop": f"kubectl{own} delete jobset,configmap,secret {name} --ignore-not-found",
            }
        if self.engine == "ray":
            address = "".join(f" {option}" for option in self.address)
            return {
                "see": f"ray job status{address} {name}",
                "follow": f"ray job logs --follow{address} {name}",
                "stop": f"ray job stop{address} {name}",
            }
        if self.engine == "sky":
            return {
                "see": "sky jobs queue",
                "follow": f"sky jobs logs --name {name}",
                "stop": f"sky jobs cancel --name {name}",
            }
        return {}

    def write(self, root: Path) -> None:
        """Writes the record below the workspace."""
        body = {"schema_version": SCHEMA_VERSION, **asdict(self)}
        write_all({root / DIRECTORY / f"{self.name}.json": json_text(body).encode()})


def records(root: Path) -> list[Record]:
    """All of a workspace's, by name. Raises ToolError for one that cannot be read."""
    return [read(path) for path in sorted((root / DIRECTORY).glob("*.json"))]


def read(path: Path) -> Record:
    """Raises ToolError: it is not a record, or one of a later version."""
    body = parse_json(read_text(path, MIB), str(path))
    fields = ("name", "engine", "variant", "run_dir", "number")
    try:
        version, options = body["schema_version"], tuple(map(str, body["options"]))
        record = Record(*(str(body[field]) for field in fields), options)
    except (KeyError, TypeError) as error:
        raise ToolError(f"{path}: is no job's record: remove it") from error
    if version != SCHEMA_VERSION:
        raise ToolError(f"{path}: schema version {version}, and this reads {SCHEMA_VERSION}")
    return record


def table(root: Path) -> str:
    """All jobs with their states, and how to follow and stop those that are not over."""
    rows, more = [COLUMNS], []
    for record in records(root):
        state = state_of(record)
        place = record.run_dir or f"runs/{record.name}-{record.number}"
        rows.append((record.name, record.engine, state, last_step(root, place), place))
        if not re.match("(?i)complete|succe|cancel|fail|delet|timeout|stopped|forgotten", state):
            more += [f"  {how} {record.name}: {way}" for how, way in record.ways.items()]
    if len(rows) == 1:
        return "no job was sent from this workspace"
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join([*lines, *more])


def state_of(record: Record) -> str:
    """What the engine says, in its own word."""
    if record.engine == "slurm":
        found = _ask("scontrol", "show", "job", "--oneliner", record.number)
        state = re.search(r"\bJobState=(\S+)", found)
        if state:
            return state[1]
        found = _ask("sacct", "--noheader", "-X", "-j", record.number, "--format=State%30")
        return found.split()[0] if found.split() else "forgotten"
    if record.engine == "k8s":
        words = ("kubectl", *record.options, "get", "jobset", record.name, "--ignore-not-found")
        text = _ask(*words, "--output=json")
        if not text:
            return "deleted"
        status = parse_json(text, "kubectl's answer").get("status", {})
        ended = [each["type"] for each in status.get("conditions", []) if each["status"] == "True"]
        return ended[-1] if ended else "Running"
    if record.engine == "ray":
        found = re.search(
            r"\b(PENDING|RUNNING|STOPPED|SUCCEEDED|FAILED)\b",
            _ask("ray", "job", "status", *record.address, record.name),
            re.IGNORECASE,
        )
        return found[1].upper() if found else UNKNOWN
    if record.engine == "sky":
        for line in _ask("sky", "jobs", "queue").splitlines():
            if record.name in line.split() and (found := re.search(rf"\b({SKY})\b", line)):
                return found[1]
    return UNKNOWN


def last_step(root: Path, place: str) -> str:
    """The last step in the run's metrics, from this machine or a bucket."""
    try:
        if is_url(place):
            import tensorstore

            store = tensorstore.KvStore.open(f"{place.rstrip('/')}/").result(PATIENCE_S)
            data = store.read("metrics.jsonl").result(PATIENCE_S).value
        else:
            data = (root / place / "metrics.jsonl").read_bytes()
        lines = data.decode().splitlines()
    except (OSError, ValueError, TimeoutError, AttributeError, ImportError):
        return UNKNOWN
    # The newest line may not yet be whole.
    return next((found[1] for line in reversed(lines) if (found := STEP.match(line))), UNKNOWN)


def _ask(*words: str) -> str:
    """What a program prints; nothing where it fails, is not there, or does not answer."""
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"launch: {words[0]} does not answer: {error}", file=sys.stderr)
        return ""
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [str(done.returncode)])[-1]
        print(f"launch: {words[0]}: {last}", file=sys.stderr)
    return "" if done.returncode else done.stdout
