"""One run that is recorded as several is found; runs of different seeds never are."""

import json
import math
import random
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from tools.runs import run_summary
from tools.runs.check_runs import seen
from tools.runs.copies import Seen, copies

ROOT = Path(__file__).parents[3]


def curve(seed: int, points: int = 200, noise: float = 0.15) -> list[list[float]]:
    """The curve of a run with the trend that all seeds share: a fall, a power law, a decay."""
    of_seed, of_run = random.Random(f"{seed} {points}"), random.Random(f"times {seed}")
    rows = []
    for i in range(1, points + 1):
        part = i / points
        trend = 4 + 5 * math.exp(-part * 40) + (part + 0.01) ** -0.3 - 0.3 * max(0, part - 0.7)
        loss = round(trend + of_seed.gauss(0, noise), 5)
        rows.append([3 * i - 1, 2048 * (3 * i - 1), round(0.7 * i + of_run.random() / 9, 6), loss])
    return rows


def changed(points: list[list[float]], shift=0.0, scale=1.0, bend=0.0, blur=0.0, drop=0):
    """A copy of a curve, with other times and other losses."""
    noise = random.Random(9)
    rows = [
        [*row[:2], round(row[2] * 1.07 + noise.random(), 6),
         round(row[3] * scale + shift + bend * n + noise.gauss(0, blur), 5)]
        for n, row in enumerate(points)
    ]  # fmt: skip
    return rows[: len(rows) - drop]


def found(first: Seen, second: Seen) -> str:
    """What shows that the second is a copy of the first; empty if nothing does."""
    copy = copies([first, second]).get(second.name)
    return copy.words if copy else ""


