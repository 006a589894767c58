"""What the documents name exists: links, paths, goals, targets, flags."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import tyro

from experiments.grug.base import launch
from tools.corpus import cli
from tools.isolation.exemptions import CHECKS
from tools.launch.main import choose, find_variants

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
GOALS = {
    "run",
    "test",
    "fmt",
    "lint",
    "check",
    "package",
    "generate-lockfiles",
    "variants",
    "help",
    "diff",
}
TOP = ("experiments/", "tools/", "tests/", "docs/", ".ci/")

pages = pytest.mark.parametrize("page", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))


def code_lines(text: str) -> list[str]:
    """Lines of indented and fenced code, without comments."""
    lines, fenced = [], False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            lines.append(line.partition(" #")[0].strip())
    return lines


def commands(text: str) -> list[str]:
    inline = re.findall(r"`(\./pants [^`]+)`", text)
    return [c for c in [*code_lines(text), *inline] if c.startswith("./pants ")]


def test_there_is_something_to_check():
    text = (ROOT / "README.md").read_text()
    assert len(DOCUMENTS) > 5 and len(commands(text)) > 8


@pages
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pages
def test_paths_exist(page):
    for path in re.findall(r"`([\w./-]+)`", page.read_text()):
        if path.startswith(TOP) and "NAME" not in path:
            assert (ROOT / path).exists(), f"{page.name} names {path}"


def test_every_check_of_the_contract_is_listed():
    text = (ROOT / "docs/reference/variants.md").read_text()
    rows = [f"| `{name}` | {what} |" for name, what in CHECKS.items()]
    assert "\n".join(rows) in text, "docs/reference/variants.md: the table is not that of CHECKS"


@pages
def test_commands_name_goals_targets_and_flags_that_exist(page):
    for command in commands(page.read_text()):
        check(command)


def check(command: str) -> None:
    words = shlex.split(command)[1:]
    ours = words[: words.index("--")] if "--" in words else words
    theirs = words[words.index("--") + 1 :] if "--" in words else []
    plain = [word for word in ours if not word.startswith("-")]
    goals = [word for word in plain if word in GOALS]
    targets = plain[len(goals) :]
    assert goals and plain[: len(goals)] == goals, command
    for target in targets if goals != ["help"] else ():
        check_target(target, command)
    if "run" in goals:
        check_flags(targets[0], theirs, command)


def check_target(target: str, command: str) -> None:
    alias = tomllib.loads((ROOT / "pants.toml").read_text())["cli"]["alias"]
    path = re.sub(r"::?[\w-]*$", "", alias.get(target, target)).removeprefix("//")
    assert (ROOT / path).exists(), f"{command}: there is no {target}"


def check_flags(target: str, flags: list[str], command: str) -> None:
    flags = ["base" if flag == "NAME" else flag for flag in flags]
    try:
        if target == "launch" and flags != ["--list"]:
            launch.parse(choose(flags, find_variants(ROOT))[1])
        elif target == "experiments/grug/base/launch.py":
            launch.parse(flags)
        elif target == "corpus":
            tyro.cli(cli.Command, args=flags)
    except SystemExit as ended:
        assert not ended.code, command


@pytest.mark.parametrize(
    "command",
    [
        "./pants fly ::",
        "./pants test experiments/grug/nowhere::",
        "./pants run launch -- base --no-such-flag",
        "./pants run launch -- base --steps many",
        "./pants run corpus -- bake text",
    ],
)
def test_a_wrong_command_is_caught(command):
    with pytest.raises(AssertionError):
        check(command)
