import pytest

from tools.launch.main import choose, find_variants, main, needs_data, planned_topology


def test_finds_directories_with_a_launch_file(tmp_path):
    for name in ("base", "moe"):
        (tmp_path / "experiments/grug" / name).mkdir(parents=True)
        (tmp_path / "experiments/grug" / name / "launch.py").touch()
    (tmp_path / "experiments/grug/notes").mkdir()
    assert find_variants(tmp_path) == ["base", "moe"]


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ([], ("base", [])),
        (["--steps", "5"], ("base", ["--steps", "5"])),
        (["moe", "--steps", "5"], ("moe", ["--steps", "5"])),
        (["experiments/grug/moe/"], ("moe", [])),
    ],
)
def test_chooses_base_unless_a_variant_is_named(arguments, expected):
    assert choose(arguments, ["base", "moe"]) == expected


def test_unknown_variant_names_the_nearest():
    with pytest.raises(ValueError, match=r"no variant 'mow'.*nearest: moe"):
        choose(["mow"], ["base", "moe"])


def test_unknown_variant_ends_with_2_and_one_line(capsys):
    assert main(["no-such-variant"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("flags", [["--plan"], ["--data", "x"], ["--data=x"], ["--help"]])
def test_prepares_no_corpus_where_none_is_read(flags):
    assert not needs_data(flags)


def test_prepares_the_corpus_by_default():
    assert needs_data(["--steps", "5"])


@pytest.mark.parametrize(
    "flags, expected",
    [
        (["--plan", "--topology", "v5e:4x4"], "v5e:4x4"),
        (["--topology=8xh100", "--plan", "--steps", "3"], "8xh100"),
        (["--plan", "--topology", "8xh100", "--topology", "v5e:4x4"], "v5e:4x4"),
        (["--topology", "v5e:4x4"], ""),
        (["--plan"], ""),
    ],
)
def test_a_plan_for_other_hardware_names_it(flags, expected):
    assert planned_topology(flags) == expected


def test_no_compiler_ends_with_1_and_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["base", "--plan", "--topology", "v5e:4x4"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "tools/locks/tpu.lock cannot be read" in said
