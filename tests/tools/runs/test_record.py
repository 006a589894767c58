"""A run directory becomes a summary, or one line says why not."""

import json
import math
import shutil
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tools.runs.conftest import COMMIT, DIGEST, HOST, OTHER, SOURCES, entry, row, rows
from tools.common.errors import ToolError
from tools.runs import record as command
from tools.runs import run_summary
from tools.runs.kept_sources import digest_of, sha256
from tools.runs.record import pick, record
from tools.runs.stats import thin

RAN = digest_of({name: sha256(text.encode()) for name, text in SOURCES.items()})


def refusal(workspace, *directories, **options):
    """The message of a refusal, after which nothing was written."""
    with pytest.raises(ToolError) as raised:
        record(directories, workspace.root, **options)
    assert not list((workspace.root / "docs/reports").rglob("*.json"))
    return str(raised.value)


def test_a_summary_holds_the_run(workspace):
    run = workspace.write_run("base-1", rows(1000, every=300))
    path, kept, ledger = record([run], workspace.root)
    assert path == "docs/reports/runs/base/base-1.json"
    assert (kept, ledger) == (f"docs/reports/sources/{RAN[:16]}", "docs/reports/grug-archive.md")
    data = (workspace.root / path).read_bytes()
    result = run_summary.load(workspace.root / path, path)
    assert len(data) < run_summary.MAX_BYTES and result.path == path
    assert (result.variant, result.run, result.seed, result.steps) == ("base", "base-1", 0, 1000)
    assert (result.tokens, result.tokens_per_second) == (500_000, 1000.0)
    # The first step compiled for 10 s: it counts as long as the median one.
    assert result.seconds == pytest.approx(500.0, rel=1e-5)
    assert (result.git, result.lock) == ({"commit": COMMIT, "dirty": True}, DIGEST)
    assert (result.data_digest, result.sources_digest) == (OTHER, RAN)
    assert result.versions == {"jax": "0.10.2", "python": "3.11.7"}
    assert result.final["train_loss"] == pytest.approx(4.0, abs=0.02)
    assert (result.final["heldout_bpb"], result.final["ema_bpb"]) == (2.0, None)
    assert [point[0] for point in result.heldout] == [300, 600, 900, 1000]
    assert result.heldout_targets == 1000
    assert len(result.curve) == run_summary.MAX_POINTS


def test_only_evaluations_over_the_same_targets_are_one_curve(workspace):
    """A resumed run may have read more."""
    lines = rows(100)
    lines[-1] |= {"eval/targets": 5000, "eval/ends": 60}
    path, *_ = record([workspace.write_run("base-1", lines)], workspace.root)
    result = run_summary.load(workspace.root / path, path)
    assert ([point[0] for point in result.heldout], result.heldout_targets) == ([100], 5000)
    assert result.heldout_ends == 60


def test_a_skipped_update_without_a_loss_has_the_one_before(workspace):
    lines = rows(100)
    del lines[50]["train/loss"]
    lines[50]["train/skipped"] = 1.0
    path, *_ = record([workspace.write_run("base-1", lines)], workspace.root)
    curve = run_summary.load(workspace.root / path, path).curve
    assert curve[50][3] == pytest.approx(curve[49][3])
    del lines[50]["train/skipped"]
    with pytest.raises(ToolError, match="lacks 'train/loss'"):
        record([workspace.write_run("base-2", lines)], workspace.root)


def test_a_summary_names_no_machine_and_no_person(workspace):
    run = workspace.write_run("base-1", rows(10), config={"note": "~/x", "list": ["/a", "b"]})
    path, *_ = record([run], workspace.root)
    text = (workspace.root / path).read_text()
    assert not any(word in text for word in ("someone", "/home", "~", "gs://", str(workspace.root)))
    assert json.loads(text)["config"]["list"] == ["b"]


def test_the_same_run_gives_the_same_bytes(workspace, tmp_path_factory):
    run = workspace.write_run("base-1", rows(500))
    path, *_ = record([run], workspace.root)
    first = (workspace.root / path).read_bytes()
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "base-1"
    run.rename(elsewhere)
    record([elsewhere], workspace.root)
    assert (workspace.root / path).read_bytes() == first


def test_norms_of_layers_are_not_recorded(workspace):
    """They would be most of a summary."""
    lines = rows(100)
    run = workspace.write_run("base-1", lines)
    path, *_ = record([run], workspace.root)
    plain = (workspace.root / path).read_bytes()
    for line in lines[9::10]:
        for layer in range(40):
            for kind in ("gradient", "weight", "update", "activation"):
                line[f"watch/{kind}/layer_{layer:02d}"] = 1.0 + layer
    shutil.rmtree(run)
    record([workspace.write_run("base-1", lines)], workspace.root, replace=True)
    assert (workspace.root / path).read_bytes() == plain


