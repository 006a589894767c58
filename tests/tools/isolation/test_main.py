import json

import pytest

from tools.isolation.__main__ import main

MODEL = "# grug: no-contract causality until 2026-01-31: a prefix sees itself\nimport tools.x\n"


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    (tmp_path / "experiments/grug/moe").mkdir(parents=True)
    (tmp_path / "experiments/grug/moe/model.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)


def run(capsys, *arguments: str) -> tuple[int, dict]:
    code = main(list(arguments))
    return code, json.loads(capsys.readouterr().out)


def test_scan_reports_findings_exemptions_and_what_is_overdue(capsys):
    scan = ("scan", "experiments/grug/moe", "experiments/grug/moe/model.py")
    code, report = run(capsys, *scan)
    assert (code, report["schema_version"], report["problems"]) == (0, 1, [])
    assert [(f["line"], f["path"]) for f in report["findings"]] == [(2, scan[2])]
    assert report["exemptions"][0]["until"] == "2026-01-31"
    assert run(capsys, *scan, "--today", "2026-01-31")[1]["problems"] == []
    assert len(run(capsys, *scan, "--today", "2026-02-01")[1]["problems"]) == 1


def test_links_end_with_1(capsys, tmp_path):
    links = ("links", "--root", str(tmp_path), "experiments/grug/moe")
    assert run(capsys, *links)[0] == 0
    (tmp_path / "experiments/grug/moe/other.py").symlink_to("../base.py")
    code, report = run(capsys, *links)
    assert code == 1 and report["findings"][0]["path"] == "experiments/grug/moe/other.py"
