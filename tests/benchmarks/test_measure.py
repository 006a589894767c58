import dataclasses
import json
import time

import numpy as np
import pytest

from tests.benchmarks.measure import (
    Aim,
    BenchmarkError,
    Report,
    Series,
    Spread,
    Table,
    advantage,
    against_best,
    best_peer,
    interleave,
    number,
    spread,
)


def table(better="more", **values: tuple[float, ...]) -> Table:
    return Table("t", "u", better, tuple(Series("c", name, v) for name, v in values.items()))


def test_a_ratio_is_taken_in_each_round():
    # The machine slows down tenfold in the last round, for both.
    ours, peer = table(ours=(8.0, 8.0, 0.8), peer=(4.0, 2.0, 0.4)).series
    assert advantage(ours, peer, "more") == (2.0, 4.0, 2.0)
    assert advantage(ours, peer, "less") == (0.5, 0.25, 0.5)


def test_the_best_peer_is_the_strongest_and_never_ours():
    values = {"ours": (9.0, 1.0), "slow": (2.0, 2.0), "fast": (3.0, 3.0)}
    assert best_peer(table("more", **values), "c").name == "fast"
    assert best_peer(table("less", **values), "c").name == "slow"
    with pytest.raises(BenchmarkError, match="nothing to compare"):
        best_peer(table(ours=(1.0,)), "c")


def test_an_aim_against_the_best_peer():
    aim = against_best(table(ours=(3.0, 3.0), slow=(1.0, 1.0), fast=(2.0, 2.0)), "c", "speed", 1.6)
    assert (aim.found.median, aim.reached, aim.what) == (1.5, False, "speed, against fast")
    assert dataclasses.replace(aim, bound=1.5).reached
    assert dataclasses.replace(aim, kind="at most").reached


def test_the_interval_holds_the_median_and_shrinks_with_agreement():
    wide, narrow = spread([1, 2, 3, 4, 5, 6, 7]), spread([4, 4, 4, 4, 4, 4, 5])
    assert wide.low < wide.median == 4 < wide.high and wide.low >= 1 and wide.high <= 7
    assert narrow.high - narrow.low < wide.high - wide.low
    assert spread([3.0]) == Spread(3.0, 3.0, 3.0)


def test_the_same_values_give_the_same_interval():
    samples = np.random.default_rng(1).random((50, 8)).tolist()
    assert [spread(values) for values in samples] == [spread(values) for values in samples]


def test_rounds_ask_all_and_begin_with_another():
    asked = []

    def contestant(name: str):
        return lambda: asked.append(name) or len(asked)

    found = interleave({n: contestant(n) for n in "abc"}, 2, pause=0)
    assert "".join(asked) == "abcbca"
    assert found == {"a": (1, 6), "b": (2, 4), "c": (3, 5)}


def test_no_round_begins_that_would_end_too_late():
    slow = {"a": lambda: time.sleep(0.2) or 1.0}
    assert len(interleave(slow, 50, pause=0, until=time.monotonic() + 1)["a"]) in range(2, 6)
    assert len(interleave(slow, 50, pause=0, until=0)["a"]) == 1


def test_numbers_keep_three_digits():
    shown = [number(x) for x in (0, 12345.6, 123.4, 12.34, 1.234, 0.1234, 0.01234)]
    assert shown == ["0", "12,346", "123", "12.3", "1.23", "0.12", "0.012"]


def report() -> Report:
    return Report(
        benchmark="step",
        date="2026-01-02",
        commit="abc",
        machine={"cpu": "C", "cores": 2, "memory_gib": 8, "kernel": "Linux 6"},
        load=0.25,
        versions={"jax": "1"},
        options={"rounds": 2},
        tables=(table(ours=(1.0, 2.0), peer=(2.0, 2.0)),),
        aims=(Aim("speed", Spread(0.75, 0.5, 1.0), "at least", 1.2),),
        missing={"other": "why"},
    )


def test_a_report_survives_its_json(tmp_path):
    path = tmp_path / "step.json"
    path.write_text(report().to_json())
    assert Report.read(path) == report()


def test_a_report_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "step.json"
    report().write(path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        dataclasses.replace(report(), load=float("nan")).write(path)
    assert Report.read(path) == report() and [path] == list(path.parent.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "no report"),
        ("{}", "no report"),
        ("[1]", "no report"),
        (json.dumps({"schema_version": 9}), "schema 9"),
        (json.dumps({"schema_version": 1, "tables": [{}], "aims": []}), "no report"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "step.json"
    path.write_text(content)
    with pytest.raises(BenchmarkError, match=message):
        Report.read(path)
