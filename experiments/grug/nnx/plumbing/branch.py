"""A branch: a run that begins with the state of a checkpoint of another run, its parent.

`--branch-from RUN@STEP` starts one. It may have another horizon, the settings with that role. Its
run.json keeps where it comes from, as `ancestors`: one entry per branching, the oldest first.
"""

import json
import math
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

from .checkpoint import Checkpoints, differences
from .processes import from_first, process_index
from .record import RUN_SCHEMA, VARIANT
from .storage import Folder, spec
from .terminal import say


class BranchError(ValueError):
    """The run cannot branch off there; the message says why and what to do."""


def branch_point(source: str) -> tuple[str, int | None]:
    """(RUN, STEP) of `RUN@STEP`; no STEP for `RUN`, which means its newest checkpoint."""
    match = re.fullmatch(r"(.+)@(\d+)", source)
    return (match[1], int(match[2])) if match else (source, None)


def run_name(place: str) -> str:
    """The name of the run at a path or URL: that of its directory, without where this is."""
    parts = spec(place)
    return f"{parts.get('bucket', '')}/{parts['path']}".rstrip("/").rpartition("/")[2]


def open_branch(run_dir: str, source: str, *, resuming: bool) -> "Branch":
    """The branch that the run in `run_dir` is, or becomes; one without `source` begins at step 0.

    A run that is resumed is the branch that its record says; `source` may repeat that, or be "".

    Raises:
        BranchError: the run that is resumed is no branch, or one of another checkpoint.
    """
    ancestors: list[dict[str, Any]] = []
    if resuming:
        record = json.loads(Folder(run_dir).read("run.json") or b"{}")
        ancestors = record.get("ancestors") or []
        if source:
            refuse_another(run_dir, source, ancestors)
        elif ancestors:
            source = record["config"]["branch_from"]
    return Branch(source, ancestors)


def refuse_another(run_dir: str, source: str, ancestors: Sequence[dict[str, Any]]) -> None:
    """Raises BranchError if a run with these ancestors is no branch of `source`."""
    remedy = "remove --branch-from to resume it, or give another --run-dir"
    if not ancestors:
        raise BranchError(f"{run_dir} is no branch, its run begins at step 0: {remedy}")
    parent, step = branch_point(source)
    own = ancestors[-1]
    if run_name(parent) != own["run"] or step not in (None, own["step"]):
        raise BranchError(
            f"{run_dir} is a branch of {own['run']}@{own['step']}, not of {source}: {remedy}"
        )


class Branch:
    """Where a run begins: after `step` of the run that `source` names, RUN or RUN@STEP.

    Without `source`, at step 0. `ancestors` is for run.json, and process 0's alone until that is
    written: an entry has the parent's `variant` and `run`, the `step`, the `digest` of its
    checkpoint, the `horizon` that this was saved with, and the `attempts` that made it.
    """

    def __init__(self, source: str, ancestors: list[dict[str, Any]]):
        self.source, self.ancestors = source, ancestors
        self.step: int = ancestors[-1]["step"] if ancestors else 0

    def begin(
        self,
        like: Any,
        config: dict[str, Any],
        horizon: Collection[str],
        schedule: Callable[[dict[str, Any]], Callable[[int], Any]] = lambda _: lambda _: 0.0,
    ) -> tuple[Any, dict[str, Any]]:
        """(state, meta) of the parent's checkpoint, for a run that has no checkpoint of its own.

        Args:
            like: shapes and shardings of the state, from jax.eval_shape.
            config: what defines this run, TrainConfig.identity.
            horizon: the names in `config` in which the parent may differ.
            schedule: the learning rate by step, under another horizon. If that of the first update
                is not the parent's, both are told.

        Raises:
            BranchError: there is no such run or checkpoint, or it is not before this run's end.
            CheckpointError: the checkpoint is damaged, or of another configuration.
        """
        parent, _ = branch_point(self.source)
        checkpoints, record, digest = Checkpoints(parent, keep=1), {}, ""
        if process_index() == 0:
            record = read_parent(Folder(parent))
            self.step = self._chosen(checkpoints.steps(), record)
            self._refuse_end(checkpoints.steps(), config["steps"])
            digest = checkpoints.digest(self.step)
            if self.ancestors and self.ancestors[-1]["digest"] != digest:
                raise BranchError(
                    f"{parent}@{self.step} is not the checkpoint that this run began with: put "
                    "that back, or start anew in another --run-dir"
                )
        self.step = from_first(self.step)
        state, meta = checkpoints.restore(self.step, like, config, may_differ=horizon)
        if process_index() == 0:
            saved = {name: meta["config"][name] for name in horizon if name in meta["config"]}
            entry = {
                "variant": VARIANT,
                "run": run_name(parent),
                "step": self.step,
                "digest": digest,
                "horizon": saved,
                "attempts": [a for a in record["attempts"] if a["from_step"] < self.step],
            }
            self.ancestors = [*(record.get("ancestors") or []), entry]
            changes = differences(saved, {name: config[name] for name in horizon})
            say(f"branch of {parent}, step {self.step}; {', '.join(changes) or 'the same horizon'}")
            theirs, ours = (float(schedule(values)(self.step)) for values in (saved, {}))
            if not math.isclose(ours, theirs, rel_tol=1e-3):
                say(f"the next update has learning rate {ours:.3g}; in the parent, {theirs:.3g}")
        return state, meta

    def _chosen(self, there: Sequence[int], record: dict[str, Any]) -> int:
        """The step to begin after. Raises BranchError if it is not one of those that are there."""
        parent, step = branch_point(self.source)
        if self.ancestors:
            step = self.step
        elif step is None and there:
            step = there[-1]
        if step is not None and step in there:
            return step
        lacks = f"of step {step}, only of {', '.join(map(str, there))}" if there else "at all"
        kept = record.get("config", {}).get("keep_checkpoints", "some")
        raise BranchError(
            f"{parent} has no checkpoint {lacks}: a run keeps its newest ones, this one {kept}; "
            "more --keep-checkpoints, when it is trained, leave earlier ones to branch off from"
        )

    def _refuse_end(self, there: Sequence[int], steps: int) -> None:
        """Raises BranchError if a run of so many steps has none left after `step`."""
        if self.step >= steps:
            earlier = ", ".join(str(step) for step in there if step < steps)
            remedy = f", or an earlier checkpoint: {earlier}" if earlier else ""
            raise BranchError(
                f"{self.source}: its step {self.step} is not before the end of this run, "
                f"steps={steps}: give more --steps{remedy}"
            )


def read_parent(folder: Folder) -> dict[str, Any]:
    """The run.json of a parent. Raises BranchError if it cannot be one of this variant's runs."""
    place = folder.url.rstrip("/")
    content = folder.read("run.json")
    if content is None:
        raise BranchError(f"{place} holds no run: give --branch-from RUN@STEP a run's directory")
    try:
        record = json.loads(content)
        variant, schema = record["variant"], int(record["schema_version"])
        if not isinstance(record["attempts"], list):
            raise ValueError("it lists no attempts")
    except (ValueError, KeyError, TypeError) as error:
        raise BranchError(
            f"{place}/run.json is not the record of a run ({error!r}): put that back from a copy"
        ) from error
    if schema > RUN_SCHEMA:
        raise BranchError(
            f"{place}/run.json has schema {schema}, and this code knows {RUN_SCHEMA} at most: "
            "bring it up to date"
        )
    if variant != VARIANT:
        raise BranchError(
            f"{place} is a run of {variant}, and this is {VARIANT}: branch off a run of {VARIANT}"
        )
    return record
