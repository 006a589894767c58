"""What the documents name exists: links, paths, goals, targets, flags."""

import re
import shlex
import tomllib
from collections.abc import Collection
from pathlib import Path

import pytest
import tyro

from experiments.grug.base import launch
from tools.corpus import cli
from tools.isolation.exemptions import CHECKS
from tools.launch import options
from tools.launch.main import choose, find_variants
from tools.launch.plans import take_flag
from tools.ledger.ledger import load_ledger
from tools.reference import pages

ROOT = Path(__file__).parents[2]
TOP_PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
DOCUMENTS = sorted([*TOP_PAGES, *(ROOT / "docs").rglob("*.md")])
# Pants' own; the workspace's are those of the reference, which is held to ./pants itself.
PANTS_GOALS = {"run", "test", "fmt", "lint", "check", "package", "generate-lockfiles", "help"}
PANTS_GOALS |= {"export"}
ALIASES = tomllib.loads((ROOT / "pants.toml").read_text())["cli"]["alias"]
PANTS_FLAGS = {"--changed-since", "--debug", "--force", "--no-pantsd", "--output", "--resolve"}
PANTS_FLAGS |= {"--keep-sandboxes", "-ldebug"}
GOALS_PAGE, TOOLS_PAGE = ((ROOT / page).read_text() for page in (pages.GOALS, pages.TOOLS))
# An alias stands for goals and their flags, or for a target.
GOALS = PANTS_GOALS | {name for name, meaning in ALIASES.items() if " " in meaning}
GOALS |= set(re.findall(r"^## ([\w-]+)$", GOALS_PAGE, re.MULTILINE))
FLAGS = PANTS_FLAGS | {
    flag.replace("[no-]", no)
    for flag in re.findall(r"`(--[][\w-]+)`", GOALS_PAGE)
    for no in ("", "no-")
}
# A heading -> the text below it; how a tool's command line begins -> its heading.
SECTIONS = dict(re.findall(r"^##+ (.+)\n((?:(?!##).*\n)*)", TOOLS_PAGE, re.MULTILINE))
ANCHORS = {re.sub(r"[^\w-]", "", name.lower()): name for name in SECTIONS}
LINKS = re.findall(r"^\| \[`(.+?)`\]\(#(.+?)\)", TOOLS_PAGE, re.MULTILINE)
TOOLS = {begins: ANCHORS[anchor] for begins, anchor in LINKS}
TOOLS |= {f"python -m {name}": name for name in TOOLS.values()}
TOP = ("experiments/", "tools/", "tests/", "docs/", ".ci/")

ALL_HAVE = {"--help", "--tyro-print-completion"}

every_page = pytest.mark.parametrize("page", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))


def code_lines(text: str) -> list[str]:
    """Lines of indented and fenced code, without comments and what is set off from a command."""
    lines, fenced = [], False
    for line in re.sub(r"\\\n +", "", text).splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            lines.append(re.split(r" #| {3,}", line.strip())[0].strip())
    return lines


def forked(text: str) -> set[str]:
    """The reader's own variants: a page that makes one goes on to use it by its name."""
    return set(re.findall(r"--fork-name=([a-z]\w*)", text)) | {"NAME", "VARIANT"}


def commands(text: str) -> list[str]:
    inline = re.findall(r"`((?:\./pants|python -m tools) [^`]+)`", text)
    result = [*code_lines(text), *inline]
    return [c for c in result if c.startswith(("./pants ", "python -m tools."))]


def test_there_is_something_to_check():
    text = (ROOT / "README.md").read_text()
    assert len(DOCUMENTS) > 5 and len(commands(text)) > 8


@every_page
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@every_page
def test_paths_exist(page):
    for path in re.findall(r"`([\w./-]+)`", page.read_text()):
        own = {"DIGEST", "TREE", *forked(page.read_text())}
        if path.startswith(TOP) and not re.search("|".join(sorted(own)), path):
            assert (ROOT / path).exists(), f"{page.name} names {path}"


def test_every_check_of_the_contract_is_listed():
    text = (ROOT / "docs/reference/variants.md").read_text()
    rows = [f"| `{name}` | {what} |" for name, what in CHECKS.items()]
    assert "\n".join(rows) in text, "docs/reference/variants.md: the table is not that of CHECKS"


