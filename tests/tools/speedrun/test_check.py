"""Speedruns that are not whole: each way, with its field and its remedy."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from scipy.special import stdtr
from scipy.stats import ttest_1samp

from tests.tools.speedrun.conftest import NAME
from tools.speedrun import __main__ as command
from tools.speedrun.significance import below, student_tail

REPOSITORY = Path(__file__).parents[3]
RECORD = f"experiments/speedrun/{NAME}/record.json"


def only(workspace) -> str:
    (fault,) = command.check(workspace.root)
    return fault


def test_a_whole_entry(workspace, capsys):
    workspace.recorded()
    assert command.check(workspace.root) == []
    assert command.main(["check", "--root", str(workspace.root)]) == 0
    assert capsys.readouterr().out == "experiments/speedrun: 1 speedruns hold\n"


def test_a_workspace_without_speedruns_needs_no_track(tmp_path):
    assert command.check(tmp_path) == []


def test_the_shipped_entries_hold():
    assert command.check(REPOSITORY) == []


@pytest.mark.parametrize("field", ["sources", "runs", "hardware", "author", "software", "track"])
@pytest.mark.parametrize("empty", [False, True])
def test_a_missing_field_is_named(workspace, capsys, field, empty):
    workspace.edit(workspace.recorded(), **{field: {} if empty else None})
    fault = only(workspace)
    assert fault.startswith(f"{RECORD}:") and f": {field}: is missing: write it with" in fault
    assert command.main(["check", "--root", str(workspace.root)]) == 1
    assert capsys.readouterr().err == fault + "\n"


@pytest.mark.parametrize("field", ["cpu", "cores", "memory_bytes", "accelerator"])
def test_a_missing_part_of_the_hardware_is_named(workspace, field):
    path = workspace.recorded()
    hardware = json.loads(path.read_text())["hardware"]
    del hardware[field]
    workspace.edit(path, hardware=hardware)
    assert f": hardware.{field}: is missing" in only(workspace)


def test_a_missing_seed_of_a_run_is_named(workspace):
    path = workspace.recorded()
    runs = json.loads(path.read_text())["runs"]
    del runs[1]["seed"]
    workspace.edit(path, runs=runs)
    assert ": runs[1].seed: is missing" in only(workspace)


def test_too_few_seeds_and_a_seed_twice(workspace):
    path = workspace.recorded()
    runs = json.loads(path.read_text())["runs"]
    workspace.edit(path, runs=runs[:2])
    assert any("have 2 seeds, tiny needs 3" in fault for fault in command.check(workspace.root))
    workspace.edit(path, runs=[*runs, runs[0]])
    assert "runs: have a seed twice" in only(workspace)


@pytest.mark.parametrize("change", ["changed", "added", "removed"])
def test_sources_changed_since_the_runs(workspace, change):
    directory = workspace.recorded().parent
    if change == "added":
        (directory / "table.json").write_text("{}")
    elif change == "changed":
        (directory / "run.py").write_text("print('another')\n")
    else:
        path = directory / "record.json"
        sources = json.loads(path.read_text())["sources"] | {"gone.py": "c" * 64}
        workspace.edit(path, sources=sources)
    file = {"changed": "run.py", "added": "table.json", "removed": "gone.py"}[change]
    assert any(f": sources: {file} was {change}" in f for f in command.check(workspace.root))


def test_text_for_people_and_the_build_is_no_source(workspace):
    directory = workspace.recorded().parent
    (directory / "README.md").write_text("# Another\n")
    (directory / "BUILD").write_text("grug_variant()\n")
    (directory / "__pycache__").mkdir()
    (directory / "__pycache__/run.pyc").write_bytes(b"")
    assert command.check(workspace.root) == []


def test_a_symbolic_link_is_refused(workspace):
    directory = workspace.recorded().parent
    (directory / "model.py").symlink_to(workspace.area / "tracks.json")
    assert "model.py:1: is a symbolic link: copy the file" in only(workspace)


@pytest.mark.parametrize("file", ["run.py", "README.md", "record.json"])
def test_a_missing_file_is_named(workspace, file):
    (workspace.recorded().parent / file).unlink()
    assert f"{NAME}/{file}:1: is missing: " in only(workspace)


@pytest.mark.parametrize("name", ["muon", "2026-13-01_muon", "2026-11-22-muon"])
def test_a_name_without_a_day(workspace, name):
    (workspace.area / name).mkdir()
    assert "rename the directory" in only(workspace)


def test_what_does_not_fit_its_directory_or_track(workspace):
    path = workspace.recorded()
    before = path.read_text()
    for values, message in (
        ({"date": "2026-11-21"}, "date: is '2026-11-21', its directory says '2026-11-22'"),
        ({"entry": "2026-11-22_x"}, "entry: is '2026-11-22_x'"),
        ({"track": "huge"}, "track: 'huge' is not in experiments/speedrun/tracks.json"),
        ({"data_digest": "c" * 64}, "data_digest: is of other text"),
        ({"schema_version": 2}, "schema_version: is 2, this tool knows 1"),
        ({"note": "x"}, "note: is unknown"),
    ):
        workspace.edit(path, **values)
        assert message in only(workspace)
        path.write_text(before)


def test_numbers_that_are_not_of_the_whole_held_out_split(workspace):
    path = workspace.recorded()
    runs = json.loads(path.read_text())["runs"]
    runs[0]["heldout_targets"] -= 1
    workspace.edit(path, runs=runs)
    assert any("runs[0].heldout_targets: is 999" in f for f in command.check(workspace.root))
    runs[0]["heldout_targets"] += 1
    runs[0]["heldout_bpb"] = 1.0
    workspace.edit(path, runs=runs)
    assert "runs[0].heldout_bpb: does not follow from heldout_loss" in only(workspace)


def test_nan_is_no_number(workspace):
    path = workspace.recorded()
    path.write_text(path.read_text().replace('"seconds":100.0', '"seconds":NaN'))
    assert "NaN is not finite" in only(workspace)


def test_the_target_is_reached_only_with_certainty(workspace):
    path = workspace.recorded()
    runs = json.loads(path.read_text())["runs"]
    track = json.loads((workspace.area / "tracks.json").read_text())["tracks"]["tiny"]
    losses = [run["heldout_bpb"] for run in runs]
    for target in (2.3, 2.4021, 2.405, 2.41, 2.5):
        workspace.write_tracks(track | {"target_bpb": target})
        sure = ttest_1samp(losses, target, alternative="less").pvalue <= 0.01
        assert bool(command.check(workspace.root)) != sure, target
    copies = [run | {k: runs[0][k] for k in ("heldout_bpb", "heldout_loss")} for run in runs]
    workspace.edit(path, runs=copies)
    assert "ended with the same loss" in only(workspace)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 30])
def test_the_tail_of_students_t(freedom):
    for t in (-50, -7, -1, 0, 0.5, 4):
        assert student_tail(t, freedom) == pytest.approx(float(stdtr(freedom, t)), abs=1e-12)
    assert below([1.0], 2) is None and below([1.0, 1.0], 2) is None


def test_lint_needs_the_standard_library_alone(workspace):
    workspace.recorded()
    arguments = ["-S", "-m", "tools.speedrun", "check", "--root", str(workspace.root)]
    result = subprocess.run(
        [sys.executable, *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def planted(workspace, seed: int = 1, **values) -> list[str]:
    """The faults of a record in which a run, which has a line of its own, has other values."""
    path = workspace.recorded()
    lines = path.read_text().splitlines()
    number = lines.index('"runs": [') + 1 + seed
    run = json.loads(lines[number].rstrip(","))
    comma = "," if lines[number].endswith(",") else ""
    lines[number] = json.dumps(run | values) + comma
    path.write_text("\n".join(lines))
    place = f"{RECORD}:{number + 1}: runs[{seed}]."
    return [fault.removeprefix(place) for fault in command.check(workspace.root)]


@pytest.mark.parametrize(
    "values, message",
    [
        ({"tokens": 10}, "tokens: is 10, but the curve has 1,000 at step 2: write it with"),
        ({"steps": 9}, "steps: is 9, of 2 that the config plans"),
        ({"seconds": 50.0}, "seconds: is 50, but the curve ends at 101 s"),
        ({"curve": [[2, 500, 1.0, 4.0], [1, 1000, 2.0, 3.0]]}, "curve: is "),
    ],
)
def test_numbers_that_do_not_follow_are_named(workspace, values, message):
    assert any(fault.startswith(message) for fault in planted(workspace, **values))


def test_one_run_recorded_as_several_seeds(workspace):
    path = workspace.recorded()
    runs = json.loads(path.read_text())["runs"]
    workspace.edit(path, runs=[runs[0], {**runs[0], "seed": 1}, runs[2]])
    found = only(workspace).partition("runs[1].")[2]
    assert found == "curve: has the losses of runs[0], whose seed is another: run that seed itself"


def test_a_digest_of_zeros_is_named(workspace):
    path = workspace.recorded()
    software = json.loads(path.read_text())["software"] | {"lock": "0" * 64}
    workspace.edit(path, software=software)
    assert f": software.lock: is {'0' * 60!r}" in only(workspace)


def test_a_key_that_stands_twice_is_named(workspace):
    path = workspace.recorded()
    path.write_text(path.read_text().replace('"track":', '"track": "other",\n"track":'))
    assert only(workspace).startswith(f"{RECORD}:5: the key 'track' stands twice")