def test_a_last_line_cut_short_is_left_out(workspace):
    run = workspace.write_run("base-1", rows(10))
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 11, "train/lo')
    record([run], workspace.root)


def test_an_ema_is_recorded(workspace):
    lines = rows(10)
    lines[-1] |= {"eval/ema/loss": 3.375, "eval/ema/bpb": 1.5}
    path, *_ = record([workspace.write_run("base-1", lines)], workspace.root)
    final = run_summary.load(workspace.root / path, path).final
    assert (final["ema_loss"], final["ema_bpb"]) == (3.375, 1.5)


def test_a_run_is_recorded_under_the_ledgers_name(workspace):
    workspace.write_ledger(entry("base"), entry("dense", path="experiments/speedrun/2026_dense"))
    run = workspace.write_run("x-1", rows(10), record={"variant": "2026_dense"})
    assert record([run], workspace.root)[0] == "docs/reports/runs/dense/x-1.json"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"record": {"schema_version": 6}}, "schema_version is 6, this tool knows 1, 2, 3, 4, 5"),
        ({"record": {"roles": {"seed": 1}}}, "roles is not what a run writes"),
        ({"record": {"attempts": []}}, "attempts is not what a run writes"),
        ({"record": {"attempts": [{}]}}, "attempts[0].from_step is not what a run writes"),
        ({"record": {"variant": "../x"}}, "variant is not what a run writes"),
        (
            {"record": {"variant": "nobody"}},
            "is a run of 'nobody': add docs/reports/variants/nobody.md",
        ),
        ({"record": {"lock": "x"}}, "lock: is malformed"),
        ({"config": {"seed": "0"}}, "config.seed is not what a run writes"),
        ({"config": {"note": "x" * 5000}}, "config is not what a run writes"),
        ({"config": {"steps": 11}}, "ended at step 10 of 11: go on with --resume, or"),
        ({"earlier": (OTHER,), "starts": (0, 5)}, "ran 2 different sources: run it again"),
    ],
)
def test_a_run_that_is_refused(workspace, options, message):
    assert message in refusal(workspace, workspace.write_run("base-1", rows(10), **options))


def test_what_may_be_recorded_as_it_is(workspace):
    short = workspace.write_run("base-1", rows(10), config={"steps": 11})
    mixed = workspace.write_run("base-2", rows(10), earlier=(OTHER,), starts=(0, 5))
    paths = record([short, mixed], workspace.root, unfinished=True, mixed_sources=True)
    first, second = (run_summary.load(workspace.root / path, path) for path in paths[:2])
    assert (first.steps, first.config["steps"], first.mixed_sources) == (10, 11, False)
    assert (second.sources_digest, second.mixed_sources) == (RAN, True)


def test_a_run_says_which_settings_are_places(workspace):
    config = {"cache": "here", "eval_every": 5}
    roles = {"cache": "place", "eval_every": "cadence", "seed": "replicate"}
    run = workspace.write_run("base-1", rows(10), config=config, record={"roles": roles})
    path, *_ = record([run], workspace.root)
    summary = run_summary.load(workspace.root / path, path)
    assert "cache" not in summary.config
    assert summary.roles == {"eval_every": "cadence", "seed": "replicate"}
    assert summary.experiment().keys() & {"eval_every", "seed", "steps"} == {"steps"}


def write_branch(workspace, name="base-2", **changes):
    """A run of ten steps whose first six are those of base-1, which had another horizon."""
    parent = workspace.write_run("base-1", rows(6), config={"steps": 6})
    attempts = json.loads((parent / "run.json").read_text())["attempts"]
    ancestor = {
        "variant": "base",
        "run": "base-1",
        "step": 6,
        "digest": OTHER,
        "horizon": {"steps": 6, "final": "/home/someone"},
        "attempts": attempts,
    } | changes
    settings = {"schema": 5, "starts": (6,), "record": {"ancestors": [ancestor]}}
    return workspace.write_run(name, rows(10)[6:], config={"steps": 10}, **settings)


