"""What runs allow to be said: the test itself, and where two experiments are read."""

import math
import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference

from tests.tools.runs.conftest import compared, entry, reading, rows
from tools.common.errors import ToolError
from tools.ledger.ledger import load_ledger
from tools.runs import claim as command
from tools.runs import record, results, run_summary
from tools.runs.claim import claims, render
from tools.runs.compare_runs import AXES, Comparison, amount, compare, groups, p_value, sentence
from tools.runs.stats import Sample, value_at, welch

samples = st.lists(st.floats(-100, 100), min_size=2, max_size=9)


@pytest.mark.filterwarnings("ignore:Precision loss")
@settings(deadline=None)  # the machine may be busy
@given(samples, samples)
def test_welch_is_scipys(first, second):
    result = welch(Sample(tuple(first)), Sample(tuple(second)))
    if max(np.ptp(first), np.ptp(second)) < 1e-3:
        return  # rounding alone
    assert result is not None
    expected = reference.ttest_ind(first, second, equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert result.p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)
    assert result.freedom == pytest.approx(expected.df, rel=1e-6)
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high), rel=1e-6)


def test_welch_of_a_known_pair():
    result = welch(Sample((1.0, 2.0, 3.0)), Sample((2.0, 4.0, 6.0)))
    assert result and (result.difference, result.freedom) == pytest.approx((-2.0, 50 / 17))
    assert result.low == pytest.approx(-2 - result.high - 2)


def test_the_interval_covers_and_the_test_errs_as_often_as_they_say():
    """Three seeds a side, unequal spread: of 4,000 true nulls about 5% are called a difference."""
    rng = np.random.default_rng(0)
    missed = false = 0
    for _ in range(4000):
        first, second = rng.normal(2.0, 0.01, 3), rng.normal(2.0, 0.02, 4)
        result = welch(Sample(tuple(first)), Sample(tuple(second)))
        assert result is not None
        missed += not result.low <= 0 <= result.high
        false += result.p < 0.05
    assert missed == false and 0.03 < false / 4000 < 0.07


@pytest.mark.parametrize(
    "first, second",
    [((1.0,), (1.0, 2.0)), ((1.0, 2.0), (1.0,)), ((1.0, 1.0), (2.0, 2.0)), ((1.0,), (1.0,))],
)
def test_samples_that_allow_no_test(first, second):
    assert welch(Sample(first), Sample(second)) is None


def test_the_spread_of_one_is_unknown():
    assert Sample((1.0,)).spread is None
    assert Sample((1.0, 3.0)).spread == pytest.approx(math.sqrt(2))


def test_reading_a_curve():
    points = [(1.0, 5.0), (3.0, 3.0), (5.0, 2.0)]
    assert [value_at(points, x) for x in (1, 2, 3, 4, 5)] == [5, 4, 3, 2.5, 2]
    assert value_at(points, 0.9) is value_at(points, 5.1) is value_at([], 1) is None


MOE = (1.9, 1.9012, 1.9018)


@pytest.fixture
def seeds(workspace):
    """Three seeds of base and of moe, which is lower by 0.1 and a quarter slower."""
    for seed in range(3):
        workspace.write_summary("base", f"base-{seed}", seed=seed, bpb=2.0 + seed / 1000)
        workspace.write_summary("moe", f"moe-{seed}", seed=seed, bpb=MOE[seed], seconds=125.0)
    return workspace


def readings(workspace):
    return compared(workspace.root, "moe").readings


