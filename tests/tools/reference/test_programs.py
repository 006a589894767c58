"""Programs are found in the tree; one that has no help is an error, never left out."""

import argparse
from pathlib import Path

import pytest

from tools.common.errors import ToolError
from tools.reference import programs
from tools.reference.help_text import Entry
from tools.reference.programs import find, say

PROGRAM = """
import argparse

def main():
    parser = argparse.ArgumentParser(description="Bakes a cake.")
    commands = parser.add_subparsers()
    bake = commands.add_parser("bake", help="heat it")
    bake.add_argument("kind", choices=("plain", "marble"))
    bake.add_argument("size", choices=("big", "small"), help="of the tin")
    bake.add_argument("--minutes", type=int, default=40, help="how long; default: %(default)s")
    commands.add_parser("taste")
    parser.parse_args()

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace with one program, `python -m tools.cake`, and a library beside it."""
    (tmp_path / "tools/cake").mkdir(parents=True)
    (tmp_path / "pants.toml").write_text(
        '[cli.alias]\nlaunch = "//:launch"\ncake = "//tools/cake:it"\n'
    )
    (tmp_path / "BUILD").write_text(
        'pex_binary(name="launch", entry_point="tools/launch/main.py")\n'
    )
    (tmp_path / "tools/cake/BUILD").write_text("python_sources()\n")
    (tmp_path / "tools/cake/__main__.py").write_text(PROGRAM)
    (tmp_path / "tools/cake/flour.py").write_text("GRAMS = 500\n")
    return tmp_path


def paths(root: Path) -> list[str]:
    return [program.path for program in find(root)]


def test_found_are_files_that_run_and_entry_points_and_the_template(root):
    assert paths(root) == [programs.TEMPLATE, "tools/launch/main.py", "tools/cake/__main__.py"]
    (root / "tools/cake/flour.py").write_text('if __name__ == "__main__":\n    print()\n')
    assert "tools/cake/flour.py" in paths(root)


@pytest.mark.parametrize(
    ("target", "way"),
    [
        ('pex_binary(name="it", entry_point="__main__.py")', "./pants run cake --"),
        ('python_source(name="other", source="__main__.py")', "./pants run tools/cake:other --"),
        ('python_sources(name="lib")', "python -m tools.cake"),
    ],
)
def test_a_target_says_how_pants_runs_it(root, target, way):
    (root / "tools/cake/BUILD").write_text(target)
    (cake,) = [program for program in find(root) if program.module == "tools.cake"]
    assert cake.ways[0] == way and cake.ways[-1] == "python -m tools.cake"


def test_commands_of_a_program_are_asked_too_but_not_the_choices_of_an_argument(root):
    (cake,) = [program for program in find(root) if program.module == "tools.cake"]
    top, bake, taste = say(root, cake)
    assert [one.words for one in (top, bake, taste)] == [(), ("bake",), ("taste",)]
    assert [command.name for command in top.help.commands] == ["bake", "taste"]
    assert (top.help.prose, bake.summary, taste.summary) == (("Bakes a cake.",), "heat it", "")
    assert bake.help.usage == "[--minutes MINUTES] {plain,marble} {big,small}"
    assert [section.entries for section in bake.help.sections] == [
        (Entry("{big,small}", "of the tin"),),
        (Entry("--minutes MINUTES", "how long; default: 40"),),
    ]


TYRO = '''
import tyro

def bake(flavour: str, sugar: bool = True, kind: str = "plain-and-simple") -> None:
    """Bakes a cake.

    Args:
        flavour: What it tastes of.
        sugar: Whether it is sweet, which most of those who were asked about it said they like, and
            some did not.
        kind: Which.
    """

def taste() -> None:
    """Says how it is."""

if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"bake": bake, "taste": taste})
'''


def test_boxes_are_read_too(root):
    (root / "tools/cake/__main__.py").write_text(TYRO)
    (cake,) = [program for program in find(root) if program.module == "tools.cake"]
    top, bake, taste = say(root, cake)
    assert top.help.commands == (Entry("bake", "Bakes a cake."), Entry("taste", "Says how it is."))
    assert top.help.sections == taste.help.sections == ()
    assert bake.help.prose == ("Bakes a cake.",)
    (options,) = bake.help.sections
    flavour, sugar, kind = options.entries
    assert flavour == Entry("--flavour STR", "What it tastes of. (required)")
    assert sugar.text.endswith("asked about it said they like, and some did not. (default: True)")
    assert kind == Entry("--kind STR", "Which. (default: plain-and-simple)")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('raise SystemExit("no flour")', "ends with 1: no flour; a program says with --help"),
        ("pass", "ends with 0: it prints nothing; a program says with --help"),
        ("import time; time.sleep(60)", "takes more than 1 seconds; a program says at once"),
    ],
)
def test_a_program_without_help_is_an_error(root, monkeypatch, body, said):
    (root / "tools/cake/__main__.py").write_text(f'if __name__ == "__main__":\n    {body}\n')
    monkeypatch.setattr(programs, "TIMEOUT", 1 if "sleep" in body else 60)
    (cake,) = [program for program in find(root) if program.module == "tools.cake"]
    with pytest.raises(ToolError) as raised:
        say(root, cake)
    assert str(raised.value).startswith("tools/cake/__main__.py: `python -m tools.cake --help`")
    assert said in str(raised.value)


def test_the_environment_is_fixed(root, monkeypatch):
    shows = 'import os; print(sorted(os.environ), os.environ["COLUMNS"])'
    (root / "tools/cake/__main__.py").write_text(f'if __name__ == "__main__":\n    {shows}\n')
    (cake,) = [program for program in find(root) if program.module == "tools.cake"]
    before = programs.ask(root, cake)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("SOMEBODY", "here")
    assert programs.ask(root, cake) == before
    assert argparse.HelpFormatter("x")._width != 98  # this process has another width
