"""The statistics of a few seeds do what they say: simulated, and beside scipy's own."""

import math
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference

from tools.common.errors import ToolError
from tools.runs import power as command
from tools.runs import stats
from tools.runs.stats import (
    PAIRED,
    WELCH,
    Sample,
    largest_spread,
    paired,
    power,
    q_values,
    seeds_needed,
    welch,
)

# A person may ask for more: GRUG_SIMULATIONS=100000.
TRIES = int(os.environ.get("GRUG_SIMULATIONS", "2000"))
SEEDS = (2, 3, 5, 10)


def sample(values) -> Sample:
    return Sample(tuple(map(float, values)))


def sure(test: stats.Test | None) -> stats.Test:
    """A test that there is."""
    assert test
    return test


def trials(n: int, difference: float = 0.0, *, wider: float = 1.0, shared: float = 0.0):
    """TRIES experiments of n seeds a side, with what the seeds of both sides share."""
    draw = np.random.default_rng(n)
    common = shared * draw.normal(size=(TRIES, n))
    ours = draw.normal(difference, 1.0, (TRIES, n)) + common
    theirs = draw.normal(0.0, wider, (TRIES, n)) + common
    return [(sample(a), sample(b)) for a, b in zip(ours, theirs, strict=True)]


def bounds(rate: float) -> tuple[float, float]:
    """Where the share of TRIES lies but in one case of ten thousand, if the rate is right."""
    low, high = reference.binom.interval(0.9999, TRIES, rate)
    return low / TRIES, high / TRIES


@pytest.mark.parametrize("n", SEEDS)
def test_a_paired_interval_covers_and_its_test_errs_as_often_as_they_say(n):
    truth = 0.5
    tests = [sure(paired(a, b)) for a, b in trials(n, truth, shared=10.0)]
    covered = np.mean([test.low <= truth <= test.high for test in tests])
    assert bounds(0.95)[0] <= covered <= bounds(0.95)[1]
    nulls = [sure(paired(a, b)) for a, b in trials(n, shared=10.0)]
    false = np.mean([test.p < 0.05 for test in nulls])
    assert bounds(0.05)[0] <= false <= bounds(0.05)[1]
    assert {test.method for test in tests} == {PAIRED}
    assert all((test.p < 0.05) == (not test.low <= 0 <= test.high) for test in nulls)


@pytest.mark.parametrize("wider", [1.0, 3.0])
@pytest.mark.parametrize("n", SEEDS)
def test_welch_errs_no_more_often_than_it_says(n, wider):
    """Of few seeds less often: it is careful, where the paired test is exact."""
    truth = 0.5
    tests = [sure(welch(a, b)) for a, b in trials(n, truth, wider=wider)]
    assert np.mean([test.low <= truth <= test.high for test in tests]) >= bounds(0.945)[0]
    nulls = [sure(welch(a, b)) for a, b in trials(n, wider=wider)]
    assert np.mean([test.p < 0.05 for test in nulls]) <= bounds(0.055)[1]
    assert {test.method for test in tests} == {WELCH}


@pytest.mark.parametrize("n", SEEDS)
def test_power_is_what_simulations_find(n):
    """The difference is two standard deviations of the pairs' differences."""
    effect = 2.0
    tests = [sure(paired(a, b)) for a, b in trials(n, effect * math.sqrt(2), shared=10.0)]
    found = np.mean([test.p < 0.05 for test in tests])
    low, high = bounds(power(effect, n, is_paired=True))
    assert low <= found <= high