def test_a_claim(seeds):
    result = readings(seeds)["tokens"]
    assert (result.spent, result.metric) == (10_000, "held-out bits per byte")
    assert (result.variant.n, result.origin.n) == (3, 3)
    assert result.test.difference == pytest.approx(-0.1)
    assert result.test.p < 1e-4 and result.test.high < 0 and result.notes == ()
    assert [(pair.seed, pair.variant, pair.origin) for pair in result.pairs] == [
        (0, MOE[0], 2.0), (1, MOE[1], 2.001), (2, MOE[2], 2.002)
    ]  # fmt: skip
    assert sentence(result, "moe", "base", q=0.0123) == (
        "moe is better by 0.1000 bits per byte; 95% interval 0.1005 to 0.0995 better, "
        "paired t-test of 3 pairs of seeds, p < 0.0001, q = 0.012; moe 1.9010 ± 0.0009 (n = 3), "
        "base 2.0010 ± 0.0010 (n = 3) held-out bits per byte"
    )


def ancestors(seed: int, *points: tuple[int, float]):
    """Of a branch: base of that seed up to each of the steps, with another learning rate."""
    return {
        "run_schema": 5,
        "ancestors": [
            {"run": f"base-{seed}", "step": step, "digest": f"{seed + 1}" * 64,
             "horizon": {"learning_rate": rate, "steps": 100}}
            for step, rate in points
        ],
    }  # fmt: skip


def test_branches_of_each_seed_are_one_experiment_and_whole_runs_another(workspace):
    for seed in range(3):
        workspace.write_summary("base", f"base-{seed}", seed=seed)
        workspace.write_summary("base", f"late-{seed}", seed=seed, **ancestors(seed, (5, 0.02)))
        workspace.write_summary("base", f"soon-{seed}", seed=seed, **ancestors(seed, (4, 0.02)))
        workspace.write_summary("base", f"same-{seed}", seed=seed, **ancestors(seed, (5, 0.01)))
    found = groups(run_summary.load_all(workspace.root)[0])
    names = sorted([run.run.partition("-")[0] for run in group.runs] for group in found)
    assert names == [["base"] * 3, ["late"] * 3, ["soon"] * 3]  # the same horizon: the run itself


def test_what_a_branch_had_otherwise_is_a_setting_that_differs(seeds):
    twice = {seed: ancestors(seed, (2, 0.04), (5, 0.02)) for seed in range(3)}
    for seed in range(3):
        seeds.write_summary("moe", f"moe-{seed}", seed=seed, bpb=MOE[seed], **twice[seed])
    found = compared(seeds.root, "moe")
    assert found.differs == (
        "until step 2 learning_rate 0.04, base has none",
        "until step 5 learning_rate 0.02, base has none",
    )
    assert found.readings["time"] == (
        "moe-0 is a branch, whose time is that of its own steps alone"
    )
    assert reading(found).spent == 10_000


def test_a_seed_without_its_pair_makes_the_test_unpaired(seeds):
    seeds.write_summary("moe", "moe-3", seed=3, bpb=1.902)
    result = readings(seeds)["tokens"]
    assert result.test.method == "Welch" and (result.variant.n, result.origin.n) == (4, 3)
    assert result.notes == (
        "not paired: for seed 3 base has no run of the same data in the same order",
    )
    assert "Welch's t-test of 4 and 3 seeds" in sentence(result, "moe", "base")
    assert [pair.seed for pair in result.pairs] == [0, 1, 2]


def test_other_seeds_of_the_origin_are_left_out_of_pairs(seeds):
    before = readings(seeds)["tokens"]
    for seed in (3, 4):
        seeds.write_summary("base", f"base-{seed}", seed=seed, bpb=2.5)
    after = readings(seeds)["tokens"]
    assert (after.test, after.origin.n) == (before.test, 3)
    assert after.notes == ("without seeds 3, 4 of base, which moe has no pair of",)


def test_runs_that_read_in_another_order_are_not_paired(seeds):
    for seed in range(3):
        config = {"steps": 100, "learning_rate": 0.01, "batch_size": 20, "sequence_length": 5}
        seeds.write_summary("moe", f"moe-{seed}", seed=seed, bpb=MOE[seed], config=config)
    result = readings(seeds)["tokens"]
    assert (result.test.method, result.pairs) == ("Welch", ())
    assert result.notes[0].startswith("not paired: for seeds 0, 1, 2 base has no run of the same")