@every_page
def test_commands_name_goals_targets_and_flags_that_exist(page):
    text = page.read_text()
    for command in commands(text):
        check(command, forked(text))


def check(command: str, own: Collection[str] = ("NAME", "VARIANT")) -> None:
    """`own` are names of variants that are the reader's, and a copy of base for all we know."""
    names = "|".join(sorted(own))
    words = [re.sub(rf"\b({names})\b", "base", word) for word in shlex.split(command)]
    of_two = "--on" in words or {"launch", "--against"} <= set(words)
    if not of_two:  # else they are flags of two programs: check_flags asks both
        check_tool(words, command)
    if words.pop(0) != "./pants":
        return
    ours = words[: words.index("--")] if "--" in words else words
    theirs = words[words.index("--") + 1 :] if "--" in words else []
    plain = [word for word in ours if not word.startswith("-")]
    goals = [word for word in plain if word in GOALS]
    targets = plain[len(goals) :]
    assert goals and plain[: len(goals)] == goals, command
    unknown = {word.partition("=")[0] for word in ours if word.startswith("-")} - FLAGS
    assert not unknown, f"{command}: there is no {', '.join(sorted(unknown))}"
    for target in targets if goals != ["help"] else ():
        check_target(target, command)
    if "run" in goals and theirs:
        check_flags(targets[0], theirs, command)


def check_tool(words: list[str], command: str) -> None:
    """Its options, as the reference of tools has them, which is held to the tools themselves."""
    begins = next((b for b in TOOLS if words[: len(b.split())] == b.split()), "")
    if not begins:
        assert words[0] != "python", f"{command}: there is no such tool"
        return
    rest = words[len(begins.split()) :]
    section = SECTIONS.get(" ".join((TOOLS[begins], *rest[:1])), SECTIONS[TOOLS[begins]])
    known = set(re.findall(r"--[\w.-]+", section))
    unknown = {word.partition("=")[0] for word in rest if word.startswith("--")} - known - ALL_HAVE
    assert not unknown, f"{command}: {TOOLS[begins]} has no {', '.join(sorted(unknown))}"


def check_target(target: str, command: str) -> None:
    path = re.sub(r"(::?|#)[\w-]*$", "", ALIASES.get(target, target)).removeprefix("//")
    assert (ROOT / path).exists(), f"{command}: there is no {target}"


# What the launcher answers itself.
OWN = (["--list"], ["--version"], ["--jobs"], ["--environments"])


def check_flags(target: str, flags: list[str], command: str) -> None:
    code: object = 0
    try:
        if target == "launch" and "--on" in flags:
            asked = options.parse(*choose(flags, find_variants(ROOT)), ROOT)
            launch.parse(asked.flags)
        elif target == "launch" and flags[:1] not in OWN:
            other, own = take_flag("--against", flags)
            assert not other or other in find_variants(ROOT), command
            launch.parse(choose(own, find_variants(ROOT))[1])
        elif target == "experiments/grug/base/launch.py":
            launch.parse(flags)
        elif target == "corpus":
            tyro.cli(cli.Command, args=flags)
    except SystemExit as ended:
        code = ended.code
    assert not code, command


@pytest.mark.parametrize(
    "command",
    [
        "./pants fly ::",
        "./pants test experiments/grug/nowhere::",
        "./pants run launch -- base --no-such-flag",
        "./pants run launch -- base --steps many",
        "./pants run launch -- base --plan --against base --no-such-flag",
        "./pants run launch -- base --on cloud",
        "./pants run launch -- base --on slurm --time-limits 1",
        "./pants run corpus -- bake text",
        "./pants variants --variants-colour=red",
        "./pants run tools/runs:claim -- NAME --versus base",
        "./pants run tools/runs:claim -- NAME --against base --loudly",
        "python -m tools.runs check --rot .",
        "python -m tools.nowhere",
    ],
)
def test_a_wrong_command_is_caught(command):
    with pytest.raises(AssertionError):
        check(command)


def test_the_ledger_of_this_repository():
    assert next(entry.name for entry in load_ledger(ROOT)) == "base"