def test_a_branch_says_where_it_comes_from(workspace):
    """Its steps and tokens count from step 0, which the model has behind it, its seconds do not."""
    path, *_, ledger = record([write_branch(workspace)], workspace.root)
    text = (workspace.root / path).read_text()
    assert "someone" not in text and "/home" not in text
    summary = run_summary.load(workspace.root / path, path)
    expected = {"run": "base-1", "step": 6, "digest": OTHER, "horizon": {"steps": 6}}
    assert (summary.ancestors, summary.run_schema, summary.mixed_sources) == ([expected], 5, False)
    assert (summary.steps, summary.tokens) == (10, 5000)
    assert [point[0] for point in summary.curve] == [7, 8, 9, 10]
    assert summary.seconds == pytest.approx(4 * 0.5, rel=0.01)
    assert summary.experiment()["until step 6"] == "steps 6"
    assert "10 steps, 5K tokens, seed 0, branched off at step 6" in " ".join(
        (workspace.root / ledger).read_text().split()
    )


def test_a_branch_of_other_sources_is_mixed(workspace):
    parent = workspace.write_run("other", rows(6), sources={"model.py": "WIDTH = 9\n"})
    attempts = json.loads((parent / "run.json").read_text())["attempts"]
    branch = write_branch(workspace, attempts=attempts)
    assert "ran 2 different sources: run it again" in refusal(workspace, branch)
    path, *_ = record([branch], workspace.root, mixed_sources=True)
    assert run_summary.load(workspace.root / path, path).mixed_sources


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"digest": None}, "ancestors[0].digest is not what a run writes"),
        ({"variant": "moe"}, "ancestors[0].variant is not what a run writes"),
        ({"attempts": []}, "ancestors[0].attempts is not what a run writes"),
        ({"attempts": [{"from_step": 0}]}, "ancestors[0].attempts[0].sources_digest is not what"),
        ({"run": "/home/someone/base-1"}, "ancestors: is malformed"),
        ({"step": 8}, "ancestors: end at step 8, but the curve begins at step 7"),
    ],
)
def test_a_branch_that_is_refused(workspace, changes, message):
    assert message in refusal(workspace, write_branch(workspace, **changes))


def test_a_run_of_the_first_schema_is_read_as_before(workspace):
    config = {"wandb": True, "eval_every": 5, "resume": False}
    run = workspace.write_run("base-1", rows(10), config=config, record={"roles": None}, schema=1)
    path, *_ = record([run], workspace.root)
    summary = run_summary.load(workspace.root / path, path)
    assert summary.config.keys() & {"wandb", "resume", "data", "eval_every"} == {"eval_every"}
    assert summary.roles == run_summary.OLD_ROLES


@pytest.mark.parametrize(
    "line, message",
    [
        ({"train/loss": math.nan}, "metrics.jsonl:5: is no usable JSON: NaN is not finite"),
        ({"eval/loss": math.inf}, "metrics.jsonl:5: is no usable JSON: Infinity is not finite"),
        ({"train/loss": 1e300}, "metrics.jsonl:5: 'train/loss' is beyond any measure"),
        ({"train/loss": "4"}, "metrics.jsonl:5: 'train/loss' is no number"),
        ({"step": 3}, "metrics.jsonl:5: step 3 does not follow the one before"),
        ({"step": 5.5}, "metrics.jsonl:5: step 5.5 does not follow the one before"),
    ],
)
def test_a_line_that_is_refused(workspace, line, message):
    lines = rows(10)
    lines[4] |= line
    assert message in refusal(workspace, workspace.write_run("base-1", lines))


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "has no line: the run has not made a step"),
        ("[1]\n", "metrics.jsonl:1: is no object of metrics"),
        ("{}\n", "metrics.jsonl:1: lacks 'step'"),
        ('{"step": 1e999}\n', "metrics.jsonl:1: is no usable JSON: 1e999 is not finite"),
        ("{\n", "metrics.jsonl:1: is no JSON"),
        ("x" * 100_000, "metrics.jsonl:1: more than a run writes"),
    ],
)
def test_metrics_that_are_refused(workspace, text, message):
    run = workspace.write_run("base-1", rows(10))
    (run / "metrics.jsonl").write_text(text)
    assert message in refusal(workspace, run)


def test_a_directory_that_is_no_run(workspace):
    (workspace.root / "empty").mkdir()
    assert "run.json: is not there: give the directory of a run" in refusal(
        workspace, workspace.root / "empty"
    )
    odd = workspace.write_run("two words", rows(10))
    assert "'two words' cannot name a summary" in refusal(workspace, odd)
    assert "cannot name a summary" in refusal(workspace, workspace.write_run("..x", rows(10)))