def test_claims_of_the_whole_ledger_share_their_q_values(seeds):
    seeds.write_ledger(entry("base"), entry("moe"), entry("window"), entry("alone"))
    noise = (2.0, 2.004, 1.999)
    for seed in range(3):
        seeds.write_summary("window", f"window-{seed}", seed=seed, bpb=noise[seed])
    seeds.write_summary("alone", "alone-0")  # one seed is no claim, and none of the family
    found = {name: compared(seeds.root, name) for name in ("moe", "window")}
    tests = {name: reading(one).test for name, one in found.items()}
    p = {name: test.p for name, test in tests.items() if test}
    assert p["moe"] < p["window"]
    assert found["moe"].q == pytest.approx(2 * p["moe"])
    assert found["window"].q == pytest.approx(p["window"])
    assert compared(seeds.root, "alone").q is None


def test_what_a_person_asks_changes_no_q_value(seeds, capsys):
    """A comparison with a named origin is none of the ledger's claims."""
    seeds.write_ledger(entry("base"), entry("moe"), entry("window"))
    for seed in range(3):
        seeds.write_summary("window", f"window-{seed}", seed=seed, bpb=2.0 + seed**2 / 1000)
    before = {name: compared(seeds.root, name).q for name in ("moe", "window")}
    for against in ("base@base-0", "window", "window@window-1"):
        found = compared(seeds.root, "moe", against)
        test = reading(found).test
        assert test and found.q is None and found.is_asked
        assert command.main(["moe", "--against", against, "--root", str(seeds.root)]) == 0
        printed = capsys.readouterr().out
        assert "  no q-value: only the ledger's own claims have one, and this is none" in printed
        assert re.search(", p [=<] ", printed) and not re.search("q [=<] ", printed)
    assert {name: compared(seeds.root, name).q for name in ("moe", "window")} == before
    # Named in the summaries, it is a claim of the ledger.
    named = {"name": "base", "at": "run base-0", "by": "named", "digests": ["a" * 64]}
    for seed in range(3):
        seeds.write_summary("moe", f"moe-{seed}", seed=seed, bpb=MOE[seed], origin=named)
    assert compared(seeds.root, "moe").q == pytest.approx(before["moe"])
    assert "which is base as recorded in base-0, as the summaries say" in render(
        compared(seeds.root, "moe")
    )


@pytest.mark.parametrize(
    "against, message",
    [
        ("", "--against: names no experiment; give ORIGIN, ORIGIN@RUN or ORIGIN@COMMIT"),
        (" ", "--against: names no experiment; give ORIGIN, ORIGIN@RUN or ORIGIN@COMMIT"),
        ("base@", "base@: names no run or commit after @; leave @ out, or give one"),
        ("@base-0", "docs/reports/grug-archive.md: no experiment is called ''; known: base, moe"),
    ],
)
@pytest.mark.parametrize("tool", [command, record])
def test_an_origin_that_names_nothing(seeds, against, message, tool):
    run = seeds.write_run("moe-9", rows(10), record={"variant": "moe"})
    first = {command: "moe", record: str(run)}[tool]
    with pytest.raises(ToolError) as raised:
        tool.main([first, "--against", against, "--root", str(seeds.root)])
    assert str(raised.value) == message


def test_at_equal_time_the_slower_one_is_read_earlier(seeds):
    result = readings(seeds)["time"]
    assert result.spent == 100.0
    # moe after 100 of its 125 s: between its evaluations at 62.5 s and 125 s.
    assert result.variant.values[0] == pytest.approx(1.9 + 25 / 62.5, abs=0.005)
    assert result.notes == (
        "moe is read at 80% of its schedule, where its learning rate may not have decayed",
    )
    assert sentence(result, "moe", "base").startswith("moe is worse by 0.3000 bits per byte; ")