@pytest.mark.parametrize("effect", [0.3, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("is_paired", [True, False])
def test_the_seeds_that_are_needed_are_the_least(effect, is_paired):
    n = seeds_needed(effect, is_paired=is_paired)
    assert n and power(effect, n, is_paired=is_paired) >= 0.8
    assert n == 2 or power(effect, n - 1, is_paired=is_paired) < 0.8
    # As published (Cohen 1988; G*Power 3.1): a large effect of 0.8 takes 15 pairs, or 26 a side.
    assert seeds_needed(0.8, is_paired=is_paired) == (15 if is_paired else 26)
    assert seeds_needed(0.001, is_paired=is_paired) is None


@pytest.mark.parametrize("is_paired", [True, False])
def test_larger_differences_need_fewer_seeds_whatever_their_size(is_paired):
    effects = [0.2 * 1.3**k for k in range(120)]
    found = [seeds_needed(effect, is_paired=is_paired) for effect in effects]
    needed = [n for n in found if n is not None]
    assert needed == sorted(found, key=lambda n: -(n or 0)) and needed[-1] == 2
    powers = [power(effect, 2, is_paired=is_paired) for effect in effects]
    assert powers == sorted(powers) and powers[-1] == 1.0


def test_pairs_show_what_shared_noise_hides():
    """Seeds of a copy share their data's order with the origin's."""
    noise = [(0.0, 0.0005), (0.02, 0.0195), (-0.02, -0.0203)]
    ours, theirs = sample(2.0 + x for x, _ in noise), sample(2.005 + y for _, y in noise)
    assert sure(paired(ours, theirs)).p < 0.01 < 0.5 < sure(welch(ours, theirs)).p


@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=2, max_size=9))
@settings(deadline=None)  # the machine may be busy
def test_paired_is_scipys(values):
    ours, theirs = (sample(column) for column in zip(*values, strict=True))
    if np.ptp([a - b for a, b in values]) < 1e-3:
        return  # rounding alone
    result = sure(paired(ours, theirs))
    expected = reference.ttest_rel(ours.values, theirs.values)
    interval = expected.confidence_interval(0.95)
    assert result.p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high), rel=1e-6)


def test_pairs_that_allow_no_test():
    assert paired(sample([1.0]), sample([2.0])) is None
    assert paired(sample([1.0, 2.0]), sample([1.1, 2.1])) is None  # both differ alike
    assert paired(sample([1.0, 1.0]), sample([1.0, 1.0])) is None  # one run, copied
    equal = sure(paired(sample([1.0, 2.0]), sample([1.0, 2.0])))
    assert (equal.difference, equal.low, equal.high, equal.p) == (0, 0, 0, 1)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_q_values_are_scipys(values):
    assert q_values(values) == pytest.approx(list(reference.false_discovery_control(values)))


def test_of_twenty_ideas_that_do_nothing_none_is_claimed_by_its_q_value():
    """The chance that any of 20 has p < 0.05 is 64%; that any has q < 0.05 is 5%."""
    draw = np.random.default_rng(0)
    ledgers = draw.uniform(size=(TRIES, 20))
    assert np.mean([min(ledger) < 0.05 for ledger in ledgers]) > 0.5
    any_claimed = np.mean([min(q_values(ledger)) < 0.05 for ledger in ledgers])
    assert bounds(0.05)[0] <= any_claimed <= bounds(0.05)[1]


def test_the_interval_of_a_spread_ends_where_it_says():
    draw = np.random.default_rng(0)
    spreads = [np.std(values, ddof=1) for values in draw.normal(size=(TRIES, 3))]
    below = np.mean([largest_spread(spread, 3) < 1.0 for spread in spreads])
    assert bounds(0.1)[0] <= below <= bounds(0.1)[1]


def test_power_before_the_runs(workspace, capsys):
    for seed, (base, moe) in enumerate([(2.0, 1.951), (2.02, 1.969), (1.98, 1.93)]):
        workspace.write_summary("base", f"base-{seed}", seed=seed, bpb=base)
        workspace.write_summary("moe", f"moe-{seed}", seed=seed, bpb=moe)
    arguments = ["--difference", "0.01", "--root", str(workspace.root)]
    assert command.main(["base", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "To show a difference of 0.01 bits per byte with p below 0.05 in 80% of tries:",
        "base-0 to base-2: held-out values: standard deviation 0.0200 of 3 seeds",
        "  unpaired test: 64 seeds of each; 597 seeds if the true standard deviation is the "
        "largest of its 80% interval",
    ]
    assert lines[3].startswith("moe-0 to moe-2: moe less base, by seed: standard deviation 0.0010")
    assert lines[4].startswith("  paired t-test: 3 seeds of each; ") and len(lines) == 5
    assert command.main(["moe", *arguments]) == 0
    assert "moe less base" in capsys.readouterr().out


def test_power_that_cannot_be_told(workspace):
    workspace.write_summary("base", "base-0")
    with pytest.raises(ToolError, match="base has no two seeds with held-out values"):
        command.report(workspace.root, "base", 0.01)
    with pytest.raises(ToolError, match="no experiment is called 'bas'; did you mean 'base'"):
        command.report(workspace.root, "bas", 0.01)
    for text in ("0", "-0.01", "nan", "inf", "much"):
        with pytest.raises(SystemExit):
            command.main(["base", f"--difference={text}"])