def test_all_or_none(workspace):
    good = workspace.write_run("base-1", rows(10))
    bad = workspace.write_run("base-2", rows(10), config={"steps": 11})
    worse = workspace.write_run("base-3", rows(10), record={"schema_version": 0})
    assert len(refusal(workspace, good, bad, worse).splitlines()) == 2
    twin = workspace.write_run("other/base-1", rows(20))
    assert "is also another's: rename the directory" in refusal(workspace, good, twin)


def test_one_run_under_another_seed_is_refused(workspace):
    record([workspace.write_run("base-1", rows(10))], workspace.root)
    copy = workspace.write_run("base-2", rows(10), config={"seed": 1})
    (copy / "metrics.jsonl").write_bytes(
        (workspace.root / "runs/base-1/metrics.jsonl").read_bytes()
    )
    with pytest.raises(ToolError, match="base-2.json: has the losses of .*base-1.json, whose seed"):
        record([copy], workspace.root)
    assert not (workspace.root / "docs/reports/runs/base/base-2.json").exists()
    again = workspace.write_run("base-3", rows(10))
    record([again], workspace.root)  # a seed run twice gives the same losses


def test_another_run_of_that_name_is_kept(workspace):
    path, *_ = record([workspace.write_run("base-1", rows(10))], workspace.root)
    before = (workspace.root / path).read_bytes()
    other = workspace.write_run("again/base-1", rows(20))
    with pytest.raises(ToolError, match="holds another run: rename the run's directory, or"):
        record([other], workspace.root)
    assert (workspace.root / path).read_bytes() == before
    record([other], workspace.root, replace=True)
    assert (workspace.root / path).read_bytes() != before


def test_the_command_line(workspace, capsys):
    run = workspace.write_run("base-1", rows(10))
    assert command.main([str(run), "--root", str(workspace.root)]) == 0
    assert capsys.readouterr().out.startswith("docs/reports/runs/base/base-1.json\n")
    with pytest.raises(SystemExit) as ended:
        command.main(["--root", str(workspace.root)])
    assert ended.value.code == 2


def test_many_evaluations_and_long_numbers_fit(workspace):
    lines = [
        row(
            step * 997,
            **{"throughput/total_tokens": 123_456_789.0 * step, "throughput/step_time": 12.345678},
            **{"throughput/tokens_per_second": 123_456_789 / 12.345678},
            **{"train/loss": math.pi + 1 / step, "eval/loss": math.e, "eval/bpb": math.tau},
        )
        for step in range(1, 3001)
    ]
    run = workspace.write_run("base-1", lines, config={"steps": lines[-1]["step"]})
    path, *_ = record([run], workspace.root)
    result = run_summary.load(workspace.root / path, path)
    assert result.heldout[0][0] == 997 and result.heldout[-1][0] == result.steps


numbers = st.floats(-1e6, 1e6)


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=700), st.integers(1, 200))
def test_thinning(points, most):
    result = thin(points, most)
    assert len(result) == min(most, len(points))
    if len(points) <= most:
        assert result == [list(point) for point in points]
    for column in range(2):
        before, after = [p[column] for p in points], [p[column] for p in result]
        assert min(before) - 1e-6 <= min(after) and max(after) <= max(before) + 1e-6
    # Each point stands for as many as any other, give or take one.
    sizes = [len(points) * (i + 1) // len(result) - len(points) * i // len(result)
             for i in range(len(result))]  # fmt: skip
    assert max(sizes) - min(sizes) <= 1 and sum(sizes) == len(points)
    weighted = sum(size * point[1] for size, point in zip(sizes, result, strict=True))
    assert weighted / len(points) == pytest.approx(fmean(p[1] for p in points), abs=1e-3)


@settings(deadline=None)  # the machine may be busy
@given(st.integers(1, 500), st.integers(2, 60))
def test_picking_keeps_both_ends(count, most):
    result = pick(range(count), most)
    assert result == sorted(set(result)) and len(result) == min(count, most)
    assert (result[0], result[-1]) == (0, count - 1)


def test_an_attempt_counts_by_the_steps_it_made(workspace):
    """A start that crashed in its first step, one whose steps were made again, and a last look."""
    run = workspace.write_run(
        "base-1", rows(10), earlier=(OTHER, "d" * 64, "e" * 64), starts=(0, 7, 5, 0)
    )
    path, *_ = record([run], workspace.root)
    assert not run_summary.load(workspace.root / path, path).mixed_sources
    attempts = json.loads((run / "run.json").read_text())["attempts"]
    record_of = run / "run.json"
    looked = json.loads(record_of.read_text())
    looked["attempts"] = [attempts[-1], {**attempts[0], "from_step": 10}]
    record_of.write_text(json.dumps(looked))
    record([run], workspace.root)  # the same summary: else it would be refused
    looked["attempts"] = [{**attempts[-1], "from_step": 10}]
    record_of.write_text(json.dumps(looked))
    with pytest.raises(ToolError, match="no attempt made the steps of metrics.jsonl"):
        record([run], workspace.root)