def test_at_equal_flops(seeds):
    for seed in range(3):
        seeds.write_summary("moe", f"moe-{seed}", seed=seed, bpb=MOE[seed], flops_per_token=50.0)
    result = readings(seeds)["FLOPs"]
    assert result.spent == 500_000
    assert result.origin.values[0] == pytest.approx(3.0, abs=0.02)  # base at half its tokens
    assert "base is read at 50% of its schedule" in result.notes[0]
    seeds.write_summary("moe", "moe-0", flops_per_token=None)
    assert readings(seeds)["FLOPs"] == "a run does not tell its FLOPs per token"


def test_one_seed_is_no_claim(workspace):
    workspace.write_summary("base", "base-1")
    workspace.write_summary("moe", "moe-1", bpb=1.0)
    for axis in AXES:
        assert sentence(readings(workspace)[axis], "moe", "base").startswith("one seed: no claim; ")


def test_a_seed_run_twice_counts_once(seeds):
    seeds.write_summary("moe", "moe-again", seed=2, bpb=1.5)
    assert readings(seeds)["tokens"].variant.n == 3
    for name in ("moe-0", "moe-1"):
        (seeds.root / f"docs/reports/runs/moe/{name}.json").unlink()
    assert readings(seeds)["tokens"].variant.n == 1


def test_a_claim_says_which_record_of_a_seed_it_took(seeds, capsys):
    seeds.write_summary("moe", "again", seed=2, bpb=1.5)
    seeds.write_summary("base", "old", seed=1, bpb=1.9)
    told = [
        "moe has 2 records of seed 2, with other losses: again is taken, moe-2 left out",
        "base has 2 records of seed 1, with other losses: base-1 is taken, old left out",
    ]
    assert list(readings(seeds)["tokens"].notes)[:2] == told
    runs = run_summary.load_all(seeds.root)[0]
    moe = next(e for e in load_ledger(seeds.root) if e.name == "moe")
    assert all(f"; {words}; " in results.measured(moe, runs) for words in told)
    # Where there is nothing to compare with, too.
    for path in (seeds.root / "docs/reports/runs/base").iterdir():
        path.unlink()
    assert command.main(["moe", "--root", str(seeds.root)]) == 0
    assert f"\n  {told[0]}\n" in capsys.readouterr().out


def test_seeds_without_spread_are_no_claim(workspace):
    for seed in range(2):
        workspace.write_summary("base", f"base-{seed}", seed=seed)
        workspace.write_summary("moe", f"moe-{seed}", seed=seed, bpb=1.0)
    message = sentence(readings(workspace)["tokens"], "moe", "base")
    assert message.startswith("no claim: the seeds all differ alike, as copies of a run do; ")


def test_no_difference_is_said_so(workspace):
    for seed, noise in enumerate((0.0, 0.1, -0.1)):
        workspace.write_summary("base", f"base-{seed}", seed=seed, bpb=2.0 + noise)
        workspace.write_summary("moe", f"moe-{seed}", seed=seed, bpb=2.01 - noise)
    assert sentence(readings(workspace)["tokens"], "moe", "base").startswith("no difference shown")


def test_other_hardware_allows_no_claim_on_time(seeds):
    devices = {"count": 8, "kind": "TPU v4", "platform": "tpu", "processes": 1}
    seeds.write_summary("base", "base-0", devices=devices)
    assert "different devices (1 × cpu, 8 × TPU v4)" in readings(seeds)["time"]


@pytest.mark.parametrize(
    "values, message",
    [
        ({"host": {"processor": "B", "cores": 2}}, "different processors (A Processor, 2 cores; B"),
        ({"host": {"processor": "A Processor", "cores": 4}}, "2 cores; A Processor, 4 cores)"),
        ({"host": None}, "base-1 does not tell its processor, its cores and how evenly its steps"),
        ({"step_time_spread": None}, "base-1 does not tell its processor"),
        ({"step_time_spread": 0.26}, "the steps of base-1 took unequally long (from the 10th to"),
    ],
)
def test_times_of_unlike_machines_allow_no_claim(seeds, values, message):
    seeds.write_summary("base", "base-1", seed=1, bpb=2.001, step_time_spread=0.25)
    assert not isinstance(readings(seeds)["time"], str)
    seeds.write_summary("base", "base-1", seed=1, bpb=2.001, **values)
    result = readings(seeds)
    assert message in result["time"] and not isinstance(result["tokens"], str)
    assert sentence(result["time"], "moe", "base").startswith("no claim: ")


