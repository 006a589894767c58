"""One help text, whichever CPython, parser or width printed it."""

import argparse

import pytest

from tools.reference.help_text import Entry, parse

# `--flavour` and `--sugar` as CPython 3.12 writes them, and as 3.13 does.
OLD = """\
usage: cake [-h] [-f FLAVOUR] [--sugar | --no-sugar]
            [--run-dir DIR]
            layer [layer ...]

Bakes a cake, and says
how it went.

positional arguments:
  layer

options:
  -h, --help            show this help message and exit
  -f FLAVOUR, --flavour FLAVOUR
                        what it tastes of; see also --run-
                        dir
  --sugar, --no-sugar   sweet (default: True)

where:
  Places of the kitchen.

  --run-dir DIR         {a,b} and more
"""
NEW = """\
usage: cake [-h] [-f FLAVOUR] [--sugar | --no-sugar] [--run-dir DIR] layer [layer ...]

Bakes a cake, and says how it went.

positional arguments:
  layer

options:
  -h, --help           show this help message and exit
  -f, --flavour FLAVOUR
                       what it tastes of; see also --run-dir
  --sugar, --no-sugar  sweet

where:
  Places of the kitchen.

  --run-dir DIR        {a,b} and more
"""


def test_the_texts_of_different_pythons_are_one():
    old, new = parse(OLD), parse(NEW)
    assert old == new
    assert new.usage == "[-f FLAVOUR] [--sugar | --no-sugar] [--run-dir DIR] layer [layer ...]"
    assert new.prose == ("Bakes a cake, and says how it went.",)
    assert [(s.title, s.note) for s in new.sections] == [
        ("positional arguments", ""),
        ("options", ""),
        ("where", "Places of the kitchen."),
    ]
    assert new.sections[1].entries == (
        Entry("-f, --flavour FLAVOUR", "what it tastes of; see also --run-dir"),
        Entry("--sugar, --no-sugar", "sweet"),
    )
    assert new.commands == ()


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cake", description="Bakes a cake. " * 9)
    parser.add_argument("-f", "--flavour", help="what it tastes of, at great length " * 4)
    parser.add_argument(
        "--sugar", action=argparse.BooleanOptionalAction, default=True, help="sweet"
    )
    commands = parser.add_subparsers(title="commands", required=True)
    commands.add_parser("bake", help="heat it until it is done, and then a little " * 3)
    commands.add_parser("taste")
    return parser


def test_this_python_prints_the_same_at_any_width(parser, monkeypatch):
    texts = []
    for columns in ("50", "100", "300"):
        monkeypatch.setenv("COLUMNS", columns)
        texts.append(parse(parser.format_help()))
    assert texts[0] == texts[1] == texts[2]
    options, *others = texts[0].sections
    assert not others
    assert [entry.name for entry in options.entries] == [
        "-f, --flavour FLAVOUR",
        "--sugar, --no-sugar",
    ]
    assert options.entries[1].text == "sweet"
    heat = ("heat it until it is done, and then a little " * 3).strip()
    assert texts[0].commands == (Entry("bake", heat), Entry("taste", ""))


def test_what_no_parser_printed_stays_as_it_is():
    text = "usage: cake [LAYERS]\n\n  cake 3      three of them\n"
    output = parse(text)
    assert (output.usage, output.prose, output.sections) == (None, (text.strip(),), ())


def test_a_layout_of_its_own_is_kept():
    output = parse(
        "usage: x [-h]\n\nFor example\n  x 1\n  x 2\n\nAnd\nso on.\n\noptions:\n  -h, --help\n"
    )
    assert output.prose == ("For example\n  x 1\n  x 2", "And so on.")
    assert output.sections == ()
