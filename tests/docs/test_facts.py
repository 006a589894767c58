"""What the documents state of the code, in tables and numbers, is what the code holds."""

import ast
import dataclasses
import json
import re
import tomllib
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from experiments.grug.base.plumbing.cluster import Cluster
from experiments.grug.base.train import TrainConfig
from tools.bundle import topology
from tools.corpus import default, documents, encode, records
from tools.diff import histogram, moves, text
from tools.launch import hardware
from tools.ledger.ledger import BUCKETS, CHANGE_BUCKETS, FIELDS, REQUIRED, STATUSES
from tools.review import artifact, github, post
from tools.runs import record, run_summary
from tools.runs.stats import SIGNIFICANT
from tools.start import client, environment

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
DECISIONS = sorted((DOCS / "decisions").glob("0*.md"))
PARTS = ("Date", "Context", "Choice", "Cost")
MIB = 2**20
PANTS_TOML = tomllib.loads((ROOT / "pants.toml").read_text())


def read(page: str) -> str:
    """A document's text with every run of white space as one space."""
    return " ".join((ROOT / page).read_text().split())


def rows(page: str, head: str) -> list[list[str]]:
    """The cells of the table below the line `head`, row by row."""
    after = (ROOT / page).read_text().split(f"\n{head}\n", 1)
    assert len(after) == 2, f"{page} has no table with the head {head}"
    lines = after[1].splitlines()[1:]
    table = lines[: next((i for i, line in enumerate(lines) if line[:1] != "|"), len(lines))]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]


def codes(cells: list[str]) -> list[str]:
    """All `names` in these cells."""
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


# -- decisions and lists of pages -----------------------------------------------------------------


NO_SEARCH = "---\nsearch:\n  exclude: true\n---\n\n"  # what holds now is on other pages


def decision(page: Path) -> str:
    """A decision's text, without what leaves it out of the site's search."""
    content = page.read_text()
    assert content.startswith(NO_SEARCH), f"{page.name} begins with {NO_SEARCH!r}"
    return content.removeprefix(NO_SEARCH)


@pytest.mark.parametrize("page", DECISIONS, ids=lambda p: p.name)
def test_a_decision_has_its_number_and_its_parts(page):
    content = decision(page)
    assert content.startswith(f"# {int(page.name[:4])}. "), (
        f"{page.name}: the title lacks its number"
    )
    assert re.findall(r"^\*\*(\w+)\.\*\* ", content, re.MULTILINE) == list(PARTS), (
        f"{page.name}: the parts are {', '.join(PARTS)}, as in 0000-template.md"
    )
    assert page == DECISIONS[0] or re.search(
        r"^\*\*Date\.\*\* \d{4}-\d\d-\d\d$", content, re.MULTILINE
    )


def test_every_decision_is_listed_with_its_title():
    listed = re.findall(
        r"^(\d+)\. \[(.+)\]\((.+)\)$", (DOCS / "decisions/index.md").read_text(), re.M
    )
    titles = [decision(page).splitlines()[0][2:] for page in DECISIONS[1:]]
    assert [f"{number}. {title}" for number, title, _ in listed] == titles
    assert [page for *_, page in listed] == [page.name for page in DECISIONS[1:]]


def test_the_landing_page_leads_to_every_page():
    linked = set(re.findall(r"\]\(([\w/-]+\.md)", (DOCS / "index.md").read_text()))
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    pages -= {"index.md", *(f"decisions/{path.name}" for path in DECISIONS)}
    # The archive leads to its entries.
    pages = {page for page in pages if not page.startswith("reports/variants/")}
    assert pages <= linked, f"docs/index.md lacks {', '.join(sorted(pages - linked))}"


def test_the_readme_names_every_package_of_tools():
    packages = [
        row[0] for row in rows("docs/reference/packages.md", "| package | purpose | imports |")
    ]
    named = codes([row[0] for row in rows("README.md", "| path | what |")])
    assert set(codes(packages)) <= set(named)


