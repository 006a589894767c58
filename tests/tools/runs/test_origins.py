"""A claim compares with the origin as the variant was copied from it, whatever came since."""

import hashlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.tools.lifecycle.conftest import BASE, fill
from tests.tools.lifecycle.conftest import Workspace as Repository
from tests.tools.runs.conftest import Workspace as Runs
from tests.tools.runs.conftest import compared, reading, rows
from tools.common.errors import ToolError
from tools.common.sources import is_source
from tools.ledger.ledger import load_ledger
from tools.runs import check_ledger, run_summary
from tools.runs.claim import claims, render
from tools.runs.compare_runs import Comparison, Refusal, verdict
from tools.runs.ledger_claims import of_ledger
from tools.runs.record import record


class Lab(Repository):
    """A repository whose variants are run: results follow from the sources and the seed."""

    write_run = Runs.write_run

    def bpb(self, name: str, seed: int) -> float:
        """Held-out bits per byte: by the model, by the seed, and a little by both together."""
        model = self.read(f"experiments/grug/{name}/model.py").replace(name, "base")
        alone = random.Random(hashlib.sha256(model.encode()).hexdigest())
        both = random.Random(f"{model}{seed}")
        noise = random.Random(seed).gauss(0, 0.01) + both.gauss(0, 0.001)
        return 2 + alone.uniform(-0.1, 0.1) + noise

    def train(self, name: str, seeds: int = 3, prefix: str = "") -> list[str]:
        """Runs a variant as it stands in the working tree, and records the runs."""
        return record(self.run_seeds(name, seeds, prefix), self.root)

    def run_seeds(self, name: str, seeds: int = 3, prefix: str = "") -> list[Path]:
        """Runs a variant as it stands in the working tree; the runs' directories."""
        directory = self.root / "experiments/grug" / name
        inside = {path.relative_to(directory).as_posix(): path.read_bytes()
                  for path in sorted(directory.rglob("*")) if path.is_file()}  # fmt: skip
        sources = {path: content for path, content in inside.items() if is_source(path)}
        runs = []
        for seed in range(seeds):
            lines = rows(20, every=10)
            for line in lines:
                line["train/loss"] += self.bpb(name, seed)
            lines[-1] |= {
                "eval/bpb": self.bpb(name, seed),
                "eval/loss": 2.25 * self.bpb(name, seed),
            }
            run = self.write_run(
                f"{prefix}{name}-{seed}",
                lines,
                record={"variant": name},
                config={"seed": seed},
                sources=sources,
                commit=self.git("rev-parse", "HEAD"),
            )
            runs.append(run)
        return runs

    def change_base(self, line: int, value: str) -> None:
        self.edit(f"{BASE}/model.py", f"V{line} = {line}\n", f"V{line} = {value!r}\n")
        self.commit(f"base: {value}")

    def verdicts(self, name: str, against: str = "") -> list[str]:
        """What may be said of each group of a variant, without numbers."""
        return [spoken(found) for found in claims(self.root, name, against)]


def spoken(found: Comparison | Refusal) -> str:
    if isinstance(found, Refusal):
        return str(found)
    return verdict(found.readings["tokens"], found.variant.variant)


@pytest.fixture
def lab(tmp_path):
    return at(tmp_path)


def at(root) -> Lab:
    lab = Lab(root)
    fill(lab)
    (root / ".gitignore").write_text("__pycache__/\n/dist/\n/runs/\n")
    lab.commit("ignore runs")
    return lab


EQUAL = "no difference shown (equal)"


def test_a_copy_of_a_newer_base_is_not_compared_with_the_older(lab):
    """Base recorded, one constant of its model changed and committed, an untouched copy of that."""
    lab.train("base")
    lab.commit("base is recorded")
    lab.change_base(3, "embedding std 1.0")
    lab.fork("null")
    lab.commit("null")
    lab.train("null")
    (message,) = lab.verdicts("null")
    point = lab.entry("null").forked_at.split(" ")[0]
    assert message == (
        f"no claim: no run of base as of {point} is recorded; record one, or name another with "
        "--against base@RUN"
    )
    assert message in lab.entry("null").results
    lab.commit("null is recorded")
    # Two runs of the right base are enough for what they say, and the third changes nothing.
    for seeds in (2, 3):
        lab.train("base", seeds, prefix=f"again{seeds}-")
        lab.commit("the base that null was copied from is recorded")
        found = compared(lab.root, "null")
        assert found.origin.sources_digest in found.pin["digests"]
        pairs = reading(found).pairs
        assert {pair.difference for pair in pairs} == {0.0} and len(pairs) == seeds
    test = reading(found).test
    assert spoken(found) == EQUAL and test and test.p == 1
    assert EQUAL in lab.entry("null").results


