"""The recipe from end to end, as typed: fork, edit, validate, diff, record, upstream, retire."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workspace.workspace import Workspace
from tools.corpus.default import prepare_default
from tools.ledger.ledger import Entry, load_ledger

ROOT = Path(__file__).parents[2]
RUN = (
    "--steps 3 --model.vocab-size 512 --model.d-model 64 --model.n-layers 2 --model.n-heads 2 "
    "--model.n-kv-heads 1 --model.head-dim 32 --model.d-ff 256 --sequence-length 128 "
    "--batch-size 8 --eval-every 3 --eval-tokens 2048 --no-tensorboard"
).split()
SQUARED, PLAIN = "jnp.square(jax.nn.relu(up))", "jax.nn.relu(up)"
# Their subjects do not matter to the recipe, and they are most of a variant's test time.
SLOW = ("test_train.py", "test_model.py")


class Lab:
    """A workspace whose one variant is base, with commands that must end well."""

    def __init__(self, root: Path):
        self.workspace = Workspace(ROOT, root)
        self.root = root
        self.write("docs/index.md", "# Home\n")
        shutil.copytree(ROOT / "docs/assets", root / "docs/assets")
        shutil.copy(ROOT / "docs/BUILD", root / "docs/BUILD")
        config = (root / "mkdocs.yml").read_text()
        self.write("mkdocs.yml", config[: config.index("\nnav:")] + "\n")
        for name in SLOW:
            (root / "experiments/grug/base" / name).unlink()
        self.workspace.commit()

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def pants(self, *args: str) -> str:
        run = self.workspace.pants(*args)
        assert run.returncode == 0, f"{args}\n{run.stdout[-4000:]}\n{run.stderr[-4000:]}"
        return run.stdout + run.stderr

    def refused(self, *args: str) -> str:
        run = self.workspace.pants(*args)
        assert run.returncode == 1, run.stdout + run.stderr
        return run.stdout + run.stderr

    def entry(self, name: str) -> Entry:
        return next(entry for entry in load_ledger(self.root) if entry.name == name)

    def page(self, name: str) -> str:
        """The variant's page in a site that is built anew, its tags left out."""
        self.pants("package", "docs:site")
        page = self.root / f"dist/site/reports/variants/{name}.html"
        return re.sub(r"<[^>]+>", "", page.read_text())


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("lab"))
    yield lab
    lab.workspace.stop()


def test_the_recipe(lab: Lab, tmp_path: Path) -> None:
    relu = lab.root / "experiments/grug/relu"
    base = lab.root / "experiments/grug/base"

    fork = ("fork", "experiments/grug/base", "--fork-name=relu", "--fork-purpose=No square?")
    assert "unknown bucket 'colour'" in lab.refused(*fork, "--fork-bucket=colour")
    assert not relu.exists()
    lab.pants(*fork, "--fork-bucket=MLP/activation")
    assert (lab.entry("relu").origin, lab.entry("relu").status) == ("base", "active")
    # An entry in the ledger does not run the tests of the site, nor of the tools.
    changed = ("--changed-since=HEAD", "--changed-dependents=transitive", "list")
    selected = [line for line in lab.pants(*changed).splitlines() if line[:1].isalpha()]
    assert "docs/reports/variants/relu.md:../../ledger" in selected
    assert "docs:site" not in selected
    lab.pants("fmt", "lint", "check", "experiments/grug/relu::")
    lab.pants("test", "experiments/grug/relu/test_launch.py")  # `validate`, below, runs them all
    assert "experiments.grug.base" not in (relu / "test_launch.py").read_text()
    lab.workspace.commit()

    assert "changes nothing of base" in lab.refused(
        "upstream", "experiments/grug/relu", "--upstream-verdict=It pays."
    )
    model = (relu / "model.py").read_text()
    assert SQUARED in model
    (relu / "model.py").write_text(model.replace(SQUARED, PLAIN))
    # As on a branch: what is not in main is what is validated.
    message = lab.pants("validate")
    assert "experiments/grug/relu#contract succeeded" in message and "grug/base" not in message
    assert re.search(r"relu .* \+1 -1 ", lab.pants("variants"))

    lab.pants("diff", "experiments/grug/relu")
    report = re.sub(r"<[^>]+>", "", (lab.root / "dist/diff/relu/index.html").read_text())
    assert "MLP/activation" in report and PLAIN in report
    assert "not committed" in lab.refused(
        "upstream", "experiments/grug/relu", "--upstream-verdict=It pays."
    )
    lab.workspace.commit()

    store = prepare_default(tmp_path, max_documents=80, vocab_size=512, heldout_fraction=0.1)
    # The second is the name that the tool had before.
    for name, record in (("base", "tools/runs:record"), ("relu", "tools/archive:record")):
        to = str(tmp_path / name)
        lab.pants("run", "launch", "--", name, *RUN, f"--data={store}", f"--run-dir={to}")
        lab.pants("run", record, "--", to)
        assert len(list((lab.root / f"docs/reports/runs/{name}").glob("*.json"))) == 1
        assert lab.entry(name).fields["results"].startswith("[recorded: ")
    assert not (lab.root / "docs/reports/sources").exists()  # both ran what a commit has
    lab.workspace.commit()
    against = ("--", "relu", "--against=base")
    claims = [
        lab.workspace.pants("run", f"tools/{name}:claim", *against).stdout
        for name in ("runs", "archive")
    ]
    assert "one seed: no claim" in claims[0] and claims[1] == claims[0]
    page = lab.page("relu")
    assert "No square?" in page and "one seed: no claim" in page and PLAIN in page

    lab.pants("upstream", "experiments/grug/relu", "--upstream-verdict=It pays.")
    assert (base / "model.py").read_text() == model.replace(SQUARED, PLAIN)
    assert (lab.entry("relu").status, lab.entry("relu").superseded_by) == ("superseded", "base")
    lab.pants("lint", "::")
    lab.workspace.commit()
    lab.pants("lint", "--only=grug-records", "::")
    assert "superseded" in lab.page("relu")

    lab.pants("retire", "experiments/grug/relu", "--retire-verdict=The square is not needed.")
    assert not relu.exists() and lab.entry("relu").status == "deleted"
    lab.pants("lint", "::")
    lab.workspace.commit()
    page = lab.page("relu")
    assert "The square is not needed." in page and "deleted" in page
    assert PLAIN in page  # the diff of what only git still has

    lab.workspace.git("-c", "core.editor=true", "revert", "HEAD")
    assert (relu / "model.py").read_text() == model.replace(SQUARED, PLAIN)
    assert lab.entry("relu").status == "superseded"
    lab.pants("lint", "--only=grug-records", "::")
    assert "relu" in lab.pants("variants")