def test_the_glossary_is_in_alphabetical_order():
    words = [row[0].lower() for row in rows("docs/glossary.md", "| word | meaning |")]
    assert all(one < other for one, other in pairwise(words))


# -- tables ---------------------------------------------------------------------------------------


def test_buckets_are_those_of_the_ledger():
    head = "| bucket | what you edit | what else may need an edit |"
    recipe = [row[0] for row in rows("docs/recipes/change_grug.md", head)]
    assert codes(recipe) == list(CHANGE_BUCKETS)
    archive = read("docs/reference/archive.md")
    listed = re.search(r"A bucket is one of (.+?)\.", archive)
    assert listed and codes([listed[1]]) == list(BUCKETS)


def test_fields_of_the_ledger():
    table = rows("docs/reference/archive.md", "| field | what it says | needed |")
    assert set(codes([row[0] for row in table])) == FIELDS.keys()
    assert {codes([row[0]])[0] for row in table if row[2] == "always"} == set(REQUIRED)
    (status,) = [row[1] for row in table if row[0] == "`status`"]
    assert codes([status]) == list(STATUSES)


def test_keys_of_a_run_summary():
    table = codes([row[0] for row in rows("docs/reference/archive.md", "| key | what it holds |")])
    assert set(table) == set(run_summary.KEYS)


def test_fields_of_a_track():
    tracks = json.loads((ROOT / "experiments/speedrun/tracks.json").read_text())["tracks"]
    table = codes([row[0] for row in rows("docs/speedrun/rules.md", "| field | meaning |")])
    assert all(track.keys() == set(table) for track in tracks.values())


def test_metrics_are_those_of_base():
    base = ROOT / "experiments/grug/base"
    sources = "".join((base / name).read_text() for name in ("train.py", "plumbing/runlog.py"))
    written = set(re.findall(r'"((?:train|optim|throughput|eval)/\w+)"', sources))
    evaluated = re.findall(r'"(eval/(?:\w+/)?)"', sources)
    written |= {f"{prefix}{name}" for prefix in evaluated for name in ("loss", "bpb")}
    listed = codes([row[0] for row in rows("docs/reference/run.md", "| key | unit |")])
    assert len(written) > 8 and set(listed) == written


def test_roles_of_settings():
    head = "| role | which settings | may a resumed run change it? | still one experiment? |"
    table = {row[0].strip("`"): row[2:] for row in rows("docs/reference/run.md", head)}
    roles = TrainConfig.roles()
    assert table.keys() == {*roles.values(), "none"}
    store: Any = SimpleNamespace(manifest={"digest": ""})
    held = TrainConfig().identity(store)
    for field in dataclasses.fields(TrainConfig):
        role = roles.get(field.name, "none")
        resumable, same = (
            "yes" if x else "no" for x in (field.name not in held, role in run_summary.FREE)
        )
        assert field.name == "model" or table[role] == [resumable, same], field.name


# -- numbers --------------------------------------------------------------------------------------

