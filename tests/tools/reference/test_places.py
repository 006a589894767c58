"""Every argument of every tool that names a place has a type that knows URLs."""

import argparse
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.common.paths import local_path, local_text, location
from tools.corpus.cli import main as corpus
from tools.launch import options
from tools.reference.programs import TEMPLATE, Program, find

PLACES = {local_path, local_text, location}
# Words in a help text, a name or a metavar of arguments that name places.
TELLS = re.compile(
    r"(?i)\b(dir|directory|directories|file|files|path|bundle|store|url|root|source)\b"
)
# Arguments whose texts have such a word and that name no place, with the reason.
OTHERS = {
    ("tools.speedrun.record", "entry"): "the name of an entry",
    ("tools.bundle", "imports"): "NAME:MODULE:PATH, of files that Pants passes",
    ("tools.bundle", "entry"): "a module",
    ("tools.bundle", "requirement"): "a distribution",
    ("tools.variants", "against"): "a variant, or COMMIT:DIRECTORY",
    ("tools.launch.options", "accelerator"): "cpu, gpu or tpu",
    ("tools.launch.options", "topology"): "devices",
    ("tools.launch.options", "on"): "an engine",
    ("tools.launch.options", "secret"): "a variable",
    ("tools.launch.options", "engine_arg"): "a setting of the engine's",
    ("tools.site.links", "url"): "an address in the pages, which nothing opens",
    ("tools.site.splice", "url"): "the same",
}
# Programs without flags of their own, and those that read theirs by tyro.
NO_PARSER = {"tools.common.checkout", "tools.ledger.sizes", "tools.launch.main", "tools.corpus"}


PARSES = {"tools.launch.options": lambda arguments: options.parse("base", arguments, Path())}


class Captured(Exception):
    """Carries the parser of a program out of it."""


def parser_of(program: Program, monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    def capture(parser: argparse.ArgumentParser, *_: object) -> None:
        raise Captured(parser)

    with monkeypatch.context() as patched:
        patched.setattr(argparse.ArgumentParser, "parse_args", capture)
        patched.setattr(argparse.ArgumentParser, "parse_known_args", capture)
        file = program.path.removesuffix(".py").replace("/", ".")
        module = importlib.import_module(file)
        with pytest.raises(Captured) as captured:
            (PARSES.get(program.module) or module.main)([])
    return captured.value.args[0]


def actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from actions(command)
        else:
            yield action


def takes_text(action: argparse.Action) -> bool:
    return action.nargs != 0 and not action.choices and action.type in (None, str)


def programs() -> list[Program]:
    all_programs = [p for p in find(Path()) if p.path != TEMPLATE and p.module not in NO_PARSER]
    return [*all_programs, Program("tools/launch/options.py", ())]


def test_no_argument_that_names_a_place_lacks_the_type(monkeypatch):
    seen, unused = set(), set(OTHERS)
    for program in programs():
        for action in actions(parser_of(program, monkeypatch)):
            assert action.type is not Path, f"{program.path}: {action.dest}: use local_path"
            seen |= {program.module} if action.type in PLACES else set()
            key = (program.module, action.dest)
            words = f"{action.help or ''} {action.dest} {action.metavar or ''}".replace("_", " ")
            if takes_text(action) and TELLS.search(words):
                assert key in OTHERS, f"{program.path}: {action.dest}: give it a type of paths.py"
            unused.discard(key)
    assert len(seen) > 15 and not unused, unused


def test_no_tool_makes_a_path_of_an_argument_itself():
    for path in Path("tools").rglob("*.py"):
        assert "type=Path" not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize(
    "arguments",
    [
        ["build", "a.txt", "--out", "s3:/bucket/store"],
        ["build", "a.txt", "--out="],
        ["build", "gs://bucket/a.txt", "--out", "x"],
        ["build", "a.txt", "s3://bucket/*.txt", "--out", "x"],
        ["build", "a.txt", "--out", "x", "--tokenizer", "s3://bucket/t.json"],
        ["build", "a.txt", "--out", "http://host/store"],
        ["default", "--cache-dir", "s3://bucket/cache"],
        ["inspect", "s3:/bucket/store"],
        ["inspect", "https://host/store"],
    ],
)
def test_the_corpus_refuses_in_one_line(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("text")
    assert corpus(arguments) == 2
    told = capsys.readouterr()
    assert re.fullmatch(r"error: .*(give a path|takes a path of this machine).*\n", told.err)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"] and not told.out


def test_a_cache_in_a_bucket_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRUG_CACHE", "s3://bucket/cache")
    assert corpus(["default", "--max-documents", "3"]) == 1
    assert re.fullmatch(r"error: GRUG_CACHE=s3://.*takes a path.*\n", capsys.readouterr().err)
    assert not list(tmp_path.iterdir())