def test_a_verdict_outlives_its_merge_and_a_newer_base(lab):
    """swiglu is better, goes upstream, and one run of the new base is recorded."""
    lab.train("base")
    lab.fork("swiglu")
    lab.edit("experiments/grug/swiglu/model.py", "V5 = 5\n", "V5 = 'swiglu'\n")
    lab.commit("swiglu")
    lab.train("swiglu")
    lab.commit("swiglu is recorded")
    before = compared(lab.root, "swiglu")
    assert " is " in spoken(before)
    assert lab.run("upstream", "swiglu", "--verdict=It pays.") == 0
    lab.commit("swiglu goes upstream")
    lab.train("base", 1, prefix="merged-")
    lab.commit("the new base is recorded")
    after = compared(lab.root, "swiglu")
    assert render(after) == render(before)
    assert spoken(before) in lab.entry("swiglu").results


def test_a_base_recorded_again_changes_no_verdict(lab):
    """As moe: 'no difference' became 'higher' when base was recorded under newer sources."""
    lab.train("base")
    lab.fork("moe")
    lab.commit("moe")
    lab.train("moe")
    lab.commit("both are recorded")
    assert lab.verdicts("moe") == [EQUAL]
    lab.change_base(7, "newer")
    lab.train("base", prefix="newer-")
    lab.commit("base is recorded again")
    assert lab.verdicts("moe") == [EQUAL]
    # Recorded again, and synced up to the newer base: what ran was a copy of the older.
    assert lab.run("drift", "moe", f"--synced={lab.git('rev-parse', 'HEAD')}") == 0
    lab.commit("moe was synced")
    record(sorted((lab.root / "runs").glob("moe-*")), lab.root)
    assert lab.verdicts("moe") == [EQUAL]


def test_a_run_that_is_recorded_late_is_compared_with_what_it_was_a_copy_of(lab):
    lab.train("base")
    lab.fork("moe")
    lab.commit("moe")
    runs = lab.run_seeds("moe")
    lab.change_base(7, "newer")
    newer = lab.git("rev-parse", "HEAD")
    lab.train("base", prefix="newer-")
    assert lab.run("drift", "moe", f"--apply={newer}") == 0
    lab.commit("moe has what base has")
    record(runs, lab.root)
    found = compared(lab.root, "moe")
    assert (spoken(found), found.pin["by"]) == (EQUAL, "forked at")


def test_a_copy_that_was_synced_is_compared_with_what_it_was_synced_with(lab):
    lab.train("base")
    lab.fork("moe")
    lab.commit("moe")
    lab.change_base(7, "newer")
    lab.train("base", prefix="newer-")
    newer = lab.git("rev-parse", "HEAD")
    assert lab.run("drift", "moe", f"--apply={newer}") == 0
    lab.commit("moe has what base has")
    lab.train("moe", prefix="synced-")
    found = compared(lab.root, "moe")
    assert (spoken(found), found.pin["by"], found.pin["at"][:12]) == (EQUAL, "synced", newer[:12])


def test_a_person_may_name_another(lab):
    lab.train("base")
    older = lab.git("rev-parse", "HEAD")
    lab.commit("base is recorded")
    lab.change_base(3, "another")
    lab.fork("null")
    lab.commit("null")
    lab.train("null")
    for place in ("base-1", older, older[:9], "main~2"):
        found = compared(lab.root, "null", f"base@{place}")
        assert " is " in spoken(found) and found.pin["by"] == "named", place
        assert "as it was asked for" in render(found)
        assert found.origin.sources_digest[:12] in render(found)
        assert found.variant.sources_digest[:12] in render(found)
    with pytest.raises(ToolError, match="'nowhere' is no recorded run of base, and no commit that"):
        claims(lab.root, "null", "base@nowhere")
    # Recorded so, it stands in the ledger.
    record(sorted((lab.root / "runs").glob("null-*")), lab.root, against="base@base-0")
    found = compared(lab.root, "null")
    assert found.pin["at"] == "run base-0" and "base as recorded in base-0" in found.against
    assert spoken(found) in lab.entry("null").results
    record([lab.root / "runs/null-0"], lab.root)  # it keeps what it was compared with
    found = compared(lab.root, "null")
    assert found.pin["at"] == "run base-0"