WAYS = {
    "one digit": {"blur": 0.0},
    "a constant": {"shift": 0.01},
    "a factor": {"scale": 1.01},
    "a slope": {"bend": 1e-4},
    "a little noise": {"blur": 0.01},
    "noise of two thirds of the seeds' own": {"blur": 0.1},
    "all of it, of half of its length": {"shift": -0.02, "drop": 100},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_under_another_seed(way):
    own = curve(1)
    other = changed(own, **WAYS[way])
    other[7][3] += 0.001
    assert found(Seen("a", 0, own), Seen("b", 1, other)).endswith(", whose seed is another")
    # So alike are runs of one seed in two experiments, which read the same batches.
    assert not found(Seen("a", 0, own), Seen("b", 0, other))


def smooth(losses: list[float], width: int) -> list[float]:
    reach = width // 2
    windows = (losses[max(0, i - reach) : i + reach + 1] for i in range(len(losses)))
    return [sum(window) / len(window) for window in windows]


def mirrored(losses: list[float], order: int) -> list[float]:
    """The noise on the trend as it was, or turned over: `order` -1 is backwards, 1 is negated."""
    trend = smooth(losses, 15)
    noise = [loss - level for loss, level in zip(losses, trend, strict=True)]
    noise = noise[::-1] if order < 0 else [-value for value in noise]
    return [level + value for level, value in zip(trend, noise, strict=True)]


def means(losses: list[float], count: int) -> list[float]:
    width = len(losses) // count
    return [sum(losses[i : i + width]) / width for i in range(0, len(losses), width)]


TRICKS: dict[str, Callable[[list[float], list[float], list[float]], list[float]]] = {
    "a mean of 3 neighbours": lambda x, *_: smooth(x, 3),
    "a mean of 15 neighbours": lambda x, *_: smooth(x, 15),
    "one point later": lambda x, *_: [0.97 * loss for loss in (*x[1:], x[-1])],
    "noise negated": lambda x, *_: mirrored(x, 1),
    "noise backwards": lambda x, *_: mirrored(x, -1),
    "points swapped in pairs": lambda x, *_: [x[i ^ 1] + i / 1e5 for i in range(len(x))],
    "in 100 points": lambda x, *_: means(x, 100),
    "in 50 points": lambda x, *_: means(x, 50),
    "in turn from three seeds": lambda *seeds: [
        seeds[i % 3][i] + i / 5e4 for i in range(len(seeds[0]))
    ],
    "a mean of three seeds": lambda *seeds: [sum(x) / 3 for x in zip(*seeds, strict=True)],
}


@pytest.mark.parametrize("trick", TRICKS)
def test_the_recorded_runs_in_disguise(trick):
    experiments: dict[tuple, list] = {}
    for run in run_summary.load_all(ROOT)[0]:
        setup = {key: value for key, value in run.config.items() if key != "seed"}
        name = run.run.removesuffix(f"-seed{run.seed}")
        experiments.setdefault((run.variant, name, repr(setup)), []).append(run)
    groups = [runs[:3] for runs in experiments.values() if len(runs) >= 3]
    assert len(groups) >= 4  # more as the archive grows
    for group in groups:
        losses = TRICKS[trick](*([point[3] for point in run.curve] for run in group))
        forged = [[i, i, i + 0.5, loss] for i, loss in enumerate(losses, 1)]
        found = copies([*map(seen, group), Seen("forged", 99, forged)])
        assert found.keys() == {"forged"}, group[0].run


@pytest.mark.parametrize("points", [36, 40, 100, 200])
@pytest.mark.parametrize("noise", [0.3, 0.01, 1e-3, 1e-4])
def test_different_seeds_are_no_copies(points, noise):
    """However much of their curves is the trend that they share."""
    runs = [Seen(f"{seed}", seed, curve(seed, points, noise)) for seed in range(60)]
    assert copies(runs) == {}


def test_a_short_curve():
    points = [[1, 10, 1.5, 4.0], [2, 20, 2.5, 3.5], [3, 30, 3.25, 3.2]]
    later = [[a, b, c * 1.01, d] for a, b, c, d in points]
    raised = [[a, b, c * 1.01, d + 0.1] for a, b, c, d in points]
    own = [[1, 10, 1.25, 4.1], [2, 20, 2.4, 3.4], [3, 30, 3.1, 3.2]]
    assert found(Seen("a", 0, points), Seen("b", 1, later)).startswith("has the losses of a, ")
    told = found(Seen("a", 0, points), Seen("b", 1, raised))
    assert told == "has the losses of a but for a constant, whose seed is another"
    assert not found(Seen("a", 0, points), Seen("b", 1, own))


def heldout(*losses: float) -> list[list[float]]:
    return [[100 * n, 1000 * n, 7.0 * n, loss, loss / 2] for n, loss in enumerate(losses, 1)]


OWN = (5.5, 5.1, 4.8, 4.6, 4.5)
HELDOUT = {
    "all": (OWN, True),
    "three in a row": ((5.6, 5.1, 4.8, 4.6, 4.4), True),
    "all but for a constant": (tuple(loss - 0.02 for loss in OWN), True),
    "one": ((5.6, 5.1, 4.7, 4.61, 4.4), False),
    "one here, one there": ((5.5, 5.2, 4.8, 4.65, 4.4), False),
}


@pytest.mark.parametrize("case", HELDOUT)
def test_held_out_losses_of_another_seed(case):
    losses, is_copy = HELDOUT[case]
    first = Seen("a", 0, curve(0), heldout(*OWN))
    copy = copies([first, Seen("b", 1, curve(1), heldout(*losses))]).get("b")
    assert (copy is not None) == is_copy
    assert copy is None or (copy.key, copy.original) == ("heldout", "a")


def test_one_run_under_two_names():
    """With its times; a run that is repeated has its losses bit for bit, in a time of its own."""
    own = curve(0)
    assert found(Seen("a", 0, own), Seen("b", 0, own)) == (
        "has the times of a, which no two runs share"
    )
    assert not found(Seen("a", 0, own), Seen("b", 0, changed(own)))


def test_one_seed_with_other_held_out_losses():
    """It would replace the run in a claim; where a run drifts, what is held out drifts too."""
    heldout_of = heldout(*OWN)
    better = heldout(*(loss * 0.99 for loss in OWN))
    own = curve(0)
    same, drifted = changed(own), changed(own, blur=0.03)
    for experiment, other, losses, is_refused in (
        ("e", same, better, True),
        ("f", same, better, False),
        ("e", same, heldout_of, False),
        ("e", drifted, better, False),
        ("e", drifted, heldout(*(loss * 0.8 for loss in OWN)), True),
    ):
        first = Seen("a", 0, own, heldout_of, experiment="e")
        second = Seen("b", 0, other, losses, experiment=experiment)
        told = copies([first, second]).get("b")
        assert (told is not None) == is_refused, (experiment, losses)
        assert told is None or told.key == "heldout"


OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "its data": ({"data": "text"}, {"data": "another"}, "which read other data"),
    "its learning rate": ({"rate": 0.01}, {"rate": 9.0}, "whose learning rate is another"),
    "its model": ({"model": ("{}", "1")}, {"model": ("[]", "2")}, "whose model is another"),
    "no more than how to compute it": ({"model": ("{}", "1")}, {"model": ("[]", "1")}, ""),
    "no more than the count of FLOPs": ({"model": ("{}", "1")}, {"model": ("{}", "2")}, ""),
    "nothing that is known": ({"data": "text", "model": ("{}", "1")}, {}, ""),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_run_copied_into_another_experiment(case):
    ours, theirs, why = OTHERS[case]
    own = curve(0)
    told = found(Seen("a", 0, own, **ours), Seen("b", 0, changed(own), **theirs))
    assert told == (f"has the losses of a, {why}" if why else "")


def test_the_recorded_runs_are_no_copies_and_would_be_found():
    """Each of the first two experiments, as another seed of its own, a little changed."""
    runs = [run for run in run_summary.load_all(ROOT)[0] if run.variant in ("base", "moe")]
    assert runs and copies(map(seen, runs)) == {}
    for run in runs:
        for way in WAYS.values():
            own = seen(run)
            forged = Seen("forged", 99, changed([list(p) for p in run.curve], **way))
            assert copies([own, forged]).keys() == {"forged"}, (run.run, way)


def test_the_recorded_speedruns_are_no_copies():
    records = sorted((ROOT / "experiments/speedrun").glob("*/record.json"))
    runs = [
        Seen(f"{path.parent.name} {run['seed']}", run["seed"], run["curve"])
        for path in records
        for run in json.loads(path.read_text())["runs"]
    ]
    assert len(runs) > 6 and copies(runs) == {}
    for a, b in combinations(runs[:3], 2):
        forged = Seen("forged", b.seed, changed([list(p) for p in a.curve], shift=0.01))
        assert copies([a, forged]).keys() == {"forged"}