def test_a_variant_whose_tests_fail_is_not_merged(lab: Lab) -> None:
    lab.pants(
        "fork",
        "experiments/grug/base",
        "--fork-name=broken",
        "--fork-purpose=Is it red?",
        "--fork-bucket=MLP/activation",
    )
    broken = lab.root / "experiments/grug/broken"
    (broken / "test_launch.py").write_text("def test_red():\n    assert False\n")
    lab.workspace.commit()
    before = (lab.root / "experiments/grug/base/test_launch.py").read_text()
    message = lab.refused("upstream", "experiments/grug/broken", "--upstream-verdict=It pays.")
    assert "experiments/grug/broken/test_launch.py" in message and "nothing was merged" in message
    assert (lab.root / "experiments/grug/base/test_launch.py").read_text() == before
    assert lab.entry("broken").status == "active"
    (broken / "model.py").unlink()
    assert "commit it" in lab.refused("retire", "experiments/grug/broken", "--retire-verdict=No.")
    lab.workspace.git("checkout", "--quiet", "experiments/grug/broken")


def test_one_experiments_trouble_stays_on_its_page(lab: Lab) -> None:
    """A plan that fails, and code that no commit has: the site has all the rest."""
    for name in ("crashing", "lost"):
        lab.pants(
            "fork",
            "experiments/grug/base",
            f"--fork-name={name}",
            "--fork-purpose=Is it told?",
            "--fork-bucket=MLP/activation",
            "--fork-stage",
        )
    lab.workspace.commit()
    lab.pants("retire", "experiments/grug/lost", "--retire-verdict=No.", "--retire-stage")
    lab.workspace.commit()
    with (lab.root / "experiments/grug/crashing/model.py").open("a") as model:
        model.write("oops = undefined_name\n")
    entry = lab.root / "docs/reports/variants/lost.md"
    nowhere = f"last known-good: {'0' * 12}"
    entry.write_text(re.sub("last known-good: .*", nowhere, entry.read_text()))
    page = lab.page("crashing")
    assert "undefined_name" in page and "NameError" in page
    pages = lab.root / "dist/site/reports/variants"
    assert f"git show {'0' * 12}" in (pages / "lost.html").read_text()
    has_diff = ['class="gd"' in (pages / f"{n}.html").read_text() for n in ("crashing", "lost")]
    assert has_diff == [True, False]


def test_goals_ask_for_one_variant(lab: Lab) -> None:
    for goal in ("fork", "upstream", "retire"):
        assert f"name one: ./pants {goal} experiments/grug/NAME" in lab.refused(goal)
        assert "name one" in lab.refused(goal, "experiments/grug::")
