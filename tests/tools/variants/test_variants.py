import json

import pytest

from tools.diff.histogram import Counts
from tools.diff.plumbing import whose
from tools.speedrun.tracks import AREA
from tools.variants.__main__ import main
from tools.variants.facts import compare
from tools.variants.listing import SPEEDRUNS, listing, reasons

NAMES = ("experiments/grug/moe", "experiments/grug/base")
FACTS: dict[str, int | str | None] = {
    "files": 2,
    "lines": 1234,
    "added": 20,
    "deleted": 3,
    "own_plumbing": 0,
    "plumbing": "base's",
}
VARIANT = {
    "path": "experiments/grug/moe",
    "accelerators": ["cpu"],
    "locks": ["tools/locks/cpu.lock"],
    "contract": True,
    "facts": FACTS,
}
REQUEST = {"variants": [VARIANT], "changed": None, "suite": "tests/contract"}
LEDGER = """
## base
- path: experiments/grug/base
- origin: none
- status: active
- bucket: template
- purpose: p
- verdict: v
## moe
- path: experiments/grug/moe
- origin: base
- status: active
- bucket: MLP/activation
- purpose: p
- verdict: v
"""


def test_a_copy_that_only_says_its_own_name_has_no_changes():
    base = {"model.py": b"import experiments.grug.base.data\nA = 'experiments/grug/base'\n"}
    copy = {"model.py": base["model.py"].replace(b"base", b"moe")}
    facts = compare(copy, base, NAMES)
    assert (facts.files, facts.lines, facts.changed) == (1, 2, Counts(0, 0))


def test_another_s_longer_name_is_a_change():
    base = {"model.py": b"import experiments.grug.base.data\n# experiments/grug/base2\n"}
    copy = {"model.py": b"import experiments.grug.moe.data\n# experiments/grug/moe2\n"}
    assert compare(copy, base, NAMES).changed == Counts(1, 1)


def test_changed_added_and_missing_files_count():
    base = {"same.py": b"1\n", "edited.py": b"1\n2\n3\n", "gone.py": b"1\n2\n"}
    copy = {"same.py": b"1\n", "edited.py": b"1\n9\n3\n4\n", "new.py": b"8\n"}
    assert compare(copy, base, NAMES).changed == Counts(added=3, deleted=3)
    assert compare(copy, None, NAMES).changed is None


def test_plumbing_is_the_origins_or_files_of_its_own():
    base = {"model.py": b"1\n", "plumbing/data.py": b"1\n", "planning/plan.py": b"1\n"}
    assert compare({**base, "model.py": b"2\n"}, base, NAMES).own_plumbing == 0
    other = {**base, "plumbing/data.py": b"2\n", "plumbing/new.py": b""}
    del other["planning/plan.py"]
    assert compare(other, base, NAMES).own_plumbing == 3
    assert compare(base, None, NAMES).own_plumbing is None
    assert compare({"run.py": b"1\n"}, base, NAMES).own_plumbing is None


@pytest.mark.parametrize(
    ("own", "shown"), [(0, "base's"), (1, "1 file of its own"), (2, "2 files of its own")]
)
def test_the_plumbing_is_said_to_be_whose_it_is(own, shown):
    assert whose(own, "experiments/grug/base") == shown


@pytest.mark.parametrize(("plumbing", "shown"), [("base's", "base's"), (None, "-")])
def test_the_table_shows_whose_plumbing_it_is(plumbing, shown):
    variant = {**VARIANT, "facts": {**FACTS, "plumbing": plumbing}}
    heading, line = listing({**REQUEST, "variants": [variant]}, [], "table").splitlines()
    assert line[heading.index("plumbing") :].split("  ")[0] == shown


@pytest.mark.parametrize(
    "changed, why",
    [
        ([], []),
        (["experiments/grug/moe2/model.py", "docs/index.md", "tools/locks/tpu.lock"], []),
        (["experiments/grug/moe/model.py"], ["sources: model.py"]),
        (
            ["experiments/grug/moe/a/b.py", "experiments/grug/moe/BUILD"],
            ["sources: a/b.py", "BUILD"],
        ),
        (["tools/locks/cpu.lock"], ["lock: tools/locks/cpu.lock"]),
        (["tests/contract/test_model.py"], ["contract suite: test_model.py"]),
        (["tests/contractual.py"], []),
    ],
)
def test_reasons(changed, why):
    assert reasons(VARIANT, changed, "tests/contract") == why


def test_a_variant_without_a_contract_is_not_changed_by_it():
    assert reasons(VARIANT | {"contract": False}, ["tests/contract/x.py"], "tests/contract") == []


def run(tmp_path, capsys, request: dict, *flags: str, ledger: str = LEDGER) -> tuple[int, str, str]:
    (tmp_path / "request.json").write_text(json.dumps(request))
    (tmp_path / "ledger.md").write_text(ledger)
    code = main(["list", str(tmp_path / "request.json"), str(tmp_path / "ledger.md"), *flags])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_table(tmp_path, capsys):
    code, out, _ = run(tmp_path, capsys, REQUEST)
    head, line = out.splitlines()
    assert code == 0
    assert head.split()[:5] == ["name", "path", "origin", "status", "bucket"]
    for part in ("moe", "base", "active", "MLP/activation", "1,234", "+20 -3", "cpu"):
        assert part in line