def test_without_evaluations_the_training_loss_is_read(workspace):
    for seed, end in enumerate((4.0, 4.1)):
        workspace.write_summary("base", f"base-{seed}", seed=seed, end=end)
        workspace.write_summary("moe", f"moe-{seed}", seed=seed, end=end - 1, heldout=[])
    result = readings(workspace)["tokens"]
    assert (result.metric, result.variant.mean) == ("training loss", pytest.approx(3.05))


def test_held_out_values_over_other_targets_do_not_compare(workspace):
    for seed, end in enumerate((4.0, 4.1)):
        workspace.write_summary("base", f"base-{seed}", seed=seed, end=end)
        workspace.write_summary("moe", f"moe-{seed}", seed=seed, end=end, heldout_targets=2000)
    result = readings(workspace)["tokens"]
    assert result.metric == "training loss"
    assert "held-out values over 1,000 targets and 2,000 targets do not compare" in result.notes
    # As many, but with ends of documents among them: others, too.
    for seed, end in enumerate((4.0, 4.1)):
        workspace.write_summary("moe", f"moe-{seed}", seed=seed, end=end, heldout_ends=40)
    result = readings(workspace)["tokens"]
    assert result.metric == "training loss"
    kinds = "1,000 targets and 1,000 targets (40 ends of documents)"
    assert f"held-out values over {kinds} do not compare" in result.notes
    # Older runs did not count them: the settings from which they followed must be equal.
    for size in (8, 16):
        config = {"eval_batches": 4, "batch_size": size, "sequence_length": 64}
        for seed, variant in ((seed, v) for seed in (0, 1) for v in ("base", "moe")):
            given = config if variant == "base" else config | {"batch_size": 8}
            tokens = 100 * given["batch_size"] * 64
            older = {"heldout_targets": None, "config": given, "tokens": tokens}
            workspace.write_summary(variant, f"{variant}-{seed}", seed=seed, **older)
        assert (readings(workspace)["tokens"].metric == "training loss") == (size == 16)


def test_only_runs_on_the_same_data_compare(seeds):
    for seed in range(3):
        seeds.write_summary("moe", f"moe-{seed}", seed=seed, data_digest="e" * 64)
    (result,) = claims(seeds.root, "moe", "base")
    assert str(result) == (
        "no claim: no run of base as of cccccccccccc is on the same data; record one, or name "
        "another with --against base@RUN"
    )


def test_runs_of_other_settings_sources_or_packages_are_not_pooled(seeds):
    config = {"steps": 100, "learning_rate": 0.02}
    seeds.write_summary("moe", "moe-a", seed=7, config=config)
    seeds.write_summary("moe", "moe-b", seed=8, sources_digest="e" * 64)
    seeds.write_summary("moe", "moe-c", seed=9, lock="e" * 64)
    flags = {"jax.enable_x64": False, "XLA_FLAGS": "--xla_a=1"}
    seeds.write_summary("moe", "moe-d", seed=10, numerics=flags)
    seeds.write_summary("moe", "moe-e", seed=11, numerics={"jax.enable_x64": True})
    seeds.write_summary("moe", "moe-f", seed=12, numerics=None)
    result = claims(seeds.root, "moe", "base")
    assert [len(c.variant.runs) for c in result] == [3, 1, 1, 1, 1, 1, 1]
    assert {c.differs for c in result if isinstance(c, Comparison)} == {
        (),
        ("learning_rate 0.01 → 0.02",),
        ("packages (another lock)",),
        ("XLA_FLAGS unset → --xla_a=1",),
        ("jax.enable_x64 False → True",),
        ("flags of JAX and XLA (recorded of one side alone)",),
    }
    assert "settings that differ: jax.enable_x64 False → True" in "".join(map(render, result))