def test_another_experiment_by_its_name_alone(lab):
    for name in ("one", "two"):
        lab.fork(name)
        lab.commit(name)
        lab.train(name)
    assert lab.verdicts("one", "two") == [EQUAL]
    lab.edit("experiments/grug/two/model.py", "V5 = 5\n", "V5 = 6\n")
    lab.commit("two changes")
    lab.train("two", prefix="changed-")
    with pytest.raises(ToolError, match="2 different sources: name one of them, such as --against"):
        claims(lab.root, "one", "two")


def test_runs_of_older_summaries_are_never_compared_silently(lab):
    lab.train("base")
    lab.fork("moe")
    lab.commit("moe")
    lab.train("moe")
    for path in (lab.root / run_summary.RUNS / "moe").iterdir():
        path.write_bytes(run_summary.rewritten(path.read_text(), "", origin=None))
    (message,) = lab.verdicts("moe")
    assert message.startswith("no claim: which state of its origin it was copied from is not rec")
    # The next one that is recorded pins them all.
    lab.train("moe", 1, prefix="once-more-")
    assert lab.verdicts("moe") == [EQUAL]


HISTORIES = int(os.environ.get("GRUG_HISTORIES", "6"))
STEPS = ("fork", "change base", "record base", "record a copy", "upstream", "sync", "commit")


class History:
    """A random history of a laboratory, in which copies named `null...` are never touched."""

    def __init__(self, lab: Lab, draw: random.Random):
        self.lab, self.draw = lab, draw
        self.number = 0
        self.untouched: list[str] = []
        self.pinned: dict[str, str] = {}  # the origin's digest, by a run of the variant

    def take(self, step: str) -> None:
        self.number += 1
        lab, name = self.lab, self.draw.choice(self.untouched or [""])
        if step == "fork":
            lab.commit()
            self.untouched.append(f"null{self.number}")
            assert lab.fork(self.untouched[-1]) == 0
        elif step == "change base":
            lab.commit()
            lab.change_base(self.number, f"change {self.number}")
        elif step == "record base":
            lab.train("base", self.draw.randint(1, 3), prefix=f"r{self.number}-")
        elif step == "record a copy" and name:
            lab.train(name, self.draw.randint(1, 3), prefix=f"r{self.number}-")
        elif step == "upstream":
            self.upstream(f"idea{self.number}")
        elif step == "sync" and name:
            lab.commit()
            since = lab.git("rev-list", "--reverse", "HEAD", "--", BASE).split()
            for commit in since[1:]:
                assert lab.run("drift", name, f"--apply={commit}") == 0
                lab.commit(f"{name} has {commit}")
        elif step == "commit":
            lab.commit()

    def upstream(self, idea: str) -> None:
        """Forks, changes, records and merges an idea into base."""
        lab = self.lab
        lab.commit()
        assert lab.fork(idea) == 0
        line = 20 + self.number
        lab.edit(f"experiments/grug/{idea}/model.py", f"V{line} = {line}\n", f"V{line} = 'new'\n")
        lab.commit(idea)
        lab.train(idea, 2, prefix=f"r{self.number}-")
        lab.commit(f"{idea} is recorded")
        assert lab.run("upstream", idea, "--verdict=It pays.") == 0
        lab.commit(f"{idea} goes upstream")

    def check(self) -> Iterator[Comparison]:
        """The comparisons of untouched copies; each must be equal, and keep its comparator."""
        runs, faults = run_summary.load_all(self.lab.root)
        assert not faults
        for name, outcomes in of_ledger(load_ledger(self.lab.root), runs).items():
            for found in outcomes:
                for run in found.variant.runs:
                    assert run.origin
                    digest = run.origin["digests"][0]
                    assert self.pinned.setdefault(run.path, digest) == digest
                if name in self.untouched and isinstance(found, Comparison):
                    pairs = reading(found).pairs
                    assert all(pair.difference == 0 for pair in pairs), render(found)
                    yield found


@settings(
    deadline=None,
    max_examples=HISTORIES,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    phases=[Phase.generate],  # a history takes a second: to shrink one takes long
)
@given(st.lists(st.sampled_from(STEPS), min_size=6, max_size=12), st.randoms(use_true_random=False))
def test_an_untouched_copy_never_differs_from_its_base(tmp_path_factory, steps, draw):
    """Through any history of commits, records, syncs and merges."""
    history = History(at(tmp_path_factory.mktemp("history")), draw)
    compared = 0
    # What each history begins with makes sure that something is compared.
    for step in ("fork", "record base", "record a copy", *steps, "record base", "commit"):
        history.take(step)
        compared += len(list(history.check()))
    assert compared
    assert not check_ledger.check(history.lab.root)