def test_names_json_and_reasons(tmp_path, capsys):
    request = REQUEST | {"changed": ["experiments/grug/moe/BUILD"]}
    assert run(tmp_path, capsys, request, "--format=names")[1] == "moe\n"
    (row,) = json.loads(run(tmp_path, capsys, request, "--format=json")[1])["variants"]
    assert row["reasons"] == ["BUILD"] and row["added"] == 20
    assert "because of" in run(tmp_path, capsys, request)[1]


def test_an_empty_set_says_so(tmp_path, capsys):
    request = REQUEST | {"changed": ["README.md"]}
    assert run(tmp_path, capsys, request)[:2] == (0, "No variant changed.\n")
    assert run(tmp_path, capsys, request, "--format=names")[:2] == (0, "")
    assert json.loads(run(tmp_path, capsys, request, "--format=json")[1])["variants"] == []
    assert run(tmp_path, capsys, REQUEST | {"variants": []})[1] == "No variant here.\n"


def test_a_directory_without_an_entry_is_unrecorded():
    out = listing(REQUEST, [], "json")
    (row,) = json.loads(out)["variants"]
    assert (row["name"], row["status"], row["origin"]) == ("moe", "unrecorded", None)


def test_a_speedrun_is_recorded_elsewhere():
    assert SPEEDRUNS == AREA
    one = {**VARIANT, "path": f"{AREA}/2026-11-22_baseline"}
    (row,) = json.loads(listing({**REQUEST, "variants": [one]}, [], "json"))["variants"]
    assert (row["name"], row["status"]) == ("2026-11-22_baseline", "speedrun")


def test_a_wrong_ledger_ends_with_1_and_its_lines(tmp_path, capsys):
    wrong = LEDGER.replace("MLP/activation", "MLP")
    code, out, err = run(tmp_path, capsys, REQUEST, ledger=wrong)
    assert (code, out) == (1, "") and "ledger.md:13: unknown bucket 'MLP'" in err


def test_origins_are_paths(tmp_path, capsys):
    (tmp_path / "ledger.md").write_text(LEDGER)
    assert main(["origins", str(tmp_path / "ledger.md")]) == 0
    paths = json.loads(capsys.readouterr().out)["paths"]
    assert paths == {"experiments/grug/base": None, "experiments/grug/moe": "experiments/grug/base"}
    assert main(["origins", str(tmp_path / "absent.md")]) == 0


def test_facts_of_directories(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in (("base", "a\nb\n"), ("moe", "a\nc\nd\n")):
        plumbing = tmp_path / "experiments/grug" / name / "plumbing"
        plumbing.mkdir(parents=True)
        (plumbing / "data.py").write_text("d\n")
        (tmp_path / "experiments/grug" / name / "model.py").write_text(text)
    assert main(["facts", *NAMES]) == 0
    expected = {**FACTS, "files": 2, "lines": 4, "added": 2, "deleted": 1}
    assert json.loads(capsys.readouterr().out) == expected
    for name, text in (("table.json", "1\n2\n"), ("test_model.py", "x\n"), (".hidden", "y\n")):
        (tmp_path / "experiments/grug/moe" / name).write_text(text)
    assert main(["facts", *NAMES]) == 0
    expected |= {"files": 4, "lines": 7, "added": 5}
    assert json.loads(capsys.readouterr().out) == expected


def test_a_renamed_file_is_compared_with_what_it_was():
    lines = [f"V{n} = {n}\n".encode() for n in range(199)]
    base = {"model.py": b"".join(lines), "other.py": b"x\n"}
    moved = {"network.py": base["model.py"], "other.py": b"x\n"}
    assert compare(moved, base, NAMES).changed == Counts(1, 1)  # its name
    edited = {"network.py": b"".join([*lines[1:], b"new\n"]), "other.py": b"x\n"}
    assert compare(edited, base, NAMES).changed == Counts(1, 1)


def test_only_an_untouched_copy_is_0_lines_away():
    base = {"model.py": b"x = 1\n", "__init__.py": b""}
    assert compare(base, base, NAMES).changed == Counts(0, 0)
    assert compare(base | {"model/__init__.py": b""}, base, NAMES).changed == Counts(1, 0)
    assert compare({"model.py": b"x = 1\n"}, base, NAMES).changed == Counts(0, 1)


def test_a_renamed_file_of_plumbing_is_one_file_of_its_own():
    lines = b"".join(f"V{n} = {n}\n".encode() for n in range(9))
    base = {"plumbing/data.py": lines, "plumbing/other.py": b"x\n"}
    renamed = {"plumbing/input.py": lines, "plumbing/other.py": b"x\n"}
    assert compare(renamed, base, NAMES).own_plumbing == 1