PYTHONS = re.fullmatch(
    r"CPython>=3\.(\d+),<3\.(\d+)", PANTS_TOML["python"]["interpreter_constraints"][0]
)
assert PYTHONS
CLUSTER = Cluster("alone")
NUMBERS = [
    ("README.md", f"Pants {PANTS_TOML['GLOBAL']['pants_version']}"),
    (
        "docs/how-to/start-on-any-machine.md",
        f"CPython 3.{PYTHONS[1]} to 3.{int(PYTHONS[2]) - 1}",
    ),
    ("docs/how-to/start-on-any-machine.md", f"not used for {environment.UNUSED_DAYS} days"),
    ("docs/reference/archive.md", f"at most {run_summary.MAX_BYTES // 1024} KiB"),
    ("docs/reference/archive.md", f"at most {run_summary.MAX_POINTS} points"),
    ("docs/reference/archive.md", f"at most {record.MAX_HELDOUT} evaluations"),
    ("docs/reference/archive.md", f"p below {SIGNIFICANT}"),
    ("docs/speedrun/rules.md", f"p below {SIGNIFICANT}"),
    ("docs/reference/diff.md", "at least three lines"),
    ("docs/reference/diff.md", f"{moves.MIN_CHARACTERS} characters"),
    ("docs/reference/diff.md", f"at most {histogram.MAX_EDITS} did"),
    ("docs/reference/diff.md", f"above {text.MAX_BYTES // MIB} MiB"),
    ("docs/reference/review.md", f"{artifact.MAX_ZIP // MIB} MiB compressed"),
    ("docs/reference/review.md", f"{artifact.MAX_EXPANDED // MIB} MiB unpacked"),
    ("docs/reference/review.md", f"{artifact.MAX_REPORTS + 2} entries"),
    ("docs/reference/review.md", f"{post.MAX_BODY:,} bytes"),
    ("docs/reference/review.md", f"`{post.BOT}`"),
    ("docs/reference/run.md", f"`LAUNCH_INIT_TIMEOUT_S` ({CLUSTER.init_timeout} s)"),
    ("docs/reference/run.md", f"`LAUNCH_HEARTBEAT_S` ({CLUSTER.heartbeat} s)"),
    (
        "docs/reference/run.md",
        f"{hardware.SIZES['tpu'].removeprefix('some ')} to download for TPUs",
    ),
    ("docs/reference/run.md", f"{hardware.SIZES['gpu'].removeprefix('some ')} for GPUs"),
    (
        "docs/reference/targets.md",
        f"Without an entry: {topology.DEFAULTS['cpu']} machine, {topology.DEFAULTS['gpu']}, "
        f"{topology.DEFAULTS['tpu']}.",
    ),
    ("docs/reference/token-store.md", f"vocabulary has {default.VOCAB_SIZE:,} entries"),
    ("docs/reference/token-store.md", f"above {documents.SLICE_BYTES // 1024} KiB"),
    ("docs/reference/token-store.md", f"at most {encode.Pace().commit_bytes // MIB} MiB of text"),
    ("docs/reference/token-store.md", f"may hold {records.MAX_RECORD_BYTES // MIB} MiB"),
]


@pytest.mark.parametrize(("page", "said"), NUMBERS, ids=[f"{p}: {s}" for p, s in NUMBERS])
def test_numbers_are_those_of_the_code(page, said):
    assert said in read(page)


def test_words_for_numbers_are_those_of_the_code():
    assert moves.MIN_LINES == 3  # "three", in diff.md
    assert github.ATTEMPTS == 5 and "tries a request five times" in read("docs/reference/review.md")
    assert default.HELDOUT_FRACTION == 1 / 20
    assert "a twentieth of the documents are held out" in read("docs/reference/token-store.md")
    assert client.DAEMON_SECONDS == 5 * 60
    assert "after five minutes" in read("docs/how-to/start-on-any-machine.md")


# -- help texts -----------------------------------------------------------------------------------

COMMAND_LINES = [
    *(f"experiments/grug/base/{name}.py" for name in ("launch", "train", "model")),
    *(f"experiments/grug/moe/{name}.py" for name in ("launch", "train", "model")),
    *(f"experiments/grug/nnx/{name}.py" for name in ("launch", "train", "model")),
    "tools/corpus/cli.py",
]


@pytest.mark.parametrize("path", COMMAND_LINES)
def test_a_flag_has_its_help_on_one_line(path):
    """tyro keeps the line break of an indented docstring, in the middle of a sentence."""
    for one in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(one, ast.ClassDef):
            for field, after in pairwise(one.body):
                if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr):
                    doc = ast.literal_eval(after.value)
                    assert "\n" not in doc, f"{path}:{after.lineno}: {ast.unparse(field.target)}"