def numerics(x64: bool = False, /, **environment: str):
    return {"environment": environment, "jax": {"enable_x64": x64}}


NO_MATTER = {
    "JAX_COMPILATION_CACHE_DIR": "/home/someone/cache",
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_X64": "0",  # what JAX made of it is recorded
    "XLA_FLAGS": "--xla_dump_to=/tmp/x --xla_force_host_platform_device_count=8",
}


def test_a_summary_holds_what_changes_the_numbers(workspace):
    flags = "--xla_b=2 --xla_a=1 --xla_b=3 --xla_dump_to=/home/someone"
    seen = numerics(True, **{**NO_MATTER, "XLA_FLAGS": flags, "JAX_NEW": "1"})
    path, *_ = record([workspace.write_run("base-1", rows(10), numerics=(seen,))], workspace.root)
    assert run_summary.load(workspace.root / path, path).numerics == {
        "JAX_NEW": "1",
        "XLA_FLAGS": "--xla_a=1 --xla_b=3",
        "jax.enable_x64": True,
    }
    plain = workspace.write_run("base-2", rows(10), numerics=(numerics(**NO_MATTER),))
    path, *_ = record([plain], workspace.root)
    assert run_summary.load(workspace.root / path, path).numerics == {"jax.enable_x64": False}


def test_steps_made_under_other_flags_are_refused(workspace):
    sources = {"earlier": (RAN,), "starts": (0, 5)}
    mixed = workspace.write_run(
        "base-1", rows(10), numerics=(numerics(), numerics(LIBTPU_INIT_ARGS="--x=1")), **sources
    )
    message = "its steps differ in LIBTPU_INIT_ARGS unset → --x=1: run it again from the start"
    assert message in refusal(workspace, mixed)
    path, *_ = record([mixed], workspace.root, mixed_sources=True)
    assert run_summary.load(workspace.root / path, path).mixed_sources
    alike = workspace.write_run(
        "base-2", rows(10), numerics=(numerics(), numerics(**NO_MATTER)), **sources
    )
    record([alike], workspace.root)


@pytest.mark.parametrize(
    "value",
    [None, {}, {"environment": {"XLA_FLAGS": 1}, "jax": {}}, {"environment": {}, "jax": {"a": []}}],
)
def test_flags_that_no_run_writes(workspace, value):
    run = workspace.write_run("base-1", rows(10), numerics=(value,))
    assert "attempts[0].numerics is not what a run writes" in refusal(workspace, run)


def test_a_summary_tells_the_machine_and_how_evenly_its_steps_ran(workspace):
    lines = rows(101)
    for line, extra in zip(lines[1:], range(100), strict=True):
        line["throughput/step_time"] = 1.0 + extra / 100  # the first compiled
        line["throughput/tokens_per_second"] = 500 / line["throughput/step_time"]
    path, *_ = record([workspace.write_run("base-1", lines)], workspace.root)
    result = run_summary.load(workspace.root / path, path)
    assert result.host == HOST
    assert result.step_time_spread == pytest.approx(0.8 * 0.99 / 1.495, rel=0.01)
    short = workspace.write_run("base-2", rows(10))
    path, *_ = record([short], workspace.root)
    assert run_summary.load(workspace.root / path, path).step_time_spread is None


def test_a_run_that_moved_to_another_machine_tells_none(workspace):
    other = {"processor": "Another", "cores": 2}
    resumed = {"earlier": (RAN,), "starts": (0, 5)}
    moved = workspace.write_run("base-1", rows(10), hosts=(other, HOST), **resumed)
    stayed = workspace.write_run("base-2", rows(10), hosts=(HOST, HOST), **resumed)
    older = workspace.write_run("base-3", rows(10), schema=3)
    hosts = []
    for run in (moved, stayed, older):
        path, *_ = record([run], workspace.root)
        hosts.append(run_summary.load(workspace.root / path, path).host)
    assert hosts == [None, HOST, None]


@pytest.mark.parametrize("host", [None, {}, {"processor": "", "cores": 1}, {**HOST, "cores": 0}])
def test_hosts_that_no_run_writes(workspace, host):
    run = workspace.write_run("base-1", rows(10), hosts=(host,))
    assert "attempts[0].host is not what a run writes" in refusal(workspace, run)