def test_a_setting_that_only_one_side_has_is_named(seeds):
    config = {"steps": 100, "learning_rate": 0.01}
    for seed in range(3):
        ours = {**config, "model": {"window": 64}}
        seeds.write_summary("moe", f"moe-{seed}", seed=seed, bpb=MOE[seed], config=ours)
        theirs = {**config, "model": {"cap": 30.0}}
        seeds.write_summary("base", f"base-{seed}", seed=seed, bpb=2 + seed / 1000, config=theirs)
    result = compared(seeds.root, "moe")
    assert result.differs == (
        "model.cap 30.0 of base, moe has none",
        "model.window 64, base has none",
    )
    assert f"settings that differ: {'; '.join(result.differs)}\n" in render(result)


def test_the_origins_most_alike_group_is_compared(seeds):
    config = {"steps": 100, "learning_rate": 0.02}
    for seed in range(5):
        seeds.write_summary("base", f"base-b{seed}", seed=seed, config=config)
    runs, _ = run_summary.load_all(seeds.root)
    moe = [run for run in runs if run.variant == "moe"]
    base = [run for run in runs if run.variant == "base"]
    (result,) = compare(moe, base)
    assert len(result.origin.runs) == 3 and result.differs == ()
    assert [len(group.runs) for group in groups(base)] == [5, 3]


def test_the_order_of_runs_changes_nothing(seeds):
    runs, _ = run_summary.load_all(seeds.root)
    before = list(map(render, compare(runs, runs)))
    random.Random(0).shuffle(runs)
    assert list(map(render, compare(runs, runs))) == before


def test_the_command(seeds, capsys):
    arguments = ["moe", "--against", "base", "--root", str(seeds.root)]
    assert command.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "moe (moe-0, moe-1, moe-2; sources aaaaaaaaaaaa)",
        "  against base (base-0, base-1, base-2; sources aaaaaaaaaaaa)",
        "  which is base as of cccccccccccc, from which it was copied",
    ]
    assert lines[3].startswith("  equal tokens (10K tokens): moe is better by 0.1000 bits ")
    assert [line.split("(")[0] for line in lines if line.startswith("  e")] == [
        "  equal tokens ",
        "  equal FLOPs ",
        "  equal time ",
    ]


@pytest.mark.parametrize(
    "name, against, message",
    [
        ("mo", "base", "no experiment is called 'mo'; did you mean 'moe'?"),
        ("moe", "nothing", "no experiment is called 'nothing'; known: base, moe"),
        ("moe", "moe", "is no other than itself"),
        ("moe", "base", "has no run of moe; record one: ./pants run tools/runs:record"),
    ],
)
def test_claims_that_cannot_be_asked_for(workspace, name, against, message):
    with pytest.raises(ToolError) as raised:
        claims(workspace.root, name, against)
    assert message in str(raised.value)


def test_a_malformed_summary_stops_a_claim(seeds):
    seeds.write_summary("base", "base-9", curve=[])
    with pytest.raises(ToolError, match="base-9.json:27: curve: is malformed"):
        claims(seeds.root, "moe", "base")


def test_amounts_and_p_values():
    assert [amount("tokens", x) for x in (10, 2048, 2.6624e6, 3e9)] == [
        "10 tokens",
        "2.05K tokens",
        "2.66M tokens",
        "3B tokens",
    ]
    assert [amount("FLOPs", x) for x in (999, 1.02e13, 999.6e9, 3e18)] == [
        "999 FLOP",
        "10.2 TFLOP",
        "1 TFLOP",
        "3 EFLOP",
    ]
    assert (amount("time", 61), amount("time", 7260)) == ("1 min 1 s", "2 h 1 min")
    assert (p_value(0.0421), p_value(1e-9)) == ("p = 0.042", "p < 0.0001")
