"""The leaderboard says what the records hold, and the same each time."""

import re
from pathlib import Path

import pytest

from tests.tools.speedrun.conftest import NAME
from tools.common.errors import ToolError
from tools.runs.stats import Sample, welch
from tools.speedrun.entry import load
from tools.speedrun.page import INDEX, main, pages, standings, write
from tools.speedrun.tracks import load_tracks

FASTER, SLOWER = "2026-11-23_faster", "2026-11-24_slower"
REPOSITORY = Path(__file__).parents[3]


def standing(workspace) -> dict[str, tuple]:
    tracks = load_tracks(workspace.root)
    names = [p.name for p in workspace.area.iterdir() if p.is_dir()]
    result = standings([load(workspace.root, n, tracks) for n in names], tracks["tiny"])
    return {s.record.entry: (s.against and s.against.entry, s.p, s.is_new) for s in result}


def test_a_record_has_to_be_faster_with_certainty(workspace):
    workspace.recorded(seconds=100)
    workspace.recorded(FASTER, seconds=50)
    workspace.recorded(SLOWER, seconds=49.5)
    result = standing(workspace)
    p = welch(Sample((50, 51, 52)), Sample((100, 101, 102)))
    assert result[NAME] == (None, None, True)
    assert p and result[FASTER] == (NAME, pytest.approx(p.p), True)
    against, p, is_new = result[SLOWER]
    assert against == FASTER and p > 0.05 and not is_new


def test_a_slower_entry_is_no_record(workspace):
    workspace.recorded(seconds=50)
    workspace.recorded(FASTER, seconds=100)
    assert standing(workspace)[FASTER][2] is False


def test_times_on_other_hardware_do_not_compare(workspace):
    workspace.recorded(seconds=100)
    path = workspace.recorded(FASTER, seconds=50)
    path.write_text(path.read_text().replace('"cores":2', '"cores":64'))
    assert standing(workspace)[FASTER] == (None, None, True)


def test_the_page_ranks_and_shows(workspace):
    workspace.recorded(seconds=100)
    workspace.recorded(FASTER, seconds=50)
    page = pages(workspace.root)[INDEX]
    cell = re.compile(r'<td data-label="(.*?)"(?: data-sort=".*?")?>(.*?)</td>')
    first, second = (dict(cell.findall(row)) for row in re.findall(r"<tr>(<td.*?)</tr>", page))
    assert (first["#"], second["#"]) == ("1", "2")
    name = FASTER.replace("_", "_<wbr>")
    assert first["Name"] == f'<a href="{FASTER}.html">{name}</a> ★'
    assert (first["Time, s"], first["CPU time, s"]) == ("51.0 ± 1.0", "76.5 ± 1.5")
    assert (first["Author"], first["Tokens"], first["Steps"]) == ("A. Author", "1,000", "2")
    assert (first["Bits per byte"], first["n"]) == ("2.4020 ± 0.0020", "3")
    assert (first["p"], second["p"]) == ("&lt; 0.0001", "—")
    assert first["Hardware"] == "CPU, 2 cores, 16 GiB"
    assert f"Solid: {FASTER}. Dashed: {NAME}." in page
    assert "<svg" in page and "to 2.5 bits per byte" in page


def test_the_same_records_give_the_same_bytes(workspace):
    workspace.recorded()
    main(["--root", str(workspace.root), "--out", str(workspace.root / "a")])
    main(["--root", str(workspace.root), "--out", str(workspace.root / "b")])
    for name in (INDEX, f"speedrun/{NAME}.md"):
        text = (workspace.root / "a" / name).read_bytes()
        assert text == (workspace.root / "b" / name).read_bytes()
        assert str(workspace.root) not in text.decode()


def test_what_others_wrote_is_harmless(workspace):
    path = workspace.recorded()
    workspace.edit(path, author="<script>x</script>")
    page = pages(workspace.root)[INDEX]
    assert "<script>" not in page and "&lt;script&gt;" in page


def test_a_readme_is_a_page_without_dead_links(workspace):
    workspace.recorded()
    page = pages(workspace.root)[f"speedrun/{NAME}.md"]
    assert f"# {NAME}" in page and "See `the code`." in page and "run.py" not in page


def test_an_entry_of_the_ledger_links_to_its_diff(workspace):
    workspace.recorded()
    ledger = workspace.root / "docs/reports/grug-archive.md"
    ledger.parent.mkdir(parents=True)
    fields = {"path": f"experiments/speedrun/{NAME}", "origin": "none", "status": "active"}
    fields |= {"purpose": "x", "bucket": "template", "verdict": "x"}
    lines = "".join(f"- {key}: {value}\n" for key, value in fields.items())
    ledger.write_text(f"# Archive\n\n## {NAME}\n\n{lines}")
    result = pages(workspace.root)
    assert f'(<a href="../reports/variants/{NAME}.html">diff</a>)' in result[INDEX]
    assert f"[Diff](../reports/variants/{NAME}.md)" in result[f"speedrun/{NAME}.md"]


def test_columns_sort_as_numbers(workspace):
    workspace.recorded(seconds=100)
    workspace.recorded(FASTER, seconds=50)
    page = pages(workspace.root)[INDEX]
    keys = re.findall(r'<td data-label="(Time, s|Tokens|p)" data-sort="(.*?)">', page)
    faster, slower = dict(keys[:3]), dict(keys[3:])
    assert float(faster["Time, s"]) == 51 and float(slower["Time, s"]) == 101
    assert float(faster["Tokens"]) == 1000
    assert 0 < float(faster["p"]) < 1e-4 and slower["p"] == ""


def test_an_entry_without_a_record_is_listed_and_stops_nothing(workspace):
    workspace.recorded()
    (workspace.area / FASTER).mkdir()
    result = pages(workspace.root)
    assert f"Not recorded yet: <code>{FASTER}</code>" in result[INDEX]
    assert f"speedrun/{FASTER}.md" not in result


def test_a_refused_entry_stops_the_page(workspace):
    workspace.edit(workspace.recorded(), hardware=None)
    with pytest.raises(ToolError, match="hardware: is missing"):
        write(workspace.root, workspace.root / "out")
    assert not (workspace.root / "out").exists()


def test_a_workspace_without_speedruns(tmp_path):
    assert pages(tmp_path) == {}
    with pytest.raises(ToolError, match="has no speedrun"):
        write(tmp_path, tmp_path / "out")


def test_the_shipped_leaderboard():
    page = pages(REPOSITORY)[INDEX]
    assert "2026-11-22_baseline" in page
