from tests.benchmarks.table import Measurement, markdown, summarize


def measurement(name: str, *seconds: float) -> Measurement:
    return Measurement(name, seconds, seconds, 3 * 2**20, {})


def test_a_ratio_is_the_median_of_the_ratios_of_each_round():
    # The machine slows down tenfold in the last round, for both.
    ours = measurement("ours", 1.0, 1.0, 10.0)
    peer = measurement("peer", 2.0, 3.0, 20.0)
    rows = summarize(ours, [peer], tokens_per_step=100, steps_per_round=2)
    assert [row.name for row in rows] == ["ours", "peer"]
    assert [row.ratio for row in rows] == [1.0, 2.0]
    assert [row.tokens_per_second for row in rows] == [200.0, 200 / 3]
    assert (rows[0].slowest, rows[0].fastest) == (20.0, 200.0)
    assert [row.milliseconds for row in rows] == [500.0, 1500.0]


def test_markdown():
    ours, peer = measurement("ours", 0.1), measurement("peer", 0.15)
    rows = summarize(ours, [peer], tokens_per_step=400, steps_per_round=1)
    assert markdown(rows).splitlines()[2:] == [
        "| ours | 4,000 (4,000–4,000) | 1 | 3 MiB | 100 |",
        "| peer | 2,667 (2,667–2,667) | 1.50 | 3 MiB | 150 |",
    ]
